"""Kaldi's filter bank: log energies of 80 bands, 25 ms windows every 10 ms, at 16 kHz.

Two uses differ in window and scale: the linguistic tokenizer takes Hamming windows of the wave in 16-bit
units, the speaker embedding "povey" windows of the wave in [-1, 1] (so the floor acts in quiet bands).
No dither: the reference's default of one 16-bit step of noise makes quiet audio irreproducible.
"""

from __future__ import annotations

from functools import cache
from typing import Literal

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

RATE = 16_000  # Hz
WINDOW = 400  # samples: 25 ms
HOP = 160  # samples: 10 ms
BANDS = 80
_FFT = 512  # the next power of two
_LOW_HZ = 20.0
_HIGH_HZ = RATE / 2
_PREEMPHASIS = 0.97
_FLOOR = float(np.finfo(np.float32).eps)
_BLOCK_FRAMES = 2048

Shape = Literal["hamming", "povey"]


def frame_count(samples: int) -> int:
    """Whole windows in `samples`."""
    return max(0, (samples - WINDOW) // HOP + 1)


def fbank(wave: NDArray[np.float32], window: Shape) -> NDArray[np.float32]:
    """`wave` (N,) as log energies (frame_count(N), 80), with the wave's own scale."""
    if len(wave) < WINDOW:
        return np.zeros((0, BANDS), np.float32)
    frames = sliding_window_view(wave, WINDOW)[::HOP]
    return np.concatenate(
        [_log_energies(frames[i : i + _BLOCK_FRAMES], window) for i in range(0, len(frames), _BLOCK_FRAMES)]
    )


def speaker_features(wave: NDArray[np.float32]) -> NDArray[np.float32]:
    """CAM++'s input: povey filter bank (frames, 80) of `wave` (N,) at 16 kHz, minus its mean over time."""
    bands = fbank(wave, "povey")
    return bands - bands.mean(axis=0, keepdims=True) if len(bands) else bands


def _log_energies(frames: NDArray[np.float32], window: Shape) -> NDArray[np.float32]:
    x = frames.astype(np.float64)
    x -= x.mean(axis=1, keepdims=True)
    # The first sample of a window has no neighbour before it: Kaldi takes the sample itself.
    x = np.concatenate([x[:, :1] * (1 - _PREEMPHASIS), x[:, 1:] - _PREEMPHASIS * x[:, :-1]], axis=1)
    spectrum = np.fft.rfft(x * _shape(window), _FFT)
    power = spectrum.real**2 + spectrum.imag**2
    return np.log(np.maximum(power @ _triangles(), _FLOOR)).astype(np.float32)


@cache
def _shape(window: Shape) -> NDArray[np.float64]:
    shape = np.hamming(WINDOW) if window == "hamming" else np.hanning(WINDOW) ** 0.85
    return shape.astype(np.float64)


@cache
def _triangles() -> NDArray[np.float64]:
    """(257, 80): triangles of height one, evenly spaced and straight-sided in Kaldi's mel scale."""
    edges = np.linspace(_mel(_LOW_HZ), _mel(_HIGH_HZ), BANDS + 2)
    bins = _mel(np.arange(_FFT // 2 + 1, dtype=np.float64) * (RATE / _FFT))[:, None]
    rise = (bins - edges[:-2]) / (edges[1:-1] - edges[:-2])
    fall = (edges[2:] - bins) / (edges[2:] - edges[1:-1])
    return np.maximum(0.0, np.minimum(rise, fall))


def _mel(hz: float | NDArray[np.float64]) -> NDArray[np.float64]:
    return np.asarray(1127.0 * np.log1p(np.asarray(hz) / 700.0))
