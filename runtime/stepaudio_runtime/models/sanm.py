"""The linguistic tokenizer's encoder: SANM (self-attention with a memory block) over overlapping windows.

Features come in chunks of 4 frames. A chunk is encoded in a window of the 5 frames before it and itself;
every layer also attends to keys and values of the 16 frames before the window, as the earlier windows
computed them. New frames see no future. Modules carry the checkpoint's names (`encoder.encoders0.0…`).

Since a layer needs earlier windows only through its own input, all windows of a stretch of audio go through
a layer at once, the cache being a gather from the stretch's own keys; streaming is the same with short
stretches and a `SanmState` carried from one to the next. Both give the same numbers.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

_BLOCK_WINDOWS = 128
"""Windows encoded at once, 31 s: bounds the memory of long waves."""
_NORM_EPS = 1e-12


@dataclass(frozen=True)
class SanmConfig:
    """Sizes in the checkpoint's own words (`encoder_conf`), defaults those of the published model."""

    input_size: int = 560
    output_size: int = 512
    attention_heads: int = 4
    linear_units: int = 2048
    num_blocks: int = 50
    kernel_size: int = 11
    chunk_size: tuple[int, int, int] = (0, 4, 5)  # unused, frames of a chunk, frames of overlap
    encoder_chunk_look_back: int = 4  # chunks

    @property
    def chunk(self) -> int:
        """New frames of a window."""
        return self.chunk_size[1]

    @property
    def overlap(self) -> int:
        """Frames of a window that repeat what came before."""
        return self.chunk_size[2]

    @property
    def look_back(self) -> int:
        """Rows of keys and values that a layer keeps."""
        return self.chunk * self.encoder_chunk_look_back


@dataclass(frozen=True)
class SanmState:
    """What a stream carries on: frames seen, the last rows of the input, keys and values of every layer."""

    frames: int
    tail: Tensor  # (overlap, input_size), with position codes; zeros before the first chunk
    cache: tuple[Tensor, ...]  # per layer (2, rows <= look_back, output_size): keys, values


@dataclass(frozen=True)
class _Stretch:
    """Geometry shared by the layers of one call: which keys of which window exist."""

    chunk: int
    look_back: int
    last_rows: int  # rows of the last window that exist; the others are padding
    mask: Tensor | None  # (windows, 1, 1, look_back + rows); None where every key exists


class SanmModel(nn.Module):
    """The encoder under its key prefix: `forward` a stretch of a stream, `encode` a whole utterance."""

    def __init__(self, config: SanmConfig) -> None:
        super().__init__()
        self.config = config
        self.encoder = _Encoder(config)

    def start(self) -> SanmState:
        """State before the first frame."""
        weight = self.encoder.after_norm.weight
        empty = weight.new_zeros(2, 0, self.config.output_size)
        tail = weight.new_zeros(self.config.overlap, self.config.input_size)
        return SanmState(frames=0, tail=tail, cache=(empty,) * self.config.num_blocks)

    def forward(self, features: Tensor, state: SanmState) -> tuple[Tensor, SanmState]:
        """Encode the next `features` (n, input_size): rows (n, output_size) and the state after them.

        n is a multiple of the chunk; only the last call of a stream may bring another n. Raises ValueError
        for frames after such an end.
        """
        outputs = [features.new_zeros(0, self.config.output_size)]
        for block in features.split(self.config.chunk * _BLOCK_WINDOWS):
            if len(block):
                rows, state = self._stretch(block, state)
                new = rows[:, self.config.overlap :]
                outputs.append(new.reshape(-1, self.config.output_size)[: len(block)])
        return torch.cat(outputs), state

    def encode(self, features: Tensor) -> Tensor:
        """Rows (n, output_size) of a whole utterance's `features` (n, input_size)."""
        return self(features, self.start())[0]

    def windows(self, features: Tensor, state: SanmState) -> Tensor:
        """First layer's input: (windows, overlap + chunk, input_size), the last one padded with zeros."""
        config = self.config
        if state.frames % config.chunk:
            raise ValueError("frames after the end of a stream: only its last call may end within a chunk")
        first = state.frames + 1  # the first frame of an utterance has position 1
        position = torch.arange(first, first + len(features), device=features.device)
        new = features * math.sqrt(config.output_size) + _position_code(position, config.input_size)
        rows = torch.cat([state.tail, new])
        rows = F.pad(rows, (0, 0, 0, -len(features) % config.chunk))
        return rows.unfold(0, config.overlap + config.chunk, config.chunk).transpose(1, 2)

    def _stretch(self, features: Tensor, state: SanmState) -> tuple[Tensor, SanmState]:
        """Windows of `features` through all layers: normed (windows, overlap + chunk, output_size)."""
        config = self.config
        x = self.windows(features, state)
        real = config.overlap + len(features)
        tail = torch.cat([x[0, : config.overlap], x[:, config.overlap :].flatten(0, 1)])[
            real - config.overlap : real
        ]
        last_rows = real - (len(x) - 1) * config.chunk
        stretch = _Stretch(config.chunk, config.look_back, last_rows, self._mask(x, state, last_rows))
        caches = []
        for layer, cache in zip(self.encoder.layers(), state.cache, strict=True):
            x, cache = layer(x, cache, stretch)  # noqa: PLW2901
            caches.append(cache)
        x = self.encoder.after_norm(x)
        return x, SanmState(state.frames + len(features), tail, tuple(caches))

    def _mask(self, x: Tensor, state: SanmState, last_rows: int) -> Tensor | None:
        config, (windows, rows) = self.config, x.shape[:2]
        missing = config.look_back - state.cache[0].shape[1]
        if missing == 0 and last_rows == rows:
            return None
        window = torch.arange(windows, device=x.device)[:, None]
        key = torch.arange(config.look_back, device=x.device)
        cached = window * config.chunk + key >= missing
        own = (window < windows - 1) | (torch.arange(rows, device=x.device) < last_rows)
        return torch.cat([cached, own], dim=1)[:, None, None, :]


class _Encoder(nn.Module):
    def __init__(self, config: SanmConfig) -> None:
        super().__init__()
        self.encoders0 = nn.ModuleList([_Layer(config, config.input_size)])
        self.encoders = nn.ModuleList(
            [_Layer(config, config.output_size) for _ in range(config.num_blocks - 1)]
        )
        self.after_norm = nn.LayerNorm(config.output_size, eps=_NORM_EPS)

    def layers(self) -> list[nn.Module]:
        return [*self.encoders0, *self.encoders]


class _Layer(nn.Module):
    def __init__(self, config: SanmConfig, input_size: int) -> None:
        super().__init__()
        self.self_attn = _Attention(config, input_size)
        self.feed_forward = _FeedForward(config)
        self.norm1 = nn.LayerNorm(input_size, eps=_NORM_EPS)
        self.norm2 = nn.LayerNorm(config.output_size, eps=_NORM_EPS)
        # The first layer changes the width, so nothing can be added to its input.
        self.residual = input_size == config.output_size

    def forward(self, x: Tensor, cache: Tensor, stretch: _Stretch) -> tuple[Tensor, Tensor]:
        attended, cache = self.self_attn(self.norm1(x), cache, stretch)
        x = x + attended if self.residual else attended
        return x + self.feed_forward(self.norm2(x)), cache


class _FeedForward(nn.Module):
    def __init__(self, config: SanmConfig) -> None:
        super().__init__()
        self.w_1 = nn.Linear(config.output_size, config.linear_units)
        self.w_2 = nn.Linear(config.linear_units, config.output_size)

    def forward(self, x: Tensor) -> Tensor:
        return self.w_2(F.relu(self.w_1(x)))


class _Attention(nn.Module):
    def __init__(self, config: SanmConfig, input_size: int) -> None:
        super().__init__()
        self.heads = config.attention_heads
        width = config.output_size
        self.linear_q_k_v = nn.Linear(input_size, 3 * width)
        self.linear_out = nn.Linear(width, width)
        self.fsmn_block = nn.Conv1d(width, width, config.kernel_size, groups=width, bias=False)
        before = (config.kernel_size - 1) // 2
        self.padding = (before, config.kernel_size - 1 - before)

    def forward(self, x: Tensor, cache: Tensor, stretch: _Stretch) -> tuple[Tensor, Tensor]:
        """`x` (W, L, D) and the layer's `cache` (2, rows, D); returns (W, L, D) and the cache after."""
        q, k, v = self.linear_q_k_v(x).chunk(3, dim=-1)
        if stretch.last_rows < x.shape[1]:
            v = v.clone()
            v[-1, stretch.last_rows :] = 0  # the memory block must not see padding
        windows, chunk = len(x), stretch.chunk
        # Each window leaves its first rows behind, as many as it has new ones.
        left = torch.stack([k[:, :chunk], v[:, :chunk]]).flatten(1, 2)
        history = torch.cat([cache, left], dim=1)
        padded = F.pad(history, (0, 0, stretch.look_back - cache.shape[1], 0))
        seen = padded.unfold(1, stretch.look_back, chunk)[:, :windows].transpose(2, 3)
        attended = F.scaled_dot_product_attention(
            self._split(q),
            self._split(torch.cat([seen[0], k], dim=1)),
            self._split(torch.cat([seen[1], v], dim=1)),
            attn_mask=stretch.mask,
        )
        memory = self.fsmn_block(F.pad(v.transpose(1, 2), self.padding)).transpose(1, 2) + v
        end = history.shape[1] - (x.shape[1] - stretch.last_rows)
        kept = history[:, max(0, end - stretch.look_back) : end]
        return self.linear_out(attended.transpose(1, 2).flatten(2)) + memory, kept

    def _split(self, x: Tensor) -> Tensor:
        return x.unflatten(2, (self.heads, -1)).transpose(1, 2)


def _position_code(position: Tensor, depth: int) -> Tensor:
    """Sines then cosines (n, depth) of `position` (n,), in float32 as the reference computes them."""
    half = depth // 2
    steps = torch.arange(half, device=position.device, dtype=torch.float32)
    angles = position[:, None].float() * torch.exp(steps * (-math.log(10_000) / (half - 1)))
    return torch.cat([angles.sin(), angles.cos()], dim=1)
