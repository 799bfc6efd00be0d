"""The same formulas in the form that a device computes fastest; results differ by rounding only.

On a CPU, in inference:
- oneDNN's matrix product with what follows it (GELU, the sum around it) is faster than torch's float32 path
  and saves a pass over memory;
- torch's fused attention runs at a third of oneDNN's products or below; two products around a softmax, a
  head or a few at a time so that the scores stay in cache, are faster;
- convolutions are fastest where a frame's channels lie next to each other in memory, as the transformer
  blocks have them anyway: such a (B, C, T) tensor is a view of a (B, T, C) one.

On a GPU, in inference, in bfloat16: Triton kernels (`models.fused`) where torch would start many, as there
the number of kernels is what costs; in the same layout. In float32 the products are what costs, and torch's
own are the fastest.

Elsewhere, and where gradients are wanted, torch's own.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cache
from importlib import import_module
from types import ModuleType

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from stepaudio_runtime.models.lengths import within

_SCORES = 1 << 22  # scores that attention holds at once
_SCORES_FLOAT32 = 1 << 19
_CACHED = 1 << 17  # numbers that a core's cache keeps from one operation to the next
FUSED = {("cuda", torch.bfloat16)}
"""Kinds of device, and of number, for which the Triton kernels are used."""
_LARGEST_FUSED_GROUP = 1 << 15  # numbers that one program of a GPU holds in its registers
_FEW_FRAMES = 256  # below so many, starting the products costs more than they save


def _onednn(x: Tensor) -> bool:
    return (
        x.is_cpu
        and x.dtype in {torch.float32, torch.bfloat16}
        and not torch.is_grad_enabled()
        and torch.backends.mkldnn.is_available()
    )


def _fused(x: Tensor) -> bool:
    return (x.device.type, x.dtype) in FUSED and not torch.is_grad_enabled()


def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """`F.linear`."""
    if not _onednn(x):
        return F.linear(x, weight, bias)
    out: Tensor = torch.ops.mkldnn._linear_pointwise(x, weight, bias, "none", [], "")
    return out


def norm_linear_gelu(x: Tensor, norm: nn.LayerNorm, weight: Tensor, bias: Tensor | None) -> Tensor:
    """`F.gelu(F.linear(norm(x), ...))` of (B, T, K), the exact form of GELU."""
    if _fused(x) and _normable(x):
        return fused().linear(x, weight, bias, norm=norm, gelu=True)
    x = norm(x)
    if not _onednn(x):
        return F.gelu(F.linear(x, weight, bias))
    out: Tensor = torch.ops.mkldnn._linear_pointwise(x, weight, bias, "gelu", [], "none")
    return out


def norm_linears(
    x: Tensor, norm: nn.LayerNorm, weights: Sequence[Tensor], joint: Tensor | None
) -> list[Tensor]:
    """`F.linear(norm(x), weight)` of (B, T, K) for each of `weights`; `joint` may hold them in one."""
    if joint is not None and _fused(x) and _normable(x):
        return list(fused().linear(x, joint, None, norm=norm).split([len(part) for part in weights], -1))
    x = norm(x)
    return [linear(x, weight) for weight in weights]


def linear_add(x: Tensor, weight: Tensor, bias: Tensor | None, to: Tensor) -> Tensor:
    """`to + F.linear(...)` of (B, T, K)."""
    if _fused(x):
        return fused().linear(x, weight, bias, add=to)
    if not _onednn(x):
        return to + F.linear(x, weight, bias)
    out: Tensor = torch.ops.mkldnn._linear_pointwise.binary(x, to, weight, bias, "add")
    return out


def _normable(x: Tensor) -> bool:
    return x.shape[-1] <= fused().WIDEST_NORM and _power_of_two(x.shape[-1])


def _power_of_two(number: int) -> bool:
    return number & (number - 1) == 0


@cache
def fused() -> ModuleType:
    """`models.fused`: it needs Triton, which is there where CUDA is."""
    return import_module("stepaudio_runtime.models.fused")


@cache
def fused_attention() -> ModuleType:
    """`models.fused_attention`, which needs it too."""
    return import_module("stepaudio_runtime.models.fused_attention")


class Linear(nn.Linear):
    """torch's own, by `linear`."""

    def forward(self, x: Tensor) -> Tensor:
        """(..., K) -> (..., N)."""
        return linear(x, self.weight, self.bias)


class Conv1d(nn.Conv1d):
    """torch's own, but for the layout: what comes in from `joined` goes out so."""

    _taps: Tensor | None = None  # (kernel, C', C): the weight as the Triton kernel reads it

    def fuse(self) -> None:
        """Take the Triton kernel where it is the right one (`FUSED`). Again where the weight has changed."""
        (size,), (stride,), (dilation,) = self.kernel_size, self.stride, self.dilation
        if stride == dilation == 1 and size % 2 and self.padding == (size // 2,):
            self._taps = self.weight.detach().permute(2, 0, 1).contiguous()

    def within(self, x: Tensor, mask: Tensor | None) -> Tensor:
        """The convolution of `x` (B, C, T) times `mask` (B, 1, T)."""
        if self._taps is not None and _fused(x):
            rows = fused().convolve(x.transpose(1, 2), self._taps, self.bias, mask)
            return rows.transpose(1, 2)
        return self.forward(within(x, mask))

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, T) -> (B, C', T')."""
        if self._taps is not None and _fused(x):
            return self.within(x, None)
        if not _onednn(x):
            return super().forward(x)
        if self.kernel_size == self.stride == (1,) and self.padding == (0,):
            return linear(x.transpose(1, 2), self.weight[:, :, 0], self.bias).transpose(1, 2)
        return F.conv2d(
            x[:, :, None],
            self.weight[:, :, None],
            self.bias,
            (1, *self.stride),
            (0, *self.padding),
            (1, *self.dilation),
        ).squeeze(2)


class ConvTranspose1d(nn.ConvTranspose1d):
    """torch's own, but for the layout: what comes in from `joined` goes out so."""

    def forward(self, x: Tensor, output_size: list[int] | None = None) -> Tensor:
        """(B, C, T) -> (B, C', T')."""
        if not _onednn(x) or output_size is not None:
            return super().forward(x, output_size)
        return F.conv_transpose2d(
            x[:, :, None], self.weight[:, :, None], self.bias, (1, *self.stride), (0, *self.padding)
        ).squeeze(2)


def joined(parts: Sequence[Tensor]) -> Tensor:
    """`torch.cat` over the channels of (B, C, T) tensors, in the layout that convolutions are fastest in."""
    if not (_onednn(parts[0]) or _fused(parts[0])):
        return torch.cat(tuple(parts), dim=1)
    return torch.cat([part.transpose(1, 2) for part in parts], dim=2).transpose(1, 2)


def key_mask(mask: Tensor, *, like: Tensor) -> Tensor:
    """What `attend` takes for keys that are there where `mask` (B, 1, T) has ones: (B, 1, 1, T).

    False where none is; on a GPU, and for the Triton kernel, which add it to the scores, -inf there and 0
    elsewhere.
    """
    there = mask[:, None].bool()
    return there.to(like).log() if like.is_cuda or _fused(like) else there


def attend(q: Tensor, k: Tensor, v: Tensor, keys: Tensor | None) -> Tensor:
    """softmax(q·k / sqrt(D)) v over (B, H, T, D); `keys` are those of `key_mask`."""
    if _onednn(q) and q.dtype is torch.bfloat16:
        return _attend_by_batched_products(q, k, v, keys)
    if _onednn(q) and q.shape[2] >= _FEW_FRAMES:
        return _attend_by_products(q, k, v, keys)
    if _fused(q) and _attendable(q, k, v):
        return fused_attention().attend(q, k, v, keys)
    return F.scaled_dot_product_attention(q, k, v, attn_mask=keys)


def _attendable(q: Tensor, k: Tensor, v: Tensor) -> bool:
    lie_alike = q.stride() == k.stride() == v.stride() and q.stride(-1) == 1
    return lie_alike and q.shape[-1] >= 16 and _power_of_two(q.shape[-1])


def _attend_by_products(q: Tensor, k: Tensor, v: Tensor, keys: Tensor | None) -> Tensor:
    """In float32 a head at a time, since torch's batched product is not oneDNN's."""
    batch, heads, frames, width = q.shape
    out = q.new_empty(batch, frames, heads, width).transpose(1, 2)
    rows = -(-frames // -(-frames * frames // _SCORES_FLOAT32))
    q, k, v = (q * (1 / math.sqrt(width))).contiguous(), k.contiguous(), v.transpose(2, 3).contiguous()
    for b in range(batch):
        for head in range(heads):
            for row in range(0, frames, rows):
                some = slice(row, row + rows)
                scores = linear(q[b, head, some], k[b, head])
                if keys is not None:
                    scores.masked_fill_(~keys[b, 0], -torch.inf)
                out[b, head, some] = linear(torch.softmax(scores, -1, out=scores), v[b, head])
    return out


def _attend_by_batched_products(q: Tensor, k: Tensor, v: Tensor, keys: Tensor | None) -> Tensor:
    batch, heads, frames, width = q.shape
    rows = min(frames, max(1, _SCORES // frames))
    together = max(1, min(heads, _SCORES // (rows * frames)))
    scratch = q.new_empty(together * rows * frames)
    out = q.new_empty(batch, frames, heads, width).transpose(1, 2)
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


def norm_mish(x: Tensor, norm: nn.GroupNorm, mask: Tensor | None, shift: Tensor | None = None) -> Tensor:
    """mish(`norm`(x)) + `shift` (B, C) of (B, C, T); `mask` as in `group_norm`."""
    if _fused(x) and 2 * x[0].numel() // norm.num_groups <= _LARGEST_FUSED_GROUP:
        return fused().group_norm_mish(x.transpose(1, 2), norm, mask, shift).transpose(1, 2)
    out = F.mish(group_norm(x, norm, mask))
    return out if shift is None else out + shift[:, :, None]


def group_norm(x: Tensor, norm: nn.GroupNorm, mask: Tensor | None) -> Tensor:
    """`norm` of (B, C, T); where there is a `mask` (B, 1, T) of ones and zeros, over its ones alone."""
    if mask is None:
        # With a fourth axis torch keeps the layout that `joined` made.
        out: Tensor = norm(x[:, :, None])
        return out.squeeze(2)
    grouped, mask = x.float().unflatten(1, (norm.num_groups, -1)), mask.float()[:, None]
    count = mask.sum(dim=-1, keepdim=True) * grouped.shape[2]
    mean = (grouped * mask).sum(dim=(2, 3), keepdim=True) / count
    centred = (grouped - mean) * mask
    variance = centred.square().sum(dim=(2, 3), keepdim=True) / count
    normed = (centred * torch.rsqrt(variance + norm.eps)).flatten(1, 2)
    return (normed * norm.weight[:, None] + norm.bias[:, None]).to(x.dtype)


def snake(x: Tensor, alpha: Tensor) -> Tensor:
    """x + sin²(αx) / (α + 1e-9) of (B, C, T), α by channel (C)."""
    if x.is_cuda and not torch.is_grad_enabled():
        return fused().snake(x, alpha)
    if not _onednn(x):
        column = alpha[:, None]
        return x + torch.sin(x * column).square() / (column + 1e-9)
    rows = x.transpose(1, 2).reshape(-1, len(alpha))
    out, inverse = torch.empty_like(rows), 1 / (alpha + 1e-9)
    size = max(1, _CACHED // len(alpha))
    for own, into in zip(rows.split(size), out.split(size), strict=True):
        torch.mul(own, alpha, out=into)
        into.sin_().square_().mul_(inverse).add_(own)
    return out.view(len(x), -1, len(alpha)).transpose(1, 2)
