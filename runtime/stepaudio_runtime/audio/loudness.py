"""Level and silence: gain, peak normalisation and the trimming of what lies before and after the speech.

The latter two are the reference's, sample for sample: prompts of voices are trimmed, what a user says is not.
"""

from __future__ import annotations

from math import ceil

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

PEAK = np.float32(0.999)
"""Peak after normalisation."""
PEAK_FLOOR = np.float32(0.01)
"""Waves below this peak are amplified as if they reached it, so that silence stays silence."""

TRIM_RATE = 16_000
"""Hz; the only rate that `trim` is defined at."""
_FRAME = 512  # samples
_HOP = 128  # samples
_THRESHOLD_DB = 20.0  # below the loudest frame
_AMPLITUDE_FLOOR = 1e-5  # -100 dB: what counts as no sound at all
_STEP = 240  # samples: the length kept is a multiple of 15 ms ...
_KEEP_BEFORE = int(0.05 * TRIM_RATE)
_KEEP_BOTH = int((0.05 + 0.22) * TRIM_RATE)  # ... plus this much around it


KNEE = np.float32(0.8)
"""Amplified waves are left as they are up to here, and bent so that they never pass 1 beyond."""


def amplify(wave: NDArray[np.float32], gain: float) -> NDArray[np.float32]:
    """`wave` times `gain` (1 changes nothing); what gets louder than 0.8 is rounded off below full scale."""
    if gain == 1:
        return wave
    louder = wave * np.float32(gain)
    if gain < 1:
        return louder
    size = np.abs(louder)
    bent = KNEE + (1 - KNEE) * np.tanh((size - KNEE) / (1 - KNEE))
    return np.where(size > KNEE, np.copysign(bent, louder), louder).astype(np.float32)


def normalise_peak(wave: NDArray[np.float32]) -> NDArray[np.float32]:
    """`wave` scaled to a peak of 0.999; below a peak of 0.01 by 99.9, and an all-zero wave as it is."""
    if len(wave) == 0:
        return wave.astype(np.float32)
    peak = np.maximum(np.abs(wave).max(), PEAK_FLOOR)
    return (wave / peak * PEAK).astype(np.float32)


def trim(wave: NDArray[np.float32]) -> NDArray[np.float32]:
    """`wave` (N,) at 16 kHz without the silence at its ends, 50 ms left before and 220 ms after the speech.

    Silence is what lies more than 20 dB below the loudest frame. Where the wave ends before the margins do,
    zeros are added, so the result may be longer than the wave. An empty wave stays empty, and an all-zero
    wave counts as speech.
    """
    if len(wave) == 0:
        return wave.astype(np.float32)
    start, end = _speech(wave)
    length = ceil((end - start) / _STEP) * _STEP + _KEEP_BOTH
    begin = start - _KEEP_BEFORE
    kept = wave[max(begin, 0) : begin + length]
    out = np.zeros(length, np.float32)
    offset = max(-begin, 0)
    out[offset : offset + len(kept)] = kept
    return out


def _speech(wave: NDArray[np.float32]) -> tuple[int, int]:
    """First and last + 1 sample of the frames that are loud enough; frames are centred on the hops."""
    frames = sliding_window_view(np.pad(wave, _FRAME // 2), _FRAME)[::_HOP]
    power = np.einsum("nt,nt->n", frames, frames, dtype=np.float64) / _FRAME
    level = 20 * np.log10(np.maximum(np.sqrt(power), _AMPLITUDE_FLOOR))
    loud = np.flatnonzero(level - level.max() > -_THRESHOLD_DB)
    return int(loud[0]) * _HOP, min(len(wave), (int(loud[-1]) + 1) * _HOP)
