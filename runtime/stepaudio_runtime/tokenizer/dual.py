"""Both code books of a wave at any rate: the path of `wav2token`, offline and whole."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from stepaudio_runtime.audio.loudness import normalise_peak, trim
from stepaudio_runtime.audio.resample import resample
from stepaudio_runtime.audio.wave import check_rate, check_samples
from stepaudio_runtime.codec.layout import interleave
from stepaudio_runtime.tokenizer.ids import Ids
from stepaudio_runtime.tokenizer.linguistic import LinguisticTokenizer
from stepaudio_runtime.tokenizer.semantic import SemanticTokenizer

RATE = 16_000
"""Hz that both tokenizers work at."""


@dataclass(frozen=True, eq=False)
class Tokens:
    """A wave's ids, and the codes 0..5119 made of them; `preprocessed` (N,) is what the models heard."""

    preprocessed: NDArray[np.float32]
    linguistic: Ids
    semantic: Ids
    codes: list[int]


def preprocess(wave: NDArray[np.float32], rate: int, *, trim_silence: bool) -> NDArray[np.float32]:
    """`wave` (N,) at `rate` Hz as the tokenizers take it: 16 kHz, peak 0.999, silence cut if asked.

    Prompts of voices are trimmed, what a user says is not. Raises AudioError for a rate outside 8 to 192 kHz
    and for samples that are not finite.
    """
    check_rate(rate)
    check_samples(wave)
    wave = normalise_peak(resample(wave, rate, RATE))
    return trim(wave) if trim_silence else wave


class DualTokenizer:
    """The two tokenizers behind one call."""

    def __init__(self, linguistic: LinguisticTokenizer, semantic: SemanticTokenizer) -> None:
        self.linguistic = linguistic
        self.semantic = semantic

    def encode(self, wave: NDArray[np.float32], rate: int, *, trim_silence: bool = False) -> Tokens:
        """Tokens of `wave` (N,), mono at `rate` Hz. Audio too short for an id (30 ms, 55 ms) gives none."""
        preprocessed = preprocess(wave, rate, trim_silence=trim_silence)
        linguistic = self.linguistic.encode(preprocessed)
        semantic = self.semantic.encode(preprocessed)
        codes = interleave(linguistic.ids.tolist(), semantic.ids.tolist())
        return Tokens(preprocessed, linguistic, semantic, codes)
