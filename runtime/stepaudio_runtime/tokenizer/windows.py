"""The windows in which a stream's semantic ids are made: of fixed length and hop, so they can be repeated.

Window k ends at sample (k + 1) * hop, or where the stream ends, and begins `length` samples before (k + 1) *
hop, or where the stream begins. Its ids from k * hop on are new; those before were given by earlier windows.
Length and hop are multiples of 640 samples, one id, so the ids of all windows lie on one grid, and a stream
of at most 30 s gets as many as its whole wave.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from stepaudio_runtime.audio.mel import WHISPER_HOP, WHISPER_RATE
from stepaudio_runtime.tokenizer.semantic import MIN_PIECE_SAMPLES, PIECE_SAMPLES

GRID = 4 * WHISPER_HOP
"""640 samples, 40 ms: one semantic id."""


@dataclass(frozen=True)
class Piece:
    """A wave (N,) at 16 kHz for the semantic tokenizer; its first `skip` ids are known already."""

    wave: NDArray[np.float32]
    skip: int = 0


@dataclass(frozen=True)
class Windows:
    """Samples at 16 kHz; multiples of 640, hop <= length <= 30 s. Raises ValueError."""

    length: int
    hop: int

    def __post_init__(self) -> None:
        if not 0 < self.hop <= self.length <= PIECE_SAMPLES or self.length % GRID or self.hop % GRID:
            raise ValueError(f"windows of {self.length} samples every {self.hop}")

    @classmethod
    def seconds(cls, length_s: float, hop_s: float) -> Windows:
        """Windows by seconds, to the nearest 40 ms. Raises ValueError."""
        length, hop = (round(seconds * WHISPER_RATE / GRID) * GRID for seconds in (length_s, hop_s))
        return cls(length, hop)

    @property
    def length_s(self) -> float:
        """Length in seconds."""
        return self.length / WHISPER_RATE

    @property
    def hop_s(self) -> float:
        """Hop in seconds."""
        return self.hop / WHISPER_RATE

    def start(self, number: int) -> int:
        """First sample of window `number`."""
        return max(0, (number + 1) * self.hop - self.length)

    def skip(self, number: int) -> int:
        """Ids of window `number` that are not new."""
        return (number * self.hop - self.start(number)) // GRID


def windowed(wave: NDArray[np.float32], windows: Windows) -> list[Piece]:
    """All windows of a whole `wave` (N,): what a stream of it is tokenised in."""
    return list(WindowCutter(windows).push(wave, last=True))


def whole(wave: NDArray[np.float32]) -> list[Piece]:
    """Pieces of 30 s of a whole `wave` (N,), the last one dropped below 30 ms: the reference's way."""
    cut = (wave[start : start + PIECE_SAMPLES] for start in range(0, len(wave), PIECE_SAMPLES))
    return [Piece(piece) for piece in cut if len(piece) >= MIN_PIECE_SAMPLES]


class WindowCutter:
    """Cuts a stream into windows as it comes."""

    def __init__(self, windows: Windows) -> None:
        self._windows = windows
        self._held = np.zeros(0, np.float32)
        self._first = 0  # sample of the stream that `_held` begins with
        self._next = 0  # number of the next window

    def push(self, wave: NDArray[np.float32], *, last: bool) -> Iterator[Piece]:
        """The windows that `wave` (N,), after what was pushed before, completes; with `last` the rest too."""
        self._held = np.concatenate([self._held, wave])
        end = self._first + len(self._held)
        while (self._next + 1) * self._windows.hop <= end:
            yield self._take((self._next + 1) * self._windows.hop)
        if last and self._next * self._windows.hop < end and end - self._begin() >= MIN_PIECE_SAMPLES:
            yield self._take(end)

    def _begin(self) -> int:
        return self._windows.start(self._next)

    def _take(self, end: int) -> Piece:
        begin = self._begin()
        piece = Piece(self._held[begin - self._first : end - self._first], self._windows.skip(self._next))
        self._next += 1
        keep = self._begin()
        self._held = self._held[keep - self._first :].copy()
        self._first = keep
        return piece
