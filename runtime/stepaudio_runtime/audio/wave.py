"""A wave, what is asked of one (a rate in range, samples that arithmetic survives), and its 16 bits."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from stepaudio_runtime.contract import MAX_RATE, MIN_RATE
from stepaudio_runtime.errors import AudioError

MAX_SAMPLE = 1e6
"""Float samples may exceed 1 (levels are normalised later), but not by so much that arithmetic overflows."""

FULL_SCALE = 32_767
"""Of 16-bit samples."""


@dataclass(frozen=True, eq=False)
class Wave:
    """`samples` (N,) float32, mono, nominally in [-1, 1], at `rate` Hz."""

    samples: NDArray[np.float32]
    rate: int

    @property
    def duration_s(self) -> float:
        """Length in seconds."""
        return len(self.samples) / self.rate


def check_rate(rate: int) -> None:
    """Raises AudioError for a rate outside 8 to 192 kHz."""
    if not MIN_RATE <= rate <= MAX_RATE:
        message = f"the audio has {rate} samples a second; {MIN_RATE} to {MAX_RATE} are taken, resample it"
        raise AudioError(message, code="invalid_rate")


def check_samples(samples: NDArray[np.float32]) -> None:
    """Raises AudioError for samples that are not finite, or a million times full scale."""
    # Written so that NaN fails it too.
    if not np.abs(samples).max(initial=0) <= MAX_SAMPLE:
        message = "the audio has samples that are not finite or far beyond full scale; export it again"
        raise AudioError(message, code="invalid_audio")


def to_pcm16(wave: NDArray[np.float32]) -> NDArray[np.int16]:
    """`wave` (N,) as 16-bit samples, little-endian, clipped to full scale."""
    return np.round(np.clip(wave, -1.0, 1.0) * FULL_SCALE).astype("<i2")
