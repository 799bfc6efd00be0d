"""From the rate of audio ids to the rate of mel frames: linear stretching, then a small convolution stack."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

MEL_RATE_HZ = 22050  # sample rate of the mel and of the vocoder
MEL_HOP = 256  # samples a mel frame


def mel_frames(ids: int, input_frame_rate: float) -> int:
    """Mel frames for that many ids at `input_frame_rate` ids a second; in doubles and in this order."""
    return int(ids / input_frame_rate * MEL_RATE_HZ / MEL_HOP)


class InterpolateRegulator(nn.Module):
    """Stretches the prompt's part and the rest each to their own number of frames, joins and smooths them."""

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

    def forward(self, prompt: Tensor, rest: Tensor, prompt_frames: int, rest_frames: int) -> Tensor:
        """`prompt` (B, n1, C), `rest` (B, n2, C) -> (B, prompt_frames + rest_frames, C); n1 may be 0."""
        parts = []
        if prompt.shape[1]:
            parts.append(F.interpolate(prompt.transpose(1, 2), size=prompt_frames, mode="linear"))
        parts.append(F.interpolate(rest.transpose(1, 2), size=rest_frames, mode="linear"))
        out: Tensor = self.model(torch.cat(parts, dim=2)).transpose(1, 2)
        return out
