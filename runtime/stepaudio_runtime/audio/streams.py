"""Waves that arrive in pieces: what one stage of a stream looks like, and a change of rate as one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np
import soxr
from numpy.typing import NDArray

EMPTY = np.zeros(0, np.float32)


class Stage(Protocol):
    """One step on the way of a stream of float32 waves (n,); used up by `finish`."""

    def push(self, wave: NDArray[np.float32]) -> NDArray[np.float32]:
        """What becomes certain with `wave` (n,): any number of samples, none included."""

    def finish(self) -> NDArray[np.float32]:
        """The rest, once no wave follows."""


class StreamResampler:
    """A change of rate from `rate` to `to_rate` Hz; the pieces together are as long as the whole."""

    def __init__(self, rate: int, to_rate: int) -> None:
        self._same = rate == to_rate
        self._soxr = None if self._same else soxr.ResampleStream(rate, to_rate, 1, dtype="float32")

    def push(self, wave: NDArray[np.float32]) -> NDArray[np.float32]:
        """Samples at the new rate."""
        return wave if self._soxr is None else np.asarray(self._soxr.resample_chunk(wave), np.float32)

    def finish(self) -> NDArray[np.float32]:
        """The filter's tail."""
        if self._soxr is None:
            return EMPTY
        return np.asarray(self._soxr.resample_chunk(EMPTY, last=True), np.float32)


class Chain:
    """Stages one after the other."""

    def __init__(self, stages: Sequence[Stage]) -> None:
        self._stages = tuple(stages)

    def push(self, wave: NDArray[np.float32]) -> NDArray[np.float32]:
        """`wave` through all of them."""
        for stage in self._stages:
            wave = stage.push(wave)
        return wave

    def finish(self) -> NDArray[np.float32]:
        """What each still holds, through those behind it."""
        rest = EMPTY
        for stage in self._stages:
            rest = np.concatenate([stage.push(rest), stage.finish()])
        return rest
