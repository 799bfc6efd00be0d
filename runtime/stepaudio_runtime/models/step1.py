"""Step-1 in plain torch, for training (vLLM serves it): many answers after one shared beginning.

The prompt of the TTS model begins with the same several hundred tokens in every example of a voice. They go
through the model once a batch, and all answers attend to their keys and values. Names are the checkpoint's.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F


@dataclass(frozen=True)
class Step1Config:
    """Sizes in the words of `config.json`."""

    vocab_size: int
    hidden_size: int
    intermediate_size: int
    num_hidden_layers: int
    num_attention_heads: int
    num_attention_groups: int
    rms_norm_eps: float = 1e-5


def slopes(heads: int) -> Tensor:
    """The bias's slope of each head: powers of two, the heads beyond a power of two in between."""
    n = 1 << (heads.bit_length() - 1)
    first = [2 ** (-8 * h / n) for h in range(1, n + 1)]
    return torch.tensor(first + [2 ** (-4 * (2 * r - 1) / n) for r in range(1, heads - n + 1)])


def bias(heads: int, begun: int, length: int) -> Tensor:
    """-slope · sqrt(distance), -inf for the future: (heads, length, begun + length), queries last."""
    distance = torch.arange(begun, begun + length)[:, None] - torch.arange(begun + length)
    fall = -slopes(heads)[:, None, None] * distance.clamp_min(0).float().sqrt()
    return fall.masked_fill(distance < 0, -torch.inf)


class RmsNorm(nn.Module):
    """x / rms(x) · weight."""

    def __init__(self, width: int, eps: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))
        self._eps = eps

    def forward(self, x: Tensor) -> Tensor:
        """(..., width) -> (..., width)."""
        return F.rms_norm(x, self.weight.shape, self.weight, self._eps)


class _Attention(nn.Module):
    def __init__(self, config: Step1Config) -> None:
        super().__init__()
        width = config.hidden_size // config.num_attention_heads
        self.width, kv = width, width * config.num_attention_groups
        self.q_proj = nn.Linear(config.hidden_size, config.hidden_size, bias=False)
        self.k_proj = nn.Linear(config.hidden_size, kv, bias=False)
        self.v_proj = nn.Linear(config.hidden_size, kv, bias=False)
        self.o_proj = nn.Linear(config.hidden_size, config.hidden_size, bias=False)

    def _split(self, x: Tensor) -> Tensor:
        return x.unflatten(-1, (-1, self.width)).transpose(1, 2)

    def forward(
        self, x: Tensor, begun: tuple[Tensor, Tensor] | None, bias: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        q, k, v = self._split(self.q_proj(x)), self._split(self.k_proj(x)), self._split(self.v_proj(x))
        all_k, all_v = k, v
        if begun is not None:
            all_k = torch.cat((begun[0].expand(len(x), -1, -1, -1), k), dim=2)
            all_v = torch.cat((begun[1].expand(len(x), -1, -1, -1), v), dim=2)
        times = q.shape[1] // k.shape[1]
        attended = F.scaled_dot_product_attention(
            q, all_k.repeat_interleave(times, dim=1), all_v.repeat_interleave(times, dim=1), attn_mask=bias
        )
        return self.o_proj(attended.transpose(1, 2).flatten(2)), k, v


class _Mlp(nn.Module):
    def __init__(self, config: Step1Config) -> None:
        super().__init__()
        self.gate_proj = nn.Linear(config.hidden_size, config.intermediate_size, bias=False)
        self.up_proj = nn.Linear(config.hidden_size, config.intermediate_size, bias=False)
        self.down_proj = nn.Linear(config.intermediate_size, config.hidden_size, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.down_proj(F.silu(self.gate_proj(x)) * self.up_proj(x))
        return out


class _Layer(nn.Module):
    def __init__(self, config: Step1Config) -> None:
        super().__init__()
        self.self_attn = _Attention(config)
        self.mlp = _Mlp(config)
        self.input_layernorm = RmsNorm(config.hidden_size, config.rms_norm_eps)
        self.post_attention_layernorm = RmsNorm(config.hidden_size, config.rms_norm_eps)

    def forward(
        self, x: Tensor, begun: tuple[Tensor, Tensor] | None, bias: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        attended, k, v = self.self_attn(self.input_layernorm(x), begun, bias)
        x = x + attended
        return x + self.mlp(self.post_attention_layernorm(x)), k, v


class _Model(nn.Module):
    def __init__(self, config: Step1Config) -> None:
        super().__init__()
        self.embed_tokens = nn.Embedding(config.vocab_size, config.hidden_size)
        self.layers = nn.ModuleList(_Layer(config) for _ in range(config.num_hidden_layers))
        self.norm = RmsNorm(config.hidden_size, config.rms_norm_eps)


class Step1(nn.Module):
    """The language model; `forward` gives the normed last rows, `lm_head` makes logits of them."""

    def __init__(self, config: Step1Config) -> None:
        super().__init__()
        self.config = config
        self.model = _Model(config)
        self.lm_head = nn.Linear(config.hidden_size, config.vocab_size, bias=False)
        deep = (2 * config.num_hidden_layers) ** -0.5
        for name, weight in self.named_parameters():
            if weight.dim() > 1:
                nn.init.normal_(
                    weight, std=0.03 * (deep if name.endswith(("o_proj.weight", "down_proj.weight")) else 1)
                )

    def forward(self, beginning: Tensor, rest: Tensor) -> Tensor:
        """`beginning` (P) and `rest` (B, N), all of them after it -> rows (B, N, hidden)."""
        heads = self.config.num_attention_heads
        bias_begun = bias(heads, 0, len(beginning)).to(rest.device)
        bias_rest = bias(heads, len(beginning), rest.shape[1]).to(rest.device)
        begun, x = self.model.embed_tokens(beginning[None]), self.model.embed_tokens(rest)
        last = len(self.model.layers) - 1
        for i, layer in enumerate(self.model.layers):
            if i < last:
                after, k, v = layer(begun, None, bias_begun)
            else:  # nobody needs more than keys and values of the last layer's beginning
                normed = layer.input_layernorm(begun)
                attention = layer.self_attn
                k, v = attention._split(attention.k_proj(normed)), attention._split(attention.v_proj(normed))
                after = begun
            x, _, _ = layer(x, (k, v), bias_rest)
            begun = after
        rows: Tensor = self.model.norm(x)
        return rows
