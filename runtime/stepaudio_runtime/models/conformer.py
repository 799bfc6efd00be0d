"""The flow's text side: a conformer encoder with Transformer-XL relative positions (espnet's form).

Only the parts that the published decoder uses: linear input layer, pre-norm layers of attention and one
feed-forward, no convolution module, no macaron half-steps. Where the elements of a batch differ in length,
the attention leaves out the keys beyond an element's end. Module names are the checkpoint's.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from stepaudio_runtime.models.kernels import Linear
from stepaudio_runtime.models.lengths import ones_before


@dataclass(frozen=True)
class ConformerConfig:
    """Sizes of the encoder; the defaults are those of the published checkpoint."""

    output_size: int = 512
    attention_heads: int = 8
    linear_units: int = 2048
    num_blocks: int = 6


def relative_positions(length: int, dim: int, *, device: torch.device, dtype: torch.dtype) -> Tensor:
    """Sinusoids of the relative positions length-1 … -(length-1), as (1, 2·length-1, dim).

    Sine in the even columns, cosine in the odd ones; always computed in float32, then cast.
    """
    positions = torch.arange(length - 1, -length, -1, device=device, dtype=torch.float32)
    frequencies = torch.exp(
        torch.arange(0, dim, 2, device=device, dtype=torch.float32) * -(math.log(10000.0) / dim)
    )
    angles = positions[:, None] * frequencies[None, :]
    return torch.stack((angles.sin(), angles.cos()), dim=-1).reshape(1, 2 * length - 1, dim).to(dtype)


def keys_beyond(lengths: Sequence[int], *, device: torch.device) -> Tensor | None:
    """(B, 1, 1, largest length), true beyond an element's end; None for equal lengths: no key is beyond."""
    if len(set(lengths)) == 1:
        return None
    return ones_before(lengths, like=torch.empty(0, device=device))[:, None] == 0


class LinearInput(nn.Module):
    """Linear, layer norm, times sqrt(dim). No position is added: the attention has its own."""

    def __init__(self, input_size: int, output_size: int) -> None:
        super().__init__()
        self.out = nn.Sequential(Linear(input_size, output_size), nn.LayerNorm(output_size, eps=1e-5))
        self._scale = math.sqrt(output_size)

    def forward(self, x: Tensor) -> Tensor:
        """(B, N, input) -> (B, N, output)."""
        embedded: Tensor = self.out(x) * self._scale
        return embedded


class RelativeAttention(nn.Module):
    """softmax(((q + u)·k + (q + v)·p[i - j]) / sqrt(d)) over values, with u, v learnt per head."""

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        if dim % heads:
            raise ValueError(f"{heads} heads do not divide the width {dim}")
        self.heads = heads
        self.linear_q = Linear(dim, dim)
        self.linear_k = Linear(dim, dim)
        self.linear_v = Linear(dim, dim)
        self.linear_out = Linear(dim, dim)
        self.linear_pos = Linear(dim, dim, bias=False)
        self.pos_bias_u = nn.Parameter(torch.zeros(heads, dim // heads))
        self.pos_bias_v = nn.Parameter(torch.zeros(heads, dim // heads))

    def _split(self, x: Tensor) -> Tensor:
        return x.unflatten(-1, (self.heads, -1)).transpose(1, 2)

    def forward(self, x: Tensor, positions: Tensor, beyond: Tensor | None = None) -> Tensor:
        """`x` (B, N, D), `positions` (1, 2N-1, D), `beyond` (B, 1, 1, N) true at no key -> (B, N, D)."""
        batch, length, dim = x.shape
        q, k, v = self._split(self.linear_q(x)), self._split(self.linear_k(x)), self._split(self.linear_v(x))
        p = self._split(self.linear_pos(positions))
        by_position = (q + self.pos_bias_v[:, None]) @ p.transpose(-1, -2)
        bias = _shift_to_keys(by_position) / math.sqrt(dim // self.heads)
        if beyond is not None:
            bias = bias.masked_fill(beyond, -torch.inf)
        attended = F.scaled_dot_product_attention(q + self.pos_bias_u[:, None], k, v, attn_mask=bias)
        out: Tensor = self.linear_out(attended.transpose(1, 2).reshape(batch, length, dim))
        return out


def _shift_to_keys(scores: Tensor) -> Tensor:
    """(B, H, N, 2N-1) by relative position -> (B, H, N, N) by key: column j of row i is position i - j.

    One zero column in front makes every row one longer than a shift by one per row needs, so that reading the
    same memory with rows of N shifts row i left by N-1-i.
    """
    batch, heads, length, _ = scores.shape
    padded = F.pad(scores, (1, 0)).reshape(batch, heads, 2 * length, length)
    return padded[:, :, 1:].reshape(batch, heads, length, 2 * length - 1)[..., :length]


class FeedForward(nn.Module):
    """Linear, SiLU, linear."""

    def __init__(self, dim: int, inner: int) -> None:
        super().__init__()
        self.w_1 = Linear(dim, inner)
        self.w_2 = Linear(inner, dim)

    def forward(self, x: Tensor) -> Tensor:
        """(B, N, D) -> (B, N, D)."""
        out: Tensor = self.w_2(F.silu(self.w_1(x)))
        return out


class ConformerLayer(nn.Module):
    """x += attention(norm_mha(x)); x += feed_forward(norm_ff(x))."""

    def __init__(self, config: ConformerConfig) -> None:
        super().__init__()
        dim = config.output_size
        self.self_attn = RelativeAttention(dim, config.attention_heads)
        self.feed_forward = FeedForward(dim, config.linear_units)
        self.norm_mha = nn.LayerNorm(dim, eps=1e-5)
        self.norm_ff = nn.LayerNorm(dim, eps=1e-5)

    def forward(self, x: Tensor, positions: Tensor, beyond: Tensor | None = None) -> Tensor:
        """`x` (B, N, D), `positions` (1, 2N-1, D), `beyond` (B, 1, 1, N) true at no key -> (B, N, D)."""
        x = x + self.self_attn(self.norm_mha(x), positions, beyond)
        return x + self.feed_forward(self.norm_ff(x))


class ConformerEncoder(nn.Module):
    """Embedded ids (B, N, input_size) -> (B, N, output_size)."""

    def __init__(self, input_size: int, config: ConformerConfig) -> None:
        super().__init__()
        self.config = config
        self.embed = LinearInput(input_size, config.output_size)
        self.encoders = nn.ModuleList(ConformerLayer(config) for _ in range(config.num_blocks))
        self.after_norm = nn.LayerNorm(config.output_size, eps=1e-5)

    def forward(self, x: Tensor, beyond: Tensor | None = None) -> Tensor:
        """(B, N, input_size) -> (B, N, output_size); `beyond` are those of `keys_beyond`."""
        x = self.embed(x)
        positions = relative_positions(x.shape[1], x.shape[2], device=x.device, dtype=x.dtype)
        for layer in self.encoders:
            x = layer(x, positions, beyond)
        out: Tensor = self.after_norm(x)
        return out
