"""How far two waves are from each other: in what is heard (mel), and in who speaks (embedding). Pure."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from stepaudio_runtime.audio.mel import PROMPT_MIN_SAMPLES, prompt_mel
from stepaudio_runtime.audio.resample import resample
from stepaudio_runtime.audio.wave import Wave
from stepaudio_runtime.contract import SPEECH_RATE

_DECIBEL = 20 / np.log(10)  # a neper of amplitude
_FLOOR_DB = 60.0  # below the loudest band of a wave nothing is heard beside it


def mel_distance_db(one: Wave, other: Wave) -> float:
    """Mean difference in dB of the mel bands, along the alignment in time that makes it least.

    Both are taken relative to their own loudest band, and nothing below 60 dB under it counts. NaN where a
    wave is too short for a frame.
    """
    if min(len(wave.samples) * SPEECH_RATE // wave.rate for wave in (one, other)) < PROMPT_MIN_SAMPLES * 2:
        return float("nan")
    a, b = _bands(one), _bands(other)
    apart = np.stack([np.abs(row - b).mean(axis=1) for row in a])
    return _along_best_path(apart)


def similarity(one: NDArray[np.float32], other: NDArray[np.float32]) -> float:
    """Cosine of two speaker embeddings; 0 where one is zero."""
    norm = float(np.linalg.norm(one) * np.linalg.norm(other))
    return float(one @ other) / norm if norm else 0.0


def _bands(wave: Wave) -> NDArray[np.float64]:
    """(frames, 80) in dB, 0 the loudest, -60 the least."""
    mel = prompt_mel(resample(wave.samples, wave.rate, SPEECH_RATE)).T.astype(np.float64) * _DECIBEL
    return np.maximum(mel - mel.max(), -_FLOOR_DB)


def _along_best_path(apart: NDArray[np.float64]) -> float:
    """Mean of `apart` (n, m) along the cheapest path of steps (1, 0), (0, 1), (1, 1) from corner to corner.

    Cells of one antidiagonal do not need each other: each is computed at once.
    """
    n, m = apart.shape
    cost = np.full((n + 1, m + 1), np.inf)
    steps = np.zeros((n + 1, m + 1))
    cost[0, 0] = 0.0
    for diagonal in range(n + m - 1):
        i = np.arange(max(0, diagonal - m + 1), min(n, diagonal + 1))
        j = diagonal - i
        before = np.stack([cost[i, j], cost[i, j + 1], cost[i + 1, j]])
        best = before.argmin(axis=0)
        at = np.arange(len(i))
        cost[i + 1, j + 1] = before[best, at] + apart[i, j]
        steps[i + 1, j + 1] = np.stack([steps[i, j], steps[i, j + 1], steps[i + 1, j]])[best, at] + 1
    return float(cost[n, m] / steps[n, m])
