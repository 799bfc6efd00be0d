"""Triton kernels of the speech models: one pass over memory where torch would make a dozen.

Starting a kernel costs a GPU more than these small tensors do, so that what counts is how few there are.
For inference alone; `models.kernels` chooses between these and torch's own.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor, nn

_BLOCK = 1024


def group_norm_mish(x: Tensor, norm: nn.GroupNorm, mask: Tensor | None) -> Tensor:
    """mish(`norm`(x)) of (B, C, T), computed in float32; with a `mask` (B, 1, T), over its ones alone.

    A group must hold no more than `kernels.LARGEST_FUSED_GROUP` numbers.
    """
    x = x.contiguous()
    batch, channels, frames = x.shape
    out, size = torch.empty_like(x), channels // norm.num_groups * frames
    block = triton.next_power_of_2(size)
    _group_norm_mish[(batch * norm.num_groups,)](
        x,
        x if mask is None else mask.contiguous(),
        norm.weight,
        norm.bias,
        out,
        norm.num_groups,
        channels // norm.num_groups,
        frames,
        norm.eps,
        MASKED=mask is not None,
        BLOCK=block,
        num_warps=min(16, max(4, block // 1024)),
    )
    return out


@triton.jit
def _group_norm_mish(
    x, mask, weight, bias, out, groups, width, frames, eps, MASKED: tl.constexpr, BLOCK: tl.constexpr
):  # type: ignore[no-untyped-def]
    # A group's channels follow each other in memory: a program's numbers are one piece.
    program = tl.program_id(0)
    element, group = program // groups, program % groups
    size = width * frames
    place = tl.arange(0, BLOCK)
    inside = place < size
    start = program.to(tl.int64) * size
    value = tl.load(x + start + place, mask=inside, other=0.0).to(tl.float32)
    if MASKED:
        one = tl.load(mask + element * frames + place % frames, mask=inside, other=0.0).to(tl.float32)
    else:
        one = inside.to(tl.float32)
    count = tl.sum(one, axis=0)
    mean = tl.sum(value * one, axis=0) / count
    centred = (value - mean) * one
    scale = 1.0 / tl.sqrt(tl.sum(centred * centred, axis=0) / count + eps)
    channel = group * width + place // frames
    gain = tl.load(weight + channel, mask=inside, other=0.0).to(tl.float32)
    shift = tl.load(bias + channel, mask=inside, other=0.0).to(tl.float32)
    normed = centred * scale * gain + shift
    # x tanh(log(1 + e^x)) without the logarithm; beyond 20 it is x.
    power = tl.exp(tl.minimum(normed, 20.0))
    ratio = power * (power + 2.0)
    tl.store(out + start + place, normed * (ratio / (ratio + 2.0)), mask=inside)


def snake(x: Tensor, alpha: Tensor) -> Tensor:
    """x + sin²(αx) / (α + 1e-9) of (B, C, T), α by channel (C)."""
    x = x.contiguous()
    _, channels, frames = x.shape
    out = torch.empty_like(x)
    _snake[(triton.cdiv(x.numel(), _BLOCK),)](x, alpha, out, x.numel(), channels, frames, BLOCK=_BLOCK)
    return out


@triton.jit
def _snake(x, alpha, out, numbers, channels, frames, BLOCK: tl.constexpr):  # type: ignore[no-untyped-def]
    place = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    inside = place < numbers
    value = tl.load(x + place, mask=inside, other=0.0).to(tl.float32)
    rate = tl.load(alpha + place // frames % channels, mask=inside, other=1.0).to(tl.float32)
    sine = tl.sin(rate * value)
    tl.store(out + place, value + sine * sine / (rate + 1e-9), mask=inside)
