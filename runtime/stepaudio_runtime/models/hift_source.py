"""The vocoder's source: pitch from mel, and harmonics plus noise from pitch."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F


@dataclass(frozen=True)
class SourceNoise:
    """The vocoder's randomness: start phases (1, H, 1) in radians, standard normal noise (1, H, samples)."""

    phase: Tensor
    noise: Tensor

    @classmethod
    def none(cls, harmonics: int, samples: int) -> SourceNoise:
        """No randomness: all phases and all noise zero."""
        return cls(torch.zeros(1, harmonics, 1), torch.zeros(1, harmonics, samples))

    @classmethod
    def draw(cls, harmonics: int, samples: int, generator: torch.Generator) -> SourceNoise:
        """Phases uniform in (-π, π) but zero for the first harmonic; drawn on the generator's device."""
        device = generator.device
        phase = (torch.rand(1, harmonics, 1, generator=generator, device=device) * 2 - 1) * math.pi
        phase[:, 0] = 0
        return cls(phase, torch.randn(1, harmonics, samples, generator=generator, device=device))


class F0Predictor(nn.Module):
    """Mel (1, 80, T) -> pitch (1, T) in Hz, never negative."""

    def __init__(self, in_channels: int, cond_channels: int) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for i in range(5):
            layers += [
                nn.Conv1d(in_channels if i == 0 else cond_channels, cond_channels, 3, padding=1),
                nn.ELU(),
            ]
        self.condnet = nn.Sequential(*layers)
        self.classifier = nn.Linear(cond_channels, 1)

    def forward(self, mel: Tensor) -> Tensor:
        """(1, 80, T) -> (1, T) in Hz."""
        return self.classifier(self.condnet(mel).transpose(1, 2)).squeeze(-1).abs()


class HarmonicSource(nn.Module):
    """Pitch -> sines of its harmonics where voiced, noise elsewhere -> one waveform."""

    def __init__(
        self, harmonics: int, rate_hz: int, amplitude: float, sigma: float, voiced_above_hz: float
    ) -> None:
        super().__init__()
        self.harmonics = harmonics
        self.l_linear = nn.Linear(harmonics, 1)
        self._rate_hz = rate_hz
        self._amplitude = amplitude
        self._sigma = sigma
        self._voiced_above_hz = voiced_above_hz

    def sines(self, f0: Tensor, random: SourceNoise) -> Tensor:
        """`f0` (1, samples) in Hz -> (1, H, samples).

        The phase is a running sum over the whole utterance. It is accumulated in float64 and rounded to
        float32 before "mod 1", as the reference does; accumulated in float32 it is unrelated after seconds.
        """
        orders = torch.arange(1, self.harmonics + 1, device=f0.device, dtype=f0.dtype)
        cycles = f0[:, None, :] * orders[None, :, None] / self._rate_hz
        turns = cycles.double().cumsum(dim=-1).float() % 1
        voiced = (f0 > self._voiced_above_hz)[:, None, :].to(f0.dtype)
        sines = self._amplitude * torch.sin(2 * math.pi * turns + random.phase.to(f0))
        sigma = voiced * self._sigma + (1 - voiced) * self._amplitude / 3
        return sines * voiced + sigma * random.noise.to(f0)

    def forward(self, f0: Tensor, random: SourceNoise) -> Tensor:
        """`f0` (1, samples) in Hz -> source (1, 1, samples)."""
        sines = self.sines(f0, random)
        return torch.tanh(
            F.linear(sines.transpose(1, 2), self.l_linear.weight, self.l_linear.bias)
        ).transpose(1, 2)
