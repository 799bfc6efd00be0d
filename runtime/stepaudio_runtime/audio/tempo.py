"""Faster or slower speech with its pitch kept, on a stream: FFmpeg's `atempo`.

It lines up overlapping pieces of the wave where they are most alike (WSOLA), which suits a single voice,
holds back at most 0.3 s (0.4 s at 4), and gives the same samples however the wave is cut up.
"""

from __future__ import annotations

from fractions import Fraction

import av
import av.error
import numpy as np
from av.filter import Graph
from numpy.typing import NDArray

from stepaudio_runtime.audio.streams import EMPTY

SLOWEST = 0.25
FASTEST = 4.0
_BLOCK = 512  # samples: the filters get blocks of one size, for their output depends a little on it
_ONE_STEP = 2.0  # beyond it one filter would drop samples instead of blending them: several share the work


class Tempo:
    """A stage that makes a stream at `rate` Hz `speed` times faster, 0.25 to 4."""

    def __init__(self, speed: float, rate: int) -> None:
        if not SLOWEST <= speed <= FASTEST:
            raise ValueError(f"speed {speed} is outside {SLOWEST} to {FASTEST}")
        self._rate = rate
        self._speed = speed
        self._waiting = EMPTY  # less than a block
        self._taken = self._pushed = self._given = 0  # samples: of the client, with silence, out
        graph = Graph()
        self._source = graph.add_abuffer(
            sample_rate=rate, format="flt", layout="mono", time_base=Fraction(1, rate)
        )
        last = self._source
        for factor in _factors(speed):
            step = graph.add("atempo", f"tempo={factor!r}")
            last.link_to(step)
            last = step
        self._sink = graph.add("abuffersink")
        last.link_to(self._sink)
        graph.configure()
        self._graph = graph  # the filters live as long as it does

    def push(self, wave: NDArray[np.float32]) -> NDArray[np.float32]:
        """What of the stretched wave is certain."""
        waiting = np.concatenate([self._waiting, wave])
        whole = len(waiting) - len(waiting) % _BLOCK
        self._waiting = waiting[whole:]
        self._taken += len(wave)
        for start in range(0, whole, _BLOCK):
            self._filter(waiting[start : start + _BLOCK])
        return self._count(self._pull())

    def finish(self) -> NDArray[np.float32]:
        """The end of it; the whole is as long as the wave divided by the speed."""
        if not self._taken:
            return EMPTY
        # The filters swallow the last hundredths of a second: they get silence to swallow instead.
        self._filter(np.concatenate([self._waiting, np.zeros(self._rate // 5, np.float32)]))
        self._source.push(None)
        wave = self._pull()
        missing = max(0, round(self._taken / self._speed) - self._given)
        return np.pad(wave, (0, max(0, missing - len(wave))))[:missing]

    def _filter(self, block: NDArray[np.float32]) -> None:
        frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(block)[None, :], format="flt", layout="mono")
        frame.sample_rate, frame.time_base, frame.pts = self._rate, Fraction(1, self._rate), self._pushed
        self._pushed += len(block)
        self._source.push(frame)

    def _count(self, wave: NDArray[np.float32]) -> NDArray[np.float32]:
        self._given += len(wave)
        return wave

    def _pull(self) -> NDArray[np.float32]:
        parts = [EMPTY]
        while True:
            try:
                frame = self._sink.pull()
            except (av.error.BlockingIOError, av.error.EOFError):
                return np.concatenate(parts)
            assert isinstance(frame, av.AudioFrame)  # noqa: S101 - what an audio sink gives
            parts.append(frame.to_ndarray().reshape(-1))


def _factors(speed: float) -> list[float]:
    """`speed` as a product of factors from 1/2 to 2."""
    factors = []
    while speed > _ONE_STEP:
        factors.append(_ONE_STEP)
        speed /= _ONE_STEP
    while speed < 1 / _ONE_STEP:
        factors.append(1 / _ONE_STEP)
        speed *= _ONE_STEP
    return [*factors, speed]
