"""The velocity field of the flow: Matcha-TTS's one-dimensional U-Net with transformer blocks.

(B, C, T) tensors in the convolutions, (B, T, C) in the transformer blocks. Module names are the checkpoint's.

Elements of a batch may differ in length: a mask (B, 1, T) of ones and zeros then goes along, one for the
whole frames and one for the halves. Convolutions see zeros beyond an element's end, as they do where a tensor
ends; group norms, which run over time, and attention leave out what is beyond. Equal lengths need no mask.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from stepaudio_runtime.models.kernels import (
    Conv1d,
    ConvTranspose1d,
    attend,
    joined,
    key_mask,
    linear_add,
    norm_linear_gelu,
    norm_linears,
    norm_mish,
)
from stepaudio_runtime.models.lengths import ones_before, within


@dataclass(frozen=True)
class EstimatorConfig:
    """Sizes of the U-Net; the defaults are those of the published checkpoint."""

    in_channels: int = 320  # x, mu, speaker, prompt mel: 80 each
    out_channels: int = 80
    channels: tuple[int, ...] = (256, 256)
    attention_head_dim: int = 64
    n_blocks: int = 4
    num_mid_blocks: int = 12
    num_heads: int = 8


def time_sinusoid(t: Tensor, dim: int) -> Tensor:
    """Times (B) in 0..1 -> (B, dim) in float32: sines, then cosines, of 1000·t·10000^(-i/(dim/2-1))."""
    half = dim // 2
    frequencies = torch.exp(
        torch.arange(half, device=t.device, dtype=torch.float32) * -(math.log(10000.0) / (half - 1))
    )
    angles = 1000.0 * t.float()[:, None] * frequencies[None, :]
    return torch.cat((angles.sin(), angles.cos()), dim=-1)


class TimeMlp(nn.Module):
    """Linear, SiLU, linear."""

    def __init__(self, dim: int, inner: int) -> None:
        super().__init__()
        self.linear_1 = nn.Linear(dim, inner)
        self.linear_2 = nn.Linear(inner, inner)

    def forward(self, x: Tensor) -> Tensor:
        """(B, dim) -> (B, inner)."""
        out: Tensor = self.linear_2(F.silu(self.linear_1(x)))
        return out


class Block(nn.Module):
    """conv(3), group norm of 8 groups, Mish."""

    def __init__(self, dim_in: int, dim_out: int) -> None:
        super().__init__()
        self.block = nn.Sequential(
            Conv1d(dim_in, dim_out, 3, padding=1), nn.GroupNorm(8, dim_out, eps=1e-5), nn.Mish()
        )

    def forward(self, x: Tensor, mask: Tensor | None = None, shift: Tensor | None = None) -> Tensor:
        """(B, dim_in, T) -> (B, dim_out, T); `shift` (B, dim_out) is added."""
        conv, norm, _ = self.block
        return norm_mish(conv.within(x, mask), norm, mask, shift)


class ResnetBlock(nn.Module):
    """Two blocks with the time added between them, and a 1x1 convolution around."""

    def __init__(self, dim_in: int, dim_out: int, time_dim: int) -> None:
        super().__init__()
        self.mlp = nn.Sequential(nn.Mish(), nn.Linear(time_dim, dim_out))
        self.block1 = Block(dim_in, dim_out)
        self.block2 = Block(dim_out, dim_out)
        self.res_conv = Conv1d(dim_in, dim_out, 1)

    def forward(self, x: Tensor, shift: Tensor, mask: Tensor | None = None) -> Tensor:
        """`x` (B, dim_in, T), `shift` (B, dim_out), what `mlp` makes of the time -> (B, dim_out, T)."""
        h = self.block1(x, mask, shift)
        out: Tensor = self.block2(h, mask) + self.res_conv(x)
        return out


class Attention(nn.Module):
    """Self-attention; the inner width (heads x head_dim) differs from the outer one."""

    def __init__(self, dim: int, heads: int, head_dim: int) -> None:
        super().__init__()
        self.heads = heads
        inner = heads * head_dim
        self.to_q = nn.Linear(dim, inner, bias=False)
        self.to_k = nn.Linear(dim, inner, bias=False)
        self.to_v = nn.Linear(dim, inner, bias=False)
        self.to_out = nn.ModuleList([nn.Linear(inner, dim)])
        self._joint: Tensor | None = None  # the three in one

    def fuse(self) -> None:
        """Compute the three projections in one. Again where their weights have changed."""
        self._joint = torch.cat(self._weights()).detach()

    def _weights(self) -> list[Tensor]:
        return [self.to_q.weight, self.to_k.weight, self.to_v.weight]

    def forward(self, x: Tensor, norm: nn.LayerNorm, keys: Tensor | None = None) -> Tensor:
        """`x` + attention of `norm`(x), (B, T, C); `keys` are those of `key_mask`."""
        q, k, v = (
            part.unflatten(-1, (self.heads, -1)).transpose(1, 2)
            for part in norm_linears(x, norm, self._weights(), self._joint)
        )
        attended = attend(q, k, v, keys).transpose(1, 2).flatten(2)
        return linear_add(attended, self.to_out[0].weight, self.to_out[0].bias, x)


class GeluProjection(nn.Module):
    """Linear, exact GELU."""

    def __init__(self, dim: int, inner: int) -> None:
        super().__init__()
        self.proj = nn.Linear(dim, inner)

    def forward(self, x: Tensor, norm: nn.LayerNorm) -> Tensor:
        """The layer of `norm`(x): (B, T, C) -> (B, T, inner)."""
        return norm_linear_gelu(x, norm, self.proj.weight, self.proj.bias)


class FeedForward(nn.Module):
    """To four times the width and back; the list has the checkpoint's gap where dropout stood."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.net = nn.ModuleList([GeluProjection(dim, 4 * dim), nn.Identity(), nn.Linear(4 * dim, dim)])

    def forward(self, x: Tensor, norm: nn.LayerNorm) -> Tensor:
        """`x` + the layers of `norm`(x), (B, T, C)."""
        inner, _, outer = self.net
        return linear_add(inner(x, norm), outer.weight, outer.bias, x)


class TransformerBlock(nn.Module):
    """x += attn1(norm1(x)); x += ff(norm3(x))."""

    def __init__(self, dim: int, heads: int, head_dim: int) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(dim, eps=1e-5)
        self.attn1 = Attention(dim, heads, head_dim)
        self.norm3 = nn.LayerNorm(dim, eps=1e-5)
        self.ff = FeedForward(dim)

    def forward(self, x: Tensor, keys: Tensor | None = None) -> Tensor:
        """(B, T, C) -> (B, T, C)."""
        x = self.attn1(x, self.norm1, keys)
        out: Tensor = self.ff(x, self.norm3)
        return out


class Downsample(nn.Module):
    """conv(3) of stride 2: T -> (T + 1) // 2."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.conv = Conv1d(dim, dim, 3, stride=2, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, T) -> (B, C, (T + 1) // 2)."""
        out: Tensor = self.conv(x)
        return out


class Upsample(nn.Module):
    """Transposed conv(4) of stride 2: T -> 2 T."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.conv = ConvTranspose1d(dim, dim, 4, stride=2, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, T) -> (B, C, 2 T)."""
        out: Tensor = self.conv(x)
        return out


class ConditionalDecoder(nn.Module):
    """The velocity of x at time t, given mu, the speaker and the prompt's mel."""

    def __init__(self, config: EstimatorConfig) -> None:
        super().__init__()
        self.config = config
        widths = config.channels
        time_dim = 4 * widths[0]
        self.time_mlp = TimeMlp(config.in_channels, time_dim)

        def level(dim_in: int, dim_out: int, resample: nn.Module | None) -> nn.ModuleList:
            blocks = nn.ModuleList(
                TransformerBlock(dim_out, config.num_heads, config.attention_head_dim)
                for _ in range(config.n_blocks)
            )
            parts: list[nn.Module] = [ResnetBlock(dim_in, dim_out, time_dim), blocks]
            return nn.ModuleList([*parts, resample] if resample is not None else parts)

        last = len(widths) - 1
        ins = (config.in_channels, *widths[:-1])
        self.down_blocks = nn.ModuleList(
            level(ins[i], width, Conv1d(width, width, 3, padding=1) if i == last else Downsample(width))
            for i, width in enumerate(widths)
        )
        self.mid_blocks = nn.ModuleList(
            level(widths[-1], widths[-1], None) for _ in range(config.num_mid_blocks)
        )
        outs = (*widths[-2::-1], widths[0])
        self.up_blocks = nn.ModuleList(
            level(2 * width, out, Conv1d(out, out, 3, padding=1) if i == last else Upsample(out))
            for i, (width, out) in enumerate(zip(widths[::-1], outs, strict=True))
        )
        self._joint: tuple[Tensor, Tensor, list[int]] | None = None  # the resnets' layers of the time in one
        self.final_block = Block(widths[0], widths[0])
        self.final_proj = Conv1d(widths[0], config.out_channels, 1)

    def forward(  # noqa: PLR0917 - tensors in the order of the checkpoint's own interface
        self,
        x: Tensor,
        mu: Tensor,
        t: Tensor,
        spks: Tensor,
        cond: Tensor,
        masks: Sequence[Tensor | None] | None = None,
    ) -> Tensor:
        """`x`, `mu`, `cond` (B, 80, T), `t` (B), `spks` (B, 80) -> velocity (B, 80, T).

        `masks` are those of `self.masks`; None where all have T frames.
        """
        masks = masks or [None] * len(self.config.channels)
        keys = [None if mask is None else key_mask(mask, like=x) for mask in masks]
        shifts = iter(self._shifts(self.time_mlp(time_sinusoid(t, self.config.in_channels).to(x.dtype))))
        h = joined((x, mu, spks[:, :, None].expand(-1, -1, x.shape[2]), cond))
        skips = []
        level = 0
        for resnet, blocks, resample in self.down_blocks:
            h = _transform(resnet(h, next(shifts), masks[level]), blocks, keys[level])
            skips.append((h, level))
            h = resample(within(h, masks[level]))
            level += isinstance(resample, Downsample)
        for resnet, blocks in self.mid_blocks:
            h = _transform(resnet(h, next(shifts), masks[level]), blocks, keys[level])
        for resnet, blocks, resample in self.up_blocks:
            skip, level = skips.pop()
            h = joined((h[:, :, : skip.shape[2]], skip))
            h = _transform(resnet(h, next(shifts), masks[level]), blocks, keys[level])
            h = resample(within(h, masks[level]))
        out: Tensor = self.final_proj(self.final_block(h, masks[0]))
        return out

    def _resnets(self) -> Iterator[ResnetBlock]:
        for level in (*self.down_blocks, *self.mid_blocks, *self.up_blocks):
            yield level[0]

    def _shifts(self, time: Tensor) -> Sequence[Tensor]:
        """What every resnet makes of the time (B, time_dim): (B, its width)."""
        if self._joint is None:
            return [resnet.mlp(time) for resnet in self._resnets()]
        weight, bias, widths = self._joint
        return F.linear(F.mish(time), weight, bias).split(widths, dim=1)

    def fuse(self) -> None:
        """Lay out the weights for the fastest kernels of a GPU. Again where they, or their dtype, change."""
        layers = [resnet.mlp[1] for resnet in self._resnets()]
        self._joint = (
            torch.cat([layer.weight for layer in layers]).detach(),
            torch.cat([layer.bias for layer in layers]).detach(),
            [layer.out_features for layer in layers],
        )
        for module in self.modules():
            if isinstance(module, Conv1d | Attention):
                module.fuse()

    def masks(self, lengths: Sequence[int], *, like: Tensor) -> list[Tensor] | None:
        """The mask of every level, each with half the frames of the one before; None for equal lengths."""
        if len(set(lengths)) == 1:
            return None
        masks = []
        for _ in self.config.channels:
            masks.append(ones_before(lengths, like=like))
            lengths = [(length + 1) // 2 for length in lengths]
        return masks


def _transform(x: Tensor, blocks: nn.ModuleList, keys: Tensor | None) -> Tensor:
    x = x.transpose(1, 2).contiguous()
    for block in blocks:
        x = block(x, keys)
    return x.transpose(1, 2)
