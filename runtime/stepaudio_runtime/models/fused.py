# mypy: disable-error-code="import-untyped,no-untyped-def"
"""Triton kernels of the speech models: one pass over memory where torch would make several.

Starting a kernel, and the pause before it, cost a GPU as much as these small tensors do: what counts is how
few kernels there are, and that one starts before the one before it has ended (`early_start`). For inference
alone; `models.kernels` chooses between these and torch's own. Frames are rows: (B, T, C), contiguous.
"""

from __future__ import annotations

from functools import cache
from typing import Any, NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor, nn
from triton.language.extra.cuda import gdc_launch_dependents, gdc_wait

from stepaudio_runtime.models.early_start import MANY_ROWS, early

WIDEST_NORM = 256
"""Numbers of a row that one program normalises while it multiplies it; a power of two."""
_SNAKE_BLOCK = 1024


def linear(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    *,
    norm: nn.LayerNorm | None = None,
    gelu: bool = False,
    add: Tensor | None = None,
) -> Tensor:
    """`add` + gelu(`norm`(x) · weightᵀ + bias) of (B, T, K) -> (B, T, N); gelu in its exact form.

    With a `norm`, K is a power of two up to WIDEST_NORM.
    """
    return _product(x, weight[None], bias, norm=norm, gelu=gelu, add=add)


def convolve(x: Tensor, taps: Tensor, bias: Tensor | None, mask: Tensor | None) -> Tensor:
    """A convolution of stride 1 that keeps the length: (B, T, K) -> (B, T, N).

    `taps` (odd, N, K); where there is a `mask` (B, 1, T) of ones and zeros, of x times it.
    """
    return _product(x, taps, bias, mask=mask)


def _product(
    x: Tensor,
    taps: Tensor,
    bias: Tensor | None,
    *,
    mask: Tensor | None = None,
    norm: nn.LayerNorm | None = None,
    gelu: bool = False,
    add: Tensor | None = None,
) -> Tensor:
    x = x.contiguous()
    batch, frames, inner = x.shape
    outer, rows = taps.shape[1], batch * frames
    out = x.new_empty(batch, frames, outer)
    if norm is not None and rows >= MANY_ROWS:
        x, norm = norm(x), None
    tiles = _tiles(rows, outer, len(taps), norm is not None, _roomy(x.device))
    unused: Any = x  # where a kernel takes a pointer that it does not read
    _multiply[(triton.cdiv(rows, tiles.rows), triton.cdiv(outer, tiles.columns))](
        x,
        taps.contiguous(),
        unused if bias is None else bias,
        unused if mask is None else mask.contiguous(),
        unused if norm is None else norm.weight,
        unused if norm is None else norm.bias,
        unused if add is None else add.contiguous(),
        out,
        rows,
        frames,
        inner,
        outer,
        1e-5 if norm is None else norm.eps,
        TAPS=len(taps),
        BIAS=bias is not None,
        MASKED=mask is not None,
        NORM=norm is not None,
        GELU=gelu,
        ADD=add is not None,
        BLOCK_M=tiles.rows,
        BLOCK_N=tiles.columns,
        BLOCK_K=inner if norm is not None else tiles.inner,
        num_warps=tiles.warps,
        num_stages=tiles.stages,
        **early(x, rows),
    )
    return out


class _Tiles(NamedTuple):
    rows: int
    columns: int
    inner: int
    warps: int
    stages: int


def _tiles(rows: int, columns: int, taps: int, norm: bool, roomy: bool) -> _Tiles:
    """The fastest on an H200 within 96 KiB of a multiprocessor's memory, 144 where it has as many."""
    if rows >= MANY_ROWS:
        return _Tiles(128, 128, 64, 8, 3)
    if norm:
        programs = triton.cdiv(rows, 32) * triton.cdiv(columns, 128)
        return _Tiles(32 if programs < _PROGRAMS else 64, 128, 0, 8, 1)
    if taps > 1:
        return _Tiles(64, 32 if rows < 1024 else 64, 64, 4, 3)
    if rows >= 1024:
        return _Tiles(64, 64, 128, 4, 3)
    return _Tiles(64, 32, 256, 4, 3) if roomy else _Tiles(64, 32, 128, 4, 4)


_PROGRAMS = 200  # that are not many more than such a GPU has multiprocessors


@cache
def _roomy(device: torch.device) -> bool:
    if device.type != "cuda":
        return False
    return torch.cuda.get_device_properties(device).shared_memory_per_block_optin >= 160 * 1024


@triton.jit
def _multiply(  # noqa: PLR0917
    x,
    taps,
    bias,
    mask,
    norm_weight,
    norm_bias,
    add,
    out,
    rows,
    frames,
    inner,
    outer,
    eps,
    TAPS: tl.constexpr,
    BIAS: tl.constexpr,
    MASKED: tl.constexpr,
    NORM: tl.constexpr,
    GELU: tl.constexpr,
    ADD: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_K: tl.constexpr,
    EARLY: tl.constexpr,
):
    row = tl.program_id(0) * BLOCK_M + tl.arange(0, BLOCK_M)
    column = tl.program_id(1) * BLOCK_N + tl.arange(0, BLOCK_N)
    k = tl.arange(0, BLOCK_K)
    total = tl.zeros((BLOCK_M, BLOCK_N), tl.float32)
    # Weights are there before the kernel before this one has ended; nothing else is read until then.
    if NORM:
        gain = tl.load(norm_weight + k).to(tl.float32)
        shift = tl.load(norm_bias + k).to(tl.float32)
        whole = tl.load(
            taps + column[None, :] * inner + k[:, None], mask=(column < outer)[None, :], other=0.0
        )
    if BIAS:
        more = tl.load(bias + column, mask=column < outer, other=0.0).to(tl.float32)
    if EARLY:
        gdc_launch_dependents()
        gdc_wait()
    if NORM:  # BLOCK_K is the whole row
        a = tl.load(x + row[:, None] * inner + k[None, :], mask=(row < rows)[:, None], other=0.0)
        wide = a.to(tl.float32)
        centred = wide - (tl.sum(wide, axis=1) / inner)[:, None]
        scale = 1.0 / tl.sqrt(tl.sum(centred * centred, axis=1) / inner + eps)
        a = (centred * scale[:, None] * gain[None, :] + shift[None, :]).to(a.dtype)
        total = tl.dot(a, whole, total, input_precision="ieee")
    else:
        total = _convolved(
            x, taps, mask, rows, frames, inner, outer, row, column, total, TAPS, MASKED, BLOCK_K
        )
    if BIAS:
        total += more[None, :]
    if GELU:
        total = 0.5 * total * (1.0 + tl.erf(total * 0.7071067811865476))
    place = row[:, None] * outer + column[None, :]
    there = (row < rows)[:, None] & (column < outer)[None, :]
    if ADD:
        total += tl.load(add + place, mask=there, other=0.0).to(tl.float32)
    tl.store(out + place, total, mask=there)


@triton.jit
def _convolved(  # noqa: PLR0917
    x,
    taps,
    mask,
    rows,
    frames,
    inner,
    outer,
    row,
    column,
    total,
    TAPS: tl.constexpr,
    MASKED: tl.constexpr,
    BLOCK_K: tl.constexpr,
):
    k = tl.arange(0, BLOCK_K)
    for tap in tl.static_range(TAPS):
        source = row + (tap - TAPS // 2)
        inside = row < rows
        if TAPS > 1:  # an element ends where its frames do
            frame = row % frames + (tap - TAPS // 2)
            inside = inside & (frame >= 0) & (frame < frames)
        if MASKED:
            inside = inside & (tl.load(mask + source, mask=inside, other=0.0) != 0.0)
        for start in range(0, inner, BLOCK_K):
            at = start + k
            a = tl.load(
                x + source[:, None] * inner + at[None, :],
                mask=inside[:, None] & (at < inner)[None, :],
                other=0.0,
            )
            b = tl.load(
                taps + tap * outer * inner + column[None, :] * inner + at[:, None],
                mask=(column < outer)[None, :] & (at < inner)[:, None],
                other=0.0,
            )
            total = tl.dot(a, b, total, input_precision="ieee")
    return total


def group_norm_mish(x: Tensor, norm: nn.GroupNorm, mask: Tensor | None, shift: Tensor | None) -> Tensor:
    """mish(`norm`(x)) + `shift` (B, C) of (B, T, C), computed in float32; with a `mask` (B, 1, T), over its
    ones alone. A group must hold no more than `kernels.LARGEST_FUSED_GROUP` numbers.
    """
    x = x.contiguous()
    batch, frames, channels = x.shape
    out, width = torch.empty_like(x), channels // norm.num_groups
    wide = triton.next_power_of_2(width)
    block = wide * triton.next_power_of_2(frames)
    _group_norm_mish[(batch * norm.num_groups,)](
        x,
        x if mask is None else mask.contiguous(),
        norm.weight,
        norm.bias,
        x if shift is None else shift.contiguous(),
        out,
        norm.num_groups,
        width,
        frames,
        norm.eps,
        MASKED=mask is not None,
        SHIFTED=shift is not None,
        WIDE=wide,
        LONG=block // wide,
        num_warps=min(16, max(4, block // 1024)),
        **early(x, batch * frames),
    )
    return out


@triton.jit
def _group_norm_mish(  # noqa: PLR0917
    x,
    mask,
    weight,
    bias,
    shift,
    out,
    groups,
    width,
    frames,
    eps,
    MASKED: tl.constexpr,
    SHIFTED: tl.constexpr,
    WIDE: tl.constexpr,
    LONG: tl.constexpr,
    EARLY: tl.constexpr,
):
    program = tl.program_id(0)
    element, group = program // groups, program % groups
    frame, own = tl.arange(0, LONG), tl.arange(0, WIDE)
    channel = group * width + own
    inside = (frame < frames)[:, None] & (own < width)[None, :]
    place = (element * frames + frame)[:, None] * (groups * width) + channel[None, :]
    if EARLY:
        gdc_launch_dependents()
        gdc_wait()
    value = tl.load(x + place, mask=inside, other=0.0).to(tl.float32)
    one = inside.to(tl.float32)
    if MASKED:
        heard = tl.load(mask + element * frames + frame, mask=frame < frames, other=0.0).to(tl.float32)
        one = one * heard[:, None]
    count = tl.sum(tl.sum(one, axis=1), axis=0)
    mean = tl.sum(tl.sum(value * one, axis=1), axis=0) / count
    centred = (value - mean) * one
    scale = 1.0 / tl.sqrt(tl.sum(tl.sum(centred * centred, axis=1), axis=0) / count + eps)
    gain = tl.load(weight + channel, mask=own < width, other=0.0).to(tl.float32)
    offset = tl.load(bias + channel, mask=own < width, other=0.0).to(tl.float32)
    normed = centred * scale * gain[None, :] + offset[None, :]
    # x tanh(log(1 + e^x)) without the logarithm; beyond 20 it is x.
    power = tl.exp(tl.minimum(normed, 20.0))
    ratio = power * (power + 2.0)
    answer = normed * (ratio / (ratio + 2.0))
    if SHIFTED:
        more = tl.load(shift + element * groups * width + channel, mask=own < width, other=0.0)
        answer += more.to(tl.float32)[None, :]
    tl.store(out + place, answer, mask=inside)


def snake(x: Tensor, alpha: Tensor) -> Tensor:
    """x + sin²(αx) / (α + 1e-9) of (B, C, T), α by channel (C)."""
    x = x.contiguous()
    _, channels, frames = x.shape
    out = torch.empty_like(x)
    grid = (triton.cdiv(x.numel(), _SNAKE_BLOCK),)
    _snake[grid](x, alpha, out, x.numel(), channels, frames, BLOCK=_SNAKE_BLOCK)
    return out


@triton.jit
def _snake(x, alpha, out, numbers, channels, frames, BLOCK: tl.constexpr):  # noqa: PLR0917
    place = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    inside = place < numbers
    value = tl.load(x + place, mask=inside, other=0.0).to(tl.float32)
    rate = tl.load(alpha + place // frames % channels, mask=inside, other=1.0).to(tl.float32)
    sine = tl.sin(rate * value)
    tl.store(out + place, value + sine * sine / (rate + 1e-9), mask=inside)
