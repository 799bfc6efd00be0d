"""Both code books of a wave at any rate: whole files, and the steps that batching takes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from stepaudio_runtime.audio.loudness import normalise_peak, trim
from stepaudio_runtime.audio.resample import resample
from stepaudio_runtime.audio.wave import check_rate, check_samples
from stepaudio_runtime.codec.layout import interleave
from stepaudio_runtime.tokenizer.ids import Ids
from stepaudio_runtime.tokenizer.linguistic import LinguisticTokenizer
from stepaudio_runtime.tokenizer.plan import Share, plan_step
from stepaudio_runtime.tokenizer.semantic import SemanticTokenizer
from stepaudio_runtime.tokenizer.windows import whole
from stepaudio_runtime.tokenizer.work import Encoded, Progress, Work

RATE = 16_000
"""Hz that both tokenizers work at."""


@dataclass(frozen=True, eq=False)
class Tokens:
    """A wave's ids, and the codes 0..5119 made of them; `preprocessed` (N,) is what the models heard."""

    preprocessed: NDArray[np.float32]
    linguistic: Ids
    semantic: Ids
    codes: list[int]


def preprocess(
    wave: NDArray[np.float32], rate: int, *, trim_silence: bool = False, gain: float | None = None
) -> NDArray[np.float32]:
    """`wave` (N,) at `rate` Hz as the tokenizers take it: 16 kHz, peak 0.999, silence cut if asked.

    A `gain` takes the place of the peak: then a wave is heard as a stream of that gain is. Prompts of voices
    are trimmed, what a user says is not. Raises AudioError for a rate outside 8 to 192 kHz and for samples
    that are not finite.
    """
    check_rate(rate)
    check_samples(wave)
    wave = resample(wave, rate, RATE)
    wave = normalise_peak(wave) if gain is None else wave * np.float32(gain)
    return trim(wave) if trim_silence else wave


class DualTokenizer:
    """The two tokenizers behind one call."""

    def __init__(self, linguistic: LinguisticTokenizer, semantic: SemanticTokenizer) -> None:
        self.linguistic = linguistic
        self.semantic = semantic

    def encode(
        self,
        wave: NDArray[np.float32],
        rate: int,
        *,
        trim_silence: bool = False,
        gain: float | None = None,
    ) -> Tokens:
        """Tokens of `wave` (N,), mono at `rate` Hz. Audio too short for an id (30 ms, 55 ms) gives none."""
        preprocessed = preprocess(wave, rate, trim_silence=trim_silence, gain=gain)
        [found] = self.run([self.work(preprocessed)])
        codes = interleave(found.linguistic.ids.tolist(), found.semantic.ids.tolist())
        return Tokens(preprocessed, found.linguistic, found.semantic, codes)

    def work(self, preprocessed: NDArray[np.float32]) -> Work:
        """All that is to be done for a whole wave (N,) at 16 kHz."""
        features = self.linguistic.features(preprocessed)
        return Work(features, None, tuple(whole(preprocessed)), len(preprocessed))

    def progress(self, work: Work) -> Progress:
        """`work`, of which nothing is done yet."""
        model = self.linguistic.model
        return Progress(work, model.config.chunk, model.start() if work.state is None else work.state)

    def run(self, works: Sequence[Work]) -> list[Encoded]:
        """All of `works`, in as many steps as it takes."""
        progress = [self.progress(work) for work in works]
        while not all(each.done for each in progress):
            self.step(progress, plan_step([each.waiting(urgent=False) for each in progress]))
        return [each.result() for each in progress]

    def step(self, progress: Sequence[Progress], shares: Sequence[Share]) -> None:
        """One call of each encoder, with the planned share of each piece of work."""
        busy = [
            (each, each.next_features(share.windows)) for each, share in zip(progress, shares, strict=True)
        ]
        busy = [(each, features) for each, features in busy if len(features)]
        if busy:
            found = self.linguistic.batch([(features, each.state) for each, features in busy])
            for (each, features), (ids, state) in zip(busy, found, strict=True):
                each.took_features(len(features), ids, state)
        pieces = [
            (each, piece)
            for each, share in zip(progress, shares, strict=True)
            for piece in each.next_pieces(share.pieces)
        ]
        if pieces:
            for (each, _), ids in zip(
                pieces, self.semantic.batch([piece.wave for _, piece in pieces]), strict=True
            ):
                each.took_piece(ids)
