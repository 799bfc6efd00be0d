"""The linguistic tokenizer's encoder: SANM (self-attention with a memory block) over overlapping windows.

Features come in chunks of 4 frames. A chunk is encoded in a window of the 5 frames before it and itself;
every layer also attends to keys and values of the 16 frames before the window, as the earlier windows
computed them. New frames see no future. Modules carry the checkpoint's names (`encoder.encoders0.0…`).

Since a layer needs earlier windows only through its own input, all windows of a stretch of audio go through
a layer at once, the cache being a gather from the stretch's own keys; streaming is the same with short
stretches and a `SanmState` carried from one to the next. Stretches of different streams share a call: their
windows stand behind each other, and each window's keys are gathered from its own stream. All give the same
numbers.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

MAX_WINDOWS = 128
"""Windows of one stream encoded at once, 31 s: bounds the memory of long waves."""
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
    """What a stream carries on: frames seen, the last rows of the input, keys and values of every layer.

    Of the cache's rows the last `min(frames, look_back)` exist; those before them are never attended to.
    """

    frames: int
    tail: Tensor  # (overlap, input_size), with position codes; zeros before the first chunk
    cache: Tensor  # (layers, look_back, 2 * output_size): keys, then values


Stretch = tuple[Tensor, SanmState]
"""The next features (n, input_size) of a stream, and its state before them."""


@dataclass(frozen=True)
class _Geometry:
    """Who sees whom in one call, the same in every layer. Rows: those of all caches, then of all windows."""

    keys: Tensor  # (windows, look_back + overlap + chunk): the rows that a window attends to
    kept: Tensor  # (streams * look_back): the rows that are the caches of the next call
    mask: Tensor | None  # (windows, 1, 1, keys): those of the keys that exist; None where all do
    padding: Tensor | None  # (windows, overlap + chunk, 1): rows that do not exist


class SanmModel(nn.Module):
    """The encoder under its key prefix: `batch` stretches of several streams, `forward` one stream's."""

    def __init__(self, config: SanmConfig) -> None:
        super().__init__()
        self.config = config
        self.encoder = _Encoder(config)

    def start(self) -> SanmState:
        """State before the first frame."""
        config, weight = self.config, self.encoder.after_norm.weight
        cache = weight.new_zeros(config.num_blocks, config.look_back, 2 * config.output_size)
        return SanmState(frames=0, tail=weight.new_zeros(config.overlap, config.input_size), cache=cache)

    def window_count(self, frames: int) -> int:
        """Windows that `frames` new frames make."""
        return -(-frames // self.config.chunk)

    def forward(self, features: Tensor, state: SanmState) -> tuple[Tensor, SanmState]:
        """Encode the next `features` (n, input_size): rows (n, output_size) and the state after them.

        n is a multiple of the chunk; only the last call of a stream may bring another n. Raises ValueError
        for frames after such an end.
        """
        outputs = [features.new_zeros(0, self.config.output_size)]
        for block in features.split(self.config.chunk * MAX_WINDOWS):
            [(rows, state)] = self.batch([(block, state)])
            outputs.append(rows)
        return torch.cat(outputs), state

    def batch(self, stretches: Sequence[Stretch]) -> list[tuple[Tensor, SanmState]]:
        """`forward` of every stretch, all of them through a layer together.

        The caller bounds their windows. Raises ValueError as `forward`.
        """
        busy = [(features, state) for features, state in stretches if len(features)]
        done = iter(self._run(busy)) if busy else iter(())
        empty = self.encoder.after_norm.weight.new_zeros(0, self.config.output_size)
        return [next(done) if len(features) else (empty, state) for features, state in stretches]

    def encode(self, features: Tensor) -> Tensor:
        """Rows (n, output_size) of a whole utterance's `features` (n, input_size)."""
        return self(features, self.start())[0]

    def windows(self, features: Tensor, state: SanmState) -> Tensor:
        """First layer's input: (windows, overlap + chunk, input_size), the last one padded with zeros."""
        return self._cut(self._input(features, state))

    def _input(self, features: Tensor, state: SanmState) -> Tensor:
        """Rows (overlap + n, input_size) with position codes: the tail, then the new frames."""
        config = self.config
        if state.frames % config.chunk:
            raise ValueError("frames after the end of a stream: only its last call may end within a chunk")
        first = state.frames + 1  # the first frame of an utterance has position 1
        position = torch.arange(first, first + len(features), device=features.device)
        new = features * math.sqrt(config.output_size) + _position_code(position, config.input_size)
        return torch.cat([state.tail, new])

    def _cut(self, rows: Tensor) -> Tensor:
        config = self.config
        rows = F.pad(rows, (0, 0, 0, -(len(rows) - config.overlap) % config.chunk))
        return rows.unfold(0, config.overlap + config.chunk, config.chunk).transpose(1, 2)

    def _run(self, stretches: Sequence[Stretch]) -> list[tuple[Tensor, SanmState]]:
        config = self.config
        inputs = [self._input(features, state) for features, state in stretches]
        windows = [self._cut(rows) for rows in inputs]
        geometry = self._geometry(stretches, inputs[0].device)
        x, caches = torch.cat(windows), []
        old = torch.cat([state.cache for _, state in stretches], dim=1)
        for layer, cache in zip(self.encoder.layers(), old, strict=True):
            x, cache = layer(x, cache, geometry)  # noqa: PLW2901
            caches.append(cache.unflatten(0, (len(stretches), config.look_back)))
        rows = self.encoder.after_norm(x)[:, config.overlap :].split([len(each) for each in windows])
        results = []
        for (features, state), given, found, cache in zip(
            stretches, inputs, rows, torch.stack(caches, dim=1), strict=True
        ):
            # Of its own memory: a stream that lives on must not hold the others' caches.
            after = SanmState(state.frames + len(features), given[-config.overlap :].clone(), cache.clone())
            results.append((found.flatten(0, 1)[: len(features)], after))
        return results

    def _geometry(self, stretches: Sequence[Stretch], device: torch.device) -> _Geometry:
        """In numbers of rows: a stream's history is its cache and what its windows leave behind."""
        config = self.config
        rows, own = config.overlap + config.chunk, torch.arange(config.overlap + config.chunk, device=device)
        keys, kept, exists, padding = [], [], [], []
        first = len(stretches) * config.look_back  # the first row of the stream's first window
        for number, (features, state) in enumerate(stretches):
            count = self.window_count(len(features))
            window = torch.arange(count, device=device)[:, None]
            left = torch.arange(count * config.chunk, device=device)  # a window leaves its first rows behind
            history = torch.cat(
                [
                    number * config.look_back + torch.arange(config.look_back, device=device),
                    first + left // config.chunk * rows + left % config.chunk,
                ]
            )
            seen = window * config.chunk + torch.arange(config.look_back, device=device)
            keys.append(torch.cat([history[seen], first + window * rows + own], dim=1))
            kept.append(history[len(features) : len(features) + config.look_back])
            inside = window * config.chunk + own < config.overlap + len(features)
            cached = seen >= config.look_back - state.frames
            exists.append(torch.cat([cached, inside], dim=1))
            padding.append(~inside)
            first += count * rows
        mask, outside = torch.cat(exists), torch.cat(padding)
        return _Geometry(
            torch.cat(keys),
            torch.cat(kept),
            None if bool(mask.all()) else mask[:, None, None, :],
            outside[:, :, None] if bool(outside.any()) else None,
        )


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

    def forward(self, x: Tensor, cache: Tensor, geometry: _Geometry) -> tuple[Tensor, Tensor]:
        attended, cache = self.self_attn(self.norm1(x), cache, geometry)
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

    def forward(self, x: Tensor, cache: Tensor, geometry: _Geometry) -> tuple[Tensor, Tensor]:
        """`x` (W, L, D) and the streams' `cache` (S * look_back, 2 D); returns both anew."""
        width = self.linear_out.in_features
        q, kv = self.linear_q_k_v(x).split([width, 2 * width], dim=-1)
        history = torch.cat([cache, kv.flatten(0, 1)])
        seen = history.index_select(0, geometry.keys.flatten()).unflatten(0, geometry.keys.shape)
        k, v = seen.chunk(2, dim=-1)
        attended = F.scaled_dot_product_attention(
            self._split(q), self._split(k), self._split(v), attn_mask=geometry.mask
        )
        own = kv[..., width:]
        if geometry.padding is not None:
            own = own.masked_fill(geometry.padding, 0)  # the memory block must not see padding
        memory = self.fsmn_block(F.pad(own.transpose(1, 2), self.padding)).transpose(1, 2) + own
        kept = history.index_select(0, geometry.kept)
        return self.linear_out(attended.transpose(1, 2).flatten(2)) + memory, kept

    def _split(self, x: Tensor) -> Tensor:
        return x.unflatten(2, (self.heads, -1)).transpose(1, 2)


def _position_code(position: Tensor, depth: int) -> Tensor:
    """Sines then cosines (n, depth) of `position` (n,), in float32 as the reference computes them."""
    half = depth // 2
    steps = torch.arange(half, device=position.device, dtype=torch.float32)
    angles = position[:, None].float() * torch.exp(steps * (-math.log(10_000) / (half - 1)))
    return torch.cat([angles.sin(), angles.cos()], dim=1)
