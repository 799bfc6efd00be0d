"""Distances between waves by their spectra: several STFTs and the mel that the flow works with. In torch."""

from __future__ import annotations

from functools import lru_cache

import torch
from torch import Tensor
from torch.nn import functional as F

from stepaudio_runtime.audio import mel

RESOLUTIONS = ((512, 128), (1024, 256), (2048, 512), (256, 64))
"""(FFT, hop) in samples at 22,050 Hz."""
_FLOOR = 1e-4  # of a magnitude, before its logarithm


def stft_distance(got: Tensor, wanted: Tensor) -> Tensor:
    """Spectral convergence plus the mean distance of log magnitudes, mean over resolutions; (B, N) each."""
    distance = got.new_zeros(())
    for size, hop in RESOLUTIONS:
        a, b = _magnitudes(got, size, hop), _magnitudes(wanted, size, hop)
        convergence = (b - a).norm() / b.norm().clamp_min(1e-3)
        distance = distance + convergence + F.l1_loss(a.log(), b.log())
    return distance / len(RESOLUTIONS)


def mel_distance(got: Tensor, wanted: Tensor) -> Tensor:
    """Mean distance of the log mels of two waves (B, N)."""
    return F.l1_loss(log_mel(got), log_mel(wanted))


def log_mel(wave: Tensor) -> Tensor:
    """(B, N) at 22,050 Hz -> (B, 80, N // 256): `audio.mel.prompt_mel`, differentiable."""
    pad = (mel.PROMPT_FFT - mel.PROMPT_HOP) // 2
    padded = F.pad(wave[:, None], (pad, pad), mode="reflect")[:, 0]
    spectrum = torch.stft(
        padded,
        mel.PROMPT_FFT,
        mel.PROMPT_HOP,
        window=torch.hann_window(mel.PROMPT_FFT),
        center=False,
        return_complex=True,
    )
    magnitude = (spectrum.real**2 + spectrum.imag**2 + 1e-9).sqrt()
    return (_filters() @ magnitude).clamp_min(1e-5).log()


def _magnitudes(wave: Tensor, size: int, hop: int) -> Tensor:
    spectrum = torch.stft(wave, size, hop, window=torch.hann_window(size), return_complex=True)
    return (spectrum.real**2 + spectrum.imag**2 + _FLOOR**2).sqrt()


@lru_cache(maxsize=1)
def _filters() -> Tensor:
    filters = mel.slaney_filters(mel.PROMPT_RATE, mel.PROMPT_FFT, mel.PROMPT_MELS)
    return torch.tensor(filters, dtype=torch.float32)
