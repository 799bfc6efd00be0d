"""From the rate of audio ids to the rate of mel frames: linear stretching, then a small convolution stack."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from stepaudio_runtime.models.kernels import group_norm
from stepaudio_runtime.models.lengths import ones_before, within


def stretch(prompt: Tensor, rest: Tensor, prompt_frames: int, rest_frames: int) -> Tensor:
    """`prompt` (n1, C) and `rest` (n2, C), each stretched on its own -> (C, prompt_frames + rest_frames)."""
    parts = [
        F.interpolate(part.T[None], size=frames, mode="linear")[0]
        for part, frames in ((prompt, prompt_frames), (rest, rest_frames))
        if len(part)
    ]
    return torch.cat(parts, dim=1)


class InterpolateRegulator(nn.Module):
    """Smooths what was stretched: convolution, group norm over all channels and frames, Mish; four times."""

    def __init__(self, channels: int, stages: int = 4) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for _ in range(stages):
            layers += [
                nn.Conv1d(channels, channels, 3, padding=1),
                nn.GroupNorm(1, channels, eps=1e-5),
                nn.Mish(),
            ]
        self.model = nn.Sequential(*layers, nn.Conv1d(channels, channels, 1))

    def forward(self, x: Tensor, lengths: Sequence[int]) -> Tensor:
        """`x` (B, C, T), of each element as many frames as `lengths` says -> (B, C, T)."""
        mask = None if len(set(lengths)) == 1 else ones_before(lengths, like=x)
        *stages, last = self.model
        for conv, norm in zip(stages[::3], stages[1::3], strict=True):
            h = conv(within(x, mask))
            x = F.mish(group_norm(h, norm, mask))
        out: Tensor = last(x)
        return within(out, mask)
