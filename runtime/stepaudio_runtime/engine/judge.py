"""A judge of speech: pocketsphinx, bound to the domain's grammar. Its package carries an English model.

It is independent: others trained it on people, and it has nothing of ours but the grammar. It hears words
only; on an open vocabulary it is useless, so it judges texts of the domain and nothing else.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from stepaudio_runtime.audio.loudness import normalise_peak
from stepaudio_runtime.audio.resample import resample
from stepaudio_runtime.audio.wave import Wave, to_pcm16
from stepaudio_runtime.engine.domain.grammar import chinese_jsgf, english_jsgf
from stepaudio_runtime.engine.domain.pinyin import READINGS, pronunciations, syllables
from stepaudio_runtime.errors import ConfigError

_AROUND_S, _AROUND_MANDARIN_S = (0.2, 0.3), (0.45, 0.6)
"""Silence before and after: recordings have it, and the recogniser's search expects it (of Mandarin more)."""
_SEARCH = "domain"
ACOUSTIC_MODEL = ("mdef", "means", "variances", "sendump", "transition_matrices", "feat.params", "noisedict")
"""The files of the Mandarin model."""
WHERE_IT_IS = "pocketsphinx 0.7 and 0.8 came with it, as model/hmm/zh/tdt_sc_8k of their source archive"
_WIDE = {"beam": 1e-40, "pbeam": 1e-40, "wbeam": 1e-30}
"""How much less likely than the best what is followed may be: at the defaults few sentences are heard out."""
_LINE_NOISE = 0.001
"""Level of the noise under a wave whose peak is 0.7: no telephone is as silent as a synthesiser's pause, and
its zeros shift the means of all that is heard. Without it 20 % of the syllables were wrong, with it 7 %."""


class Judge(Protocol):
    """Listens."""

    def words(self, wave: Wave) -> str:
        """What was said, lower-case words separated by one space; "" where nothing was understood."""


class EnglishJudge:
    """pocketsphinx with the grammar of the English domain. One instance belongs to one thread."""

    def __init__(self) -> None:
        self._recogniser = _Recogniser(16_000, _AROUND_S)
        self._recogniser.bind(english_jsgf())

    def words(self, wave: Wave) -> str:
        """The sentence of the grammar that `wave`, at any rate, sounds most like."""
        return self._recogniser.hear(wave)


class ChineseJudge:
    """The same of Chinese: its words are syllables of pinyin, without tones, which the model does not hear.

    `acoustic_model` is the folder of CMU's Mandarin model tdt_sc_8k. It learnt from people's speech on the
    telephone, and is in no package. Raises ConfigError where the folder is not it.
    """

    def __init__(self, acoustic_model: Path) -> None:
        missing = [name for name in ACOUSTIC_MODEL if not (acoustic_model / name).is_file()]
        if missing:
            raise ConfigError(
                what=f"{acoustic_model} is no acoustic model of Mandarin: it has no {missing[0]}",
                cure=f"name the folder with --acoustic-model; {WHERE_IT_IS}",
            )
        options = {"hmm": str(acoustic_model), "dict": None, "nfft": 256, **_WIDE}
        self._recogniser = _Recogniser(8_000, _AROUND_MANDARIN_S, _LINE_NOISE, **options)
        self._recogniser.learn({syllable: pronunciations(syllable) for syllable in set(READINGS.values())})
        self._recogniser.bind(chinese_jsgf())

    def words(self, wave: Wave) -> str:
        """The syllables of the grammar's sentence that `wave`, at any rate, sounds most like."""
        return self._recogniser.hear(wave)


class _Recogniser:
    """pocketsphinx at one rate (Hz), bound to a grammar; silence is put `around`, `noise` under all of it."""

    def __init__(self, rate: int, around: tuple[float, float], noise: float = 0.0, **options: Any) -> None:
        try:
            from pocketsphinx import Decoder
        except ImportError:
            raise ConfigError(
                what="the package pocketsphinx, which holds the recogniser, is not installed",
                cure="pip install 'stepaudio-runtime[engine]'",
            ) from None
        self._rate, self._around, self._noise = rate, around, noise
        # Means are taken of each utterance alone: what was heard before must not change what is heard now.
        self._decoder: Any = Decoder(samprate=rate, lm=None, cmn="batch", loglevel="FATAL", **options)

    def learn(self, words: Mapping[str, Sequence[Sequence[str]]]) -> None:
        """Words and the phones of each of their pronunciations, for a model without a dictionary."""
        for word, pronounced in sorted(words.items()):
            for number, phones in enumerate(pronounced, start=1):
                spelt = word if number == 1 else f"{word}({number})"
                self._decoder.add_word(spelt, " ".join(phones), update=False)

    def bind(self, grammar: str) -> None:
        """Hear sentences of the JSGF `grammar`, and nothing else."""
        self._decoder.add_jsgf_string(_SEARCH, grammar)
        self._decoder.activate_search(_SEARCH)

    def hear(self, wave: Wave) -> str:
        """The sentence that `wave` sounds most like; "" where nothing was understood."""
        speech = normalise_peak(resample(wave.samples, wave.rate, self._rate)) * 0.7
        before, after = (np.zeros(int(seconds * self._rate), np.float32) for seconds in self._around)
        heard = np.concatenate([before, speech, after])
        if self._noise:
            # The same each time: what is heard is a function of the wave.
            heard += self._noise * np.random.default_rng(0).standard_normal(len(heard), np.float32)
        pcm = to_pcm16(heard)
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


def syllable_errors(said: str, heard: str) -> ErrorRate:
    """Errors of the syllables `heard` (pinyin) against the characters of the domain that were `said`.

    Tones do not count: homophones are one syllable.
    """
    return word_errors(" ".join(syllables(said)), heard)


def total(rates: Iterable[ErrorRate]) -> ErrorRate:
    """All errors of a set over all its units: not the mean of its rates."""
    return sum(rates, ErrorRate())


def mismatched(count: int) -> Sequence[int]:
    """For each of `count` sentences another one's number: whose audio stands in for it in the ceiling."""
    # Neighbours are drawn from different topics as often as not; half way round is as good as any.
    return [(i + max(1, count // 2)) % count for i in range(count)]
