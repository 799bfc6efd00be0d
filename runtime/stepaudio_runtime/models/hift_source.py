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
    """Mel (B, 80, T) -> pitch (B, T) in Hz, never negative.

    Computed in float64 and rounded once: the phase adds the pitch up, so that its last bits are heard after
    seconds, and in float32 they depend on the length of the piece and the size of the batch.
    """

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
        # Loading may put the checkpoint's own float32 tensors in the place of these.
        self.double().register_load_state_dict_post_hook(_in_float64)

    def forward(self, mel: Tensor) -> Tensor:
        """(B, 80, T) -> (B, T) in Hz, float32."""
        hidden = self.condnet(mel.to(self.classifier.weight.dtype)).transpose(1, 2)
        return self.classifier(hidden).squeeze(-1).abs().float()


def _in_float64(module: nn.Module, _keys: object) -> None:
    module.double()


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
        """`f0` (B, samples) in Hz -> (B, H, samples)."""
        return self._sines(f0, random, None)[0]

    def _sines(self, f0: Tensor, random: SourceNoise, turns: Tensor | None) -> tuple[Tensor, Tensor]:
        """The sines and the turns (B, H) made in all, `turns` being those made before.

        The phase is a running sum over the whole utterance. It is accumulated in float64 and rounded to
        float32 before "mod 1", as the reference does; accumulated in float32 it is unrelated after seconds.
        """
        orders = torch.arange(1, self.harmonics + 1, device=f0.device, dtype=f0.dtype)
        cycles = f0[:, None, :] * orders[None, :, None] / self._rate_hz
        cycles = cycles.double()
        if turns is not None:
            cycles[..., 0] += turns  # the first term of the sum, so that its rounding is that of one sum
        total = cycles.cumsum(dim=-1)
        voiced = (f0 > self._voiced_above_hz)[:, None, :].to(f0.dtype)
        sines = self._amplitude * torch.sin(2 * math.pi * (total.float() % 1) + random.phase.to(f0))
        sigma = voiced * self._sigma + (1 - voiced) * self._amplitude / 3
        return sines * voiced + sigma * random.noise.to(f0), total[..., -1]

    def forward(self, f0: Tensor, random: SourceNoise) -> Tensor:
        """`f0` (B, samples) in Hz -> source (B, 1, samples)."""
        return self._joined(self.sines(f0, random))

    def extend(self, f0: Tensor, random: SourceNoise, turns: Tensor) -> tuple[Tensor, Tensor]:
        """The next piece of a source, and the turns for the piece after it.

        `f0` (B, samples), at least one; `turns` (B, H) float64: the running sum before it, 0 at the start.
        """
        sines, turns = self._sines(f0, random, turns)
        return self._joined(sines), turns

    def _joined(self, sines: Tensor) -> Tensor:
        return torch.tanh(
            F.linear(sines.transpose(1, 2), self.l_linear.weight, self.l_linear.bias)
        ).transpose(1, 2)
