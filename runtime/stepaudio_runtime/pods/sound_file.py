"""Sound files as mono samples, and back: for the voices' recordings and the offline commands."""

from pathlib import Path

import numpy as np
import soundfile
from numpy.typing import NDArray

from stepaudio_runtime.errors import AudioError


def read_mono(path: Path) -> tuple[NDArray[np.float32], int]:
    """Samples (N,) in [-1, 1], channels averaged, and their rate in Hz; raises AudioError."""
    try:
        frames, rate = soundfile.read(path, dtype="float32", always_2d=True)
    except soundfile.LibsndfileError as error:
        raise AudioError(
            f"{path} cannot be read as audio: {error.error_string}", code="audio_invalid"
        ) from error
    if not len(frames):
        raise AudioError(f"{path} holds no samples", code="audio_empty")
    return frames.mean(axis=1, dtype=np.float32), int(rate)


def write_mono(path: Path, samples: NDArray[np.int16], rate: int) -> None:
    """Write samples (N,) as a WAV file of 16 bit."""
    soundfile.write(path, samples, rate, subtype="PCM_16", format="WAV")
