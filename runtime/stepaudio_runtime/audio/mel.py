"""Slaney mels: the prompt's mel at 22.05 kHz and the semantic tokenizer's log-mel at 16 kHz.

Both are short-time spectra through the same triangular filters (Slaney's scale and area norm, as librosa's)
and differ in padding, power and logarithm. Spectra are computed in float64, a block of frames at a time.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from stepaudio_runtime.contract import SPEECH_RATE
from stepaudio_runtime.errors import AudioError

PROMPT_RATE = SPEECH_RATE  # Hz
PROMPT_MELS = 80
PROMPT_FFT = 1024  # samples
PROMPT_HOP = 256  # samples
_PROMPT_PAD = (PROMPT_FFT - PROMPT_HOP) // 2
PROMPT_MIN_SAMPLES = _PROMPT_PAD + 1
"""Shortest wave that can be mirrored at its ends."""

WHISPER_RATE = 16_000  # Hz
WHISPER_MELS = 128
WHISPER_FFT = 400  # samples: 25 ms
WHISPER_HOP = 160  # samples: 10 ms
_WHISPER_PAD = WHISPER_FFT // 2
WHISPER_MIN_SAMPLES = _WHISPER_PAD + 1
_WHISPER_RANGE = 8.0  # powers of ten kept below the loudest

TOP_HZ = 8_000.0
"""Upper edge of the last filter, in both."""

_BLOCK_FRAMES = 2048


def prompt_mel(wave: NDArray[np.float32]) -> NDArray[np.float32]:
    """`wave` (N,) at 22.05 kHz as natural-log mel (80, frames), frames = (N + 768 - 1024) // 256 + 1.

    Raises AudioError below 385 samples.
    """
    _need(wave, PROMPT_MIN_SAMPLES, PROMPT_RATE)
    padded = np.pad(wave.astype(np.float64), _PROMPT_PAD, mode="reflect")
    filters = slaney_filters(PROMPT_RATE, PROMPT_FFT, PROMPT_MELS)
    blocks = [filters @ np.sqrt(power.T + 1e-9) for power in _power_spectra(padded, PROMPT_FFT, PROMPT_HOP)]
    return np.log(np.maximum(np.concatenate(blocks, axis=1), 1e-5)).astype(np.float32)


def whisper_mel(wave: NDArray[np.float32]) -> NDArray[np.float32]:
    """`wave` (N,) at 16 kHz as log10 mel (128, N // 160), raised to eight powers of ten below its maximum.

    The maximum is that of the whole wave: pieces of a stream give other numbers. Raises AudioError below
    201 samples.
    """
    _need(wave, WHISPER_MIN_SAMPLES, WHISPER_RATE)
    padded = np.pad(wave.astype(np.float64), _WHISPER_PAD, mode="reflect")
    filters = slaney_filters(WHISPER_RATE, WHISPER_FFT, WHISPER_MELS)
    blocks = [filters @ power.T for power in _power_spectra(padded, WHISPER_FFT, WHISPER_HOP)]
    mel = np.concatenate(blocks, axis=1)[:, : len(wave) // WHISPER_HOP]
    mel = np.log10(np.maximum(mel, 1e-10))
    mel = np.maximum(mel, mel.max(initial=-np.inf) - _WHISPER_RANGE)
    return ((mel + 4.0) / 4.0).astype(np.float32)


@lru_cache(maxsize=8)
def slaney_filters(rate: int, n_fft: int, n_mels: int) -> NDArray[np.float64]:
    """Filters (n_mels, n_fft // 2 + 1) from 0 to 8000 Hz: triangles of equal area, evenly spaced in mel."""
    edges = _mel_to_hz(np.linspace(0.0, _hz_to_mel(TOP_HZ), n_mels + 2))
    bins = np.arange(n_fft // 2 + 1) * (rate / n_fft)
    rise = (bins - edges[:-2, None]) / np.diff(edges)[:-1, None]
    fall = (edges[2:, None] - bins) / np.diff(edges)[1:, None]
    filters = np.maximum(0.0, np.minimum(rise, fall)) * (2.0 / (edges[2:] - edges[:-2]))[:, None]
    filters.setflags(write=False)  # shared through the cache
    return np.asarray(filters, np.float64)


# Slaney's scale: linear up to 1 kHz (15 mels), 27 mels to every factor of 6.4 above.
_HZ_PER_MEL = 200.0 / 3.0
_KNEE_HZ = 1_000.0
_KNEE_MEL = _KNEE_HZ / _HZ_PER_MEL
_LOG_STEP = np.log(6.4) / 27.0


def _hz_to_mel(hz: float) -> float:
    if hz < _KNEE_HZ:
        return hz / _HZ_PER_MEL
    return float(_KNEE_MEL + np.log(hz / _KNEE_HZ) / _LOG_STEP)


def _mel_to_hz(mel: NDArray[np.float64]) -> NDArray[np.float64]:
    above = _KNEE_HZ * np.exp(_LOG_STEP * (mel - _KNEE_MEL))
    return np.where(mel < _KNEE_MEL, mel * _HZ_PER_MEL, above)


def _power_spectra(padded: NDArray[np.float64], n_fft: int, hop: int) -> Iterator[NDArray[np.float64]]:
    """Blocks (frames, n_fft // 2 + 1) of |STFT|^2 with a periodic Hann window."""
    window = np.hanning(n_fft + 1)[:-1]
    frames = sliding_window_view(padded, n_fft)[::hop]
    for start in range(0, len(frames), _BLOCK_FRAMES):
        spectrum = np.fft.rfft(frames[start : start + _BLOCK_FRAMES] * window)
        yield spectrum.real**2 + spectrum.imag**2


def _need(wave: NDArray[np.float32], samples: int, rate: int) -> None:
    if len(wave) < samples:
        raise AudioError(
            f"the audio has {len(wave)} samples at {rate} Hz; at least {samples} are needed",
            code="audio_too_short",
        )
