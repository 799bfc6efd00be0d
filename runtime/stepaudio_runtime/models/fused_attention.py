# mypy: disable-error-code="import-untyped,no-untyped-def"
"""Attention as one Triton kernel, with what a bucket of the graphs needs: keys that are not there."""

from __future__ import annotations

import math
from typing import Any

import triton
import triton.language as tl
from torch import Tensor
from triton.language.extra.cuda import gdc_launch_dependents, gdc_wait

from stepaudio_runtime.models.early_start import early


def attend(q: Tensor, k: Tensor, v: Tensor, keys: Tensor | None) -> Tensor:
    """softmax(q·k / sqrt(D) + `keys`) v over (B, H, T, D), all three with the same strides.

    `keys` (B, 1, 1, T) are 0 or -inf. D is a power of two from 16 on. The answer lies in memory as
    (B, T, H, D).
    """
    batch, heads, frames, width = q.shape
    out = q.new_empty(batch, frames, heads, width).transpose(1, 2)
    unused: Any = q
    _attend[(triton.cdiv(frames, 64), batch * heads)](
        q,
        k,
        v,
        unused if keys is None else keys.contiguous(),
        out,
        frames,
        heads,
        width**-0.5 * math.log2(math.e),
        *q.stride()[:3],
        *out.stride()[:3],
        MASKED=keys is not None,
        WIDTH=width,
        BLOCK=64,
        num_warps=4,
        num_stages=2,
        **early(q, batch * frames),
    )
    return out


@triton.jit
def _attend(  # noqa: PLR0917
    q,
    k,
    v,
    keys,
    out,
    frames,
    heads,
    rate,
    batch_stride,
    head_stride,
    frame_stride,
    out_batch_stride,
    out_head_stride,
    out_frame_stride,
    MASKED: tl.constexpr,
    WIDTH: tl.constexpr,
    BLOCK: tl.constexpr,
    EARLY: tl.constexpr,
):
    element, head = tl.program_id(1) // heads, tl.program_id(1) % heads
    row = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    column, own = tl.arange(0, BLOCK), tl.arange(0, WIDTH)
    origin = element * batch_stride + head * head_stride
    if EARLY:
        gdc_launch_dependents()
        gdc_wait()
    asked = tl.load(
        q + origin + row[:, None] * frame_stride + own[None, :], mask=(row < frames)[:, None], other=0.0
    )
    # A running softmax: what was summed fades where a higher score comes.
    highest = tl.full((BLOCK,), -1e30, tl.float32)
    weight = tl.zeros((BLOCK,), tl.float32)
    total = tl.zeros((BLOCK, WIDTH), tl.float32)
    for start in range(0, frames, BLOCK):
        at = start + column
        inside = at < frames
        key = tl.load(k + origin + at[None, :] * frame_stride + own[:, None], mask=inside[None, :], other=0.0)
        score = tl.dot(asked, key, input_precision="ieee") * rate
        if MASKED:
            score += tl.load(keys + element * frames + at, mask=inside, other=0.0).to(tl.float32)[None, :]
        score = tl.where(inside[None, :], score, float("-inf"))
        higher = tl.maximum(highest, tl.max(score, axis=1))
        share, fade = tl.exp2(score - higher[:, None]), tl.exp2(highest - higher)
        weight = weight * fade + tl.sum(share, axis=1)
        value = tl.load(
            v + origin + at[:, None] * frame_stride + own[None, :], mask=inside[:, None], other=0.0
        )
        total = tl.dot(share.to(value.dtype), value, total * fade[:, None], input_precision="ieee")
        highest = higher
    place = (
        element * out_batch_stride + head * out_head_stride + row[:, None] * out_frame_stride + own[None, :]
    )
    tl.store(out + place, total / weight[:, None], mask=(row < frames)[:, None])
