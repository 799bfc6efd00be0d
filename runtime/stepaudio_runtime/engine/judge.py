"""A judge of speech: pocketsphinx, whose package carries an English model, bound to the domain's grammar.

It is independent: others trained it on people, and it has nothing of ours but the grammar. It hears words
only; on an open vocabulary it is useless, so it judges texts of the domain and nothing else.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from stepaudio_runtime.audio.encoding import to_pcm16
from stepaudio_runtime.audio.loudness import normalise_peak
from stepaudio_runtime.audio.resample import resample
from stepaudio_runtime.audio.wave import Wave
from stepaudio_runtime.engine.domain.grammar import english_jsgf
from stepaudio_runtime.errors import ConfigError

RATE = 16_000
_SILENCE_BEFORE_S, _SILENCE_AFTER_S = 0.2, 0.3
"""Recordings begin and end in silence; the recogniser's search expects it."""
_SEARCH = "domain"


class Judge(Protocol):
    """Listens."""

    def words(self, wave: Wave) -> str:
        """What was said, lower-case words separated by one space; "" where nothing was understood."""


class EnglishJudge:
    """pocketsphinx with the grammar of the English domain. One instance belongs to one thread."""

    def __init__(self) -> None:
        try:
            from pocketsphinx import Decoder
        except ImportError:
            raise ConfigError(
                what="the package pocketsphinx, which holds the recogniser, is not installed",
                cure="pip install 'stepaudio-runtime[engine]'",
            ) from None
        # Means are taken of each utterance alone: what was heard before must not change what is heard now.
        self._decoder: Any = Decoder(samprate=RATE, lm=None, cmn="batch", loglevel="FATAL")
        self._decoder.add_jsgf_string(_SEARCH, english_jsgf())
        self._decoder.activate_search(_SEARCH)

    def words(self, wave: Wave) -> str:
        """The sentence of the grammar that `wave`, at any rate, sounds most like."""
        speech = normalise_peak(resample(wave.samples, wave.rate, RATE)) * 0.7
        before = np.zeros(int(_SILENCE_BEFORE_S * RATE), np.float32)
        after = np.zeros(int(_SILENCE_AFTER_S * RATE), np.float32)
        pcm = to_pcm16(np.concatenate([before, speech, after]))
        self._decoder.start_utt()
        self._decoder.process_raw(pcm.tobytes(), no_search=False, full_utt=True)
        self._decoder.end_utt()
        hypothesis = self._decoder.hyp()
        return "" if hypothesis is None else str(hypothesis.hypstr)


@dataclass(frozen=True)
class ErrorRate:
    """Errors of a transcription against `units` words (or characters) that were said."""

    substituted: int = 0
    deleted: int = 0
    inserted: int = 0
    units: int = 0

    @property
    def errors(self) -> int:
        """All kinds together."""
        return self.substituted + self.deleted + self.inserted

    @property
    def rate(self) -> float:
        """Errors a unit, may exceed 1; 0 where nothing was said and nothing was heard."""
        return self.errors / self.units if self.units else float(self.errors > 0)

    def __add__(self, other: ErrorRate) -> ErrorRate:
        return ErrorRate(
            self.substituted + other.substituted,
            self.deleted + other.deleted,
            self.inserted + other.inserted,
            self.units + other.units,
        )


def word_errors(said: str, heard: str) -> ErrorRate:
    """Word errors of `heard` against `said`; case and punctuation are the caller's."""
    import jiwer

    if not said.split():
        return ErrorRate(inserted=len(heard.split()))
    found = jiwer.process_words(said, heard)
    return ErrorRate(found.substitutions, found.deletions, found.insertions, len(said.split()))


def character_errors(said: str, heard: str) -> ErrorRate:
    """Character errors of `heard` against `said`, spaces left out: the measure of Chinese."""
    import jiwer

    said, heard = said.replace(" ", ""), heard.replace(" ", "")
    if not said:
        return ErrorRate(inserted=len(heard))
    found = jiwer.process_characters(said, heard)
    return ErrorRate(found.substitutions, found.deletions, found.insertions, len(said))


def total(rates: Iterable[ErrorRate]) -> ErrorRate:
    """All errors of a set over all its units: not the mean of its rates."""
    return sum(rates, ErrorRate())


def mismatched(count: int) -> Sequence[int]:
    """For each of `count` sentences another one's number: whose audio stands in for it in the ceiling."""
    # Neighbours are drawn from different topics as often as not; half way round is as good as any.
    return [(i + max(1, count // 2)) % count for i in range(count)]
