"""The same formulas in the form that a device computes fastest; results differ by rounding only.

On a CPU, in inference:
- oneDNN's matrix product with what follows it (GELU, the sum around it) is faster than torch's float32 path
  and saves a pass over memory;
- in bfloat16 torch's fused attention runs at a third of the products' speed; two products around a softmax,
  a few heads at a time so that the scores stay in cache, are faster.

Elsewhere, and where gradients are wanted, torch's own.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

_SCORES = 1 << 22  # scores that attention holds at once


def _onednn(x: Tensor) -> bool:
    return x.is_cpu and not torch.is_grad_enabled() and torch.backends.mkldnn.is_available()


def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """`F.linear`."""
    if not _onednn(x):
        return F.linear(x, weight, bias)
    out: Tensor = torch.ops.mkldnn._linear_pointwise(x, weight, bias, "none", [], "")
    return out


def linear_gelu(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """`F.gelu(F.linear(...))`, the exact form of GELU."""
    if not _onednn(x):
        return F.gelu(F.linear(x, weight, bias))
    out: Tensor = torch.ops.mkldnn._linear_pointwise(x, weight, bias, "gelu", [], "none")
    return out


def linear_add(x: Tensor, weight: Tensor, bias: Tensor | None, to: Tensor) -> Tensor:
    """`to + F.linear(...)`."""
    if not _onednn(x):
        return to + F.linear(x, weight, bias)
    out: Tensor = torch.ops.mkldnn._linear_pointwise.binary(x, to, weight, bias, "add")
    return out


def attend(q: Tensor, k: Tensor, v: Tensor, keys: Tensor | None) -> Tensor:
    """softmax(q·k / sqrt(D)) v over (B, H, T, D); `keys` (B, 1, 1, T) is False where no key is."""
    if not (q.is_cpu and q.dtype is torch.bfloat16 and not torch.is_grad_enabled()):
        return F.scaled_dot_product_attention(q, k, v, attn_mask=keys)
    return _attend_by_products(q, k, v, keys)


def _attend_by_products(q: Tensor, k: Tensor, v: Tensor, keys: Tensor | None) -> Tensor:
    batch, heads, frames, width = q.shape
    rows = min(frames, max(1, _SCORES // frames))
    together = max(1, min(heads, _SCORES // (rows * frames)))
    scratch = q.new_empty(together * rows * frames)
    out = torch.empty_like(q, memory_format=torch.contiguous_format)
    q = q * (1 / math.sqrt(width))
    for b in range(batch):
        for first in range(0, heads, together):
            some = slice(first, min(heads, first + together))
            by_key, values = k[b, some].transpose(1, 2).contiguous(), v[b, some].contiguous()
            for row in range(0, frames, rows):
                asked = q[b, some, row : row + rows].contiguous()
                shape = (len(asked), asked.shape[1], frames)
                scores = torch.bmm(asked, by_key, out=scratch[: math.prod(shape)].view(shape))
                if keys is not None:
                    scores.masked_fill_(~keys[b], -torch.inf)
                out[b, some, row : row + rows] = torch.bmm(torch.softmax(scores, -1, out=scores), values)
    return out


def group_norm(x: Tensor, norm: nn.GroupNorm, mask: Tensor | None) -> Tensor:
    """`norm` of (B, C, T); where there is a `mask` (B, 1, T) of ones and zeros, over its ones alone."""
    if mask is None:
        out: Tensor = norm(x)
        return out
    grouped, mask = x.float().unflatten(1, (norm.num_groups, -1)), mask.float()[:, None]
    count = mask.sum(dim=-1, keepdim=True) * grouped.shape[2]
    mean = (grouped * mask).sum(dim=(2, 3), keepdim=True) / count
    centred = (grouped - mean) * mask
    variance = centred.square().sum(dim=(2, 3), keepdim=True) / count
    normed = (centred * torch.rsqrt(variance + norm.eps)).flatten(1, 2)
    return (normed * norm.weight[:, None] + norm.bias[:, None]).to(x.dtype)
