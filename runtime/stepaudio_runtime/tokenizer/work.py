"""One piece of work for both tokenizers, and how far it has come: the currency of the batching loop.

A whole file and the next bit of a stream are the same to the models: features that follow a state, and waves
that stand alone.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from stepaudio_runtime.audio.mel import WHISPER_HOP
from stepaudio_runtime.models.sanm import SanmState
from stepaudio_runtime.tokenizer.ids import Ids, joined
from stepaudio_runtime.tokenizer.plan import Waiting
from stepaudio_runtime.tokenizer.windows import Piece


@dataclass(frozen=True, eq=False)
class Work:
    """Features (n, 560) of a stream, its state before them, and pieces for the semantic tokenizer.

    `state` is None before the first features. `heard` counts the samples at 16 kHz that all this was made of.
    """

    features: NDArray[np.float32]
    state: SanmState | None
    pieces: tuple[Piece, ...]
    heard: int


@dataclass(frozen=True, eq=False)
class Encoded:
    """Ids of one piece of work, and the stream's state after it."""

    linguistic: Ids
    semantic: Ids
    state: SanmState
    heard: int


@dataclass(eq=False)
class Progress:
    """Work of which a part is done, and the `state` after it. `chunk` counts the features of a window."""

    work: Work
    chunk: int
    state: SanmState
    _features_done: int = 0
    _pieces_done: int = 0
    _linguistic: list[Ids] = field(default_factory=list)
    _semantic: list[Ids] = field(default_factory=list)

    def waiting(self, *, urgent: bool) -> Waiting:
        """What is left, as the planner counts it."""
        windows = -(-(len(self.work.features) - self._features_done) // self.chunk)
        pieces = self.work.pieces[self._pieces_done :]
        return Waiting(windows, tuple(len(piece.wave) // WHISPER_HOP for piece in pieces), urgent)

    @property
    def done(self) -> bool:
        """Whether nothing is left."""
        return self._features_done == len(self.work.features) and self._pieces_done == len(self.work.pieces)

    def next_features(self, windows: int) -> NDArray[np.float32]:
        """Features of the next `windows` windows."""
        return self.work.features[self._features_done : self._features_done + windows * self.chunk]

    def next_pieces(self, count: int) -> tuple[Piece, ...]:
        """The next `count` pieces."""
        return self.work.pieces[self._pieces_done : self._pieces_done + count]

    def took_features(self, count: int, ids: Ids, state: SanmState) -> None:
        """Note the ids of the next `count` features."""
        self._features_done += count
        self._linguistic.append(ids)
        self.state = state

    def took_piece(self, ids: Ids) -> None:
        """Note the ids of the next piece."""
        skip = self.work.pieces[self._pieces_done].skip
        self._pieces_done += 1
        self._semantic.append(Ids(ids.ids[skip:], ids.margin[skip:]))

    def result(self) -> Encoded:
        """Everything, once it is done."""
        return Encoded(joined(self._linguistic), joined(self._semantic), self.state, self.work.heard)
