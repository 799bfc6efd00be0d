"""A stream's audio on its way to the models: resampled, levelled, cut into features and windows. Blocking.

However the audio is cut into pushes, the work is the same in sum, so the ids are. Two pipelines run side by
side on the levelled wave: 240 ms at a time for linguistic ids, declared windows for semantic ones.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from stepaudio_runtime.audio.loudness import PEAK, PEAK_FLOOR
from stepaudio_runtime.audio.resample import Resampler
from stepaudio_runtime.models.sanm import SanmState
from stepaudio_runtime.tokenizer.dual import RATE, DualTokenizer
from stepaudio_runtime.tokenizer.windows import WindowCutter, Windows
from stepaudio_runtime.tokenizer.work import Encoded, Work

GAIN_ESTIMATE_S = 1.0
"""Seconds of audio whose peak decides the gain of a stream that has none; nothing is certain before."""


class Level:
    """The gain of one stream: given, or estimated once from the peak of its first second."""

    def __init__(self, gain: float | None) -> None:
        self.gain = gain
        self._held = np.zeros(0, np.float32)

    def push(self, wave: NDArray[np.float32], *, last: bool) -> NDArray[np.float32]:
        """The levelled samples that `wave` (N,) at 16 kHz makes certain."""
        if self.gain is None:
            wave = np.concatenate([self._held, wave])
            estimated = int(GAIN_ESTIMATE_S * RATE)
            if len(wave) < estimated and not last:
                self._held = wave
                return np.zeros(0, np.float32)
            peak = np.maximum(np.abs(wave[:estimated]).max(initial=0), PEAK_FLOOR)
            self.gain = float(PEAK / peak)
            self._held = np.zeros(0, np.float32)
        return wave * np.float32(self.gain)


class Stream:
    """One stream at `rate` Hz. Its pushes and its `advance`s alternate."""

    def __init__(self, tokenizer: DualTokenizer, rate: int, gain: float | None, windows: Windows) -> None:
        self.level = Level(gain)
        self._rate = rate
        self._resampler: Resampler | None = None  # its table may take a while: made where work is done
        self._frontend = tokenizer.linguistic.frontend()
        self._cutter = WindowCutter(windows)
        self._state: SanmState | None = None

    def push(self, wave: NDArray[np.float32], *, last: bool) -> Work:
        """What `wave` (N,), after what was pushed before, gives to do."""
        if self._resampler is None:
            self._resampler = Resampler(self._rate, RATE)
        heard = self.level.push(self._resampler.push(wave, last=last), last=last)
        features = self._frontend.push(heard, last=last)
        return Work(features, self._state, tuple(self._cutter.push(heard, last=last)), len(heard))

    def advance(self, done: Encoded) -> None:
        """Take over the state that the work has led to."""
        self._state = done.state
