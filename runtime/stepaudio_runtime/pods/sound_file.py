"""Sound files as mono samples, and back: for the voices' recordings and the offline commands."""

import math
import sys
from pathlib import Path

import numpy as np
import soundfile
from numpy.typing import NDArray

from stepaudio_runtime.audio.files import decode
from stepaudio_runtime.errors import AudioError


def read_mono(path: Path) -> tuple[NDArray[np.float32], int]:
    """Samples (N,), channels averaged, and their rate in Hz, of a file in any format and of any length.

    Raises AudioError that names the file.
    """
    try:
        wave = decode(path.read_bytes(), max_seconds=math.inf, max_bytes=sys.maxsize)
    except OSError as error:
        raise AudioError(f"{path} cannot be read: {error.strerror}", code="audio_unreadable") from error
    except AudioError as error:
        raise AudioError(f"{path}: {error.message}", code=error.code) from error
    return wave.samples, wave.rate


def write_mono(path: Path, samples: NDArray[np.int16], rate: int) -> None:
    """Write samples (N,) as a WAV file of 16 bit."""
    soundfile.write(path, samples, rate, subtype="PCM_16", format="WAV")
