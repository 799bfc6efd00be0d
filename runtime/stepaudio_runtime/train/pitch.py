"""The pitch of clean speech, by autocorrelation: what the vocoder's pitch predictor learns from."""

from __future__ import annotations

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

HOP = 256  # samples, a mel frame
WINDOW = 1024
LOWEST_HZ, HIGHEST_HZ = 60.0, 400.0
_CLEAR = 0.5  # of the energy: below it there is no pitch
_NEAR_BEST = 0.9  # the shortest lag that explains nearly as much is the pitch, not its multiple
_QUIET = 1e-3  # root mean square


def pitch(wave: NDArray[np.float32], rate: int) -> NDArray[np.float32]:
    """Pitch in Hz of each mel frame of `wave` (N,): (N // 256,), 0 where there is none."""
    shortest, longest = int(rate / HIGHEST_HZ), int(rate / LOWEST_HZ)
    span = WINDOW + longest
    frames = len(wave) // HOP
    padded = np.pad(wave.astype(np.float64), (span // 2, span))
    windows = sliding_window_view(padded, span)[HOP // 2 :: HOP][:frames]
    head = windows[:, :WINDOW]
    size = 1 << int(np.ceil(np.log2(span + WINDOW)))
    spectrum = np.fft.rfft(windows, size) * np.conj(np.fft.rfft(head, size))
    products = np.fft.irfft(spectrum, size)[:, : longest + 1]
    squares = np.cumsum(np.pad(windows**2, ((0, 0), (1, 0))), axis=1)
    energy = squares[:, WINDOW : WINDOW + longest + 1] - squares[:, : longest + 1]
    likeness = products / np.sqrt(energy * energy[:, :1] + 1e-9)
    likeness[:, :shortest] = 0
    best = likeness.max(axis=1)
    inner = likeness[:, 1:-1]
    peaks = (inner >= likeness[:, :-2]) & (inner >= likeness[:, 2:]) & (inner >= _NEAR_BEST * best[:, None])
    lag = peaks.argmax(axis=1) + 1
    rows = np.arange(len(lag))
    before, here, after = (likeness[rows, lag + d] for d in (-1, 0, 1))
    bend = before - 2 * here + after
    refined = lag + np.where(bend < 0, 0.5 * (before - after) / np.where(bend < 0, bend, -1.0), 0.0)
    loud = np.sqrt((head**2).mean(axis=1)) > _QUIET
    voiced = loud & (best > _CLEAR) & peaks.any(axis=1)
    return np.where(voiced, rate / refined, 0.0).astype(np.float32)
