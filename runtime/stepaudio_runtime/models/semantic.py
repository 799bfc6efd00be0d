"""The semantic tokenizer: a Whisper-like encoder of log-mels and a code book of its normalised rows.

Both convolutions halve the frame rate: 100 mel frames a second become 25 ids. Modules carry the checkpoint's
names: `encoder.conv1…`, `encoder.blocks.#.attn.query…`, `quantizer._codebook.embed`.

Mels of different length share a call without padding: their rows stand behind each other for the matrix
products, and only the convolutions and the attention, which must not mix them, go by groups of equal length.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby

import torch
import torch.nn.functional as F
from torch import Tensor, empty, nn


@dataclass(frozen=True)
class SemanticConfig:
    """Sizes in the words of the reference, defaults those of `speech_tokenizer_v1`."""

    n_mels: int = 128
    n_audio_ctx: int = 1500
    n_audio_state: int = 1280
    n_audio_head: int = 20
    n_audio_layer: int = 6
    n_codebook_size: int = 4096


def semantic_length(mel_frames: int) -> int:
    """Ids of `mel_frames` frames: two convolutions of stride 2."""
    for _ in range(2):
        mel_frames = (mel_frames - 1) // 2 + 1
    return mel_frames


Groups = Sequence[tuple[int, int]]
"""Of the rows of a call, in order: how many sequences of how many rows each."""


class SemanticModel(nn.Module):
    """Log-mels to hidden rows; `code_vectors` are what these are compared with, normalised."""

    def __init__(self, config: SemanticConfig) -> None:
        super().__init__()
        self.config = config
        self.encoder = _Encoder(config)
        self.quantizer = _Quantizer(config)

    @property
    def code_vectors(self) -> Tensor:
        """The code book (n_codebook_size, n_audio_state)."""
        return self.quantizer._codebook.embed

    def forward(self, mels: Sequence[Tensor]) -> list[Tensor]:
        """Hidden rows (semantic_length(T), n_audio_state) of each of the `mels` (n_mels, T).

        Raises ValueError when a mel is longer than the positions reach.
        """
        return self.encoder(mels) if len(mels) else []


class _Encoder(nn.Module):
    def __init__(self, config: SemanticConfig) -> None:
        super().__init__()
        width = config.n_audio_state
        self.conv1 = nn.Conv1d(config.n_mels, width, 3, stride=2, padding=1)
        self.conv2 = nn.Conv1d(width, width, 3, stride=2, padding=1)
        self.positional_embedding = nn.Parameter(empty(config.n_audio_ctx, width))
        self.blocks = nn.ModuleList([_Block(width, config.n_audio_head) for _ in range(config.n_audio_layer)])

    def forward(self, mels: Sequence[Tensor]) -> list[Tensor]:
        order = sorted(range(len(mels)), key=lambda index: mels[index].shape[1])
        stems = [
            self._stem(torch.stack([mels[index] for index in group]))
            for _, group in groupby(order, key=lambda index: mels[index].shape[1])
        ]
        groups = [(len(stem), stem.shape[1]) for stem in stems]
        x = torch.cat([stem.flatten(0, 1) for stem in stems])
        for block in self.blocks:
            x = block(x, groups)
        lengths = [length for count, length in groups for _ in range(count)]
        by_place = dict(zip(order, x.split(lengths), strict=True))
        return [by_place[index] for index in range(len(mels))]

    def _stem(self, mel: Tensor) -> Tensor:
        """Rows with positions (B, semantic_length(T), width) of `mel` (B, n_mels, T)."""
        x = F.gelu(self.conv1(mel))
        x = F.gelu(self.conv2(x)).transpose(1, 2)
        if x.shape[1] > len(self.positional_embedding):
            raise ValueError(f"{mel.shape[2]} mel frames are more than the model has positions for")
        return x + self.positional_embedding[: x.shape[1]]


class _Block(nn.Module):
    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.attn = _Attention(width, heads)
        self.attn_ln = nn.LayerNorm(width, eps=1e-5)
        self.mlp = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))
        self.mlp_ln = nn.LayerNorm(width, eps=1e-5)

    def forward(self, x: Tensor, groups: Groups) -> Tensor:
        x = x + self.attn(self.attn_ln(x), groups)
        return x + self.mlp(self.mlp_ln(x))


class _Attention(nn.Module):
    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.query = nn.Linear(width, width)
        self.key = nn.Linear(width, width, bias=False)
        self.value = nn.Linear(width, width)
        self.out = nn.Linear(width, width)

    def forward(self, x: Tensor, groups: Groups) -> Tensor:
        """`x` (rows, width); sequences see themselves only."""
        sizes = [count * length for count, length in groups]
        parts = zip(
            groups, *(part(x).split(sizes) for part in (self.query, self.key, self.value)), strict=True
        )
        seen = [
            F.scaled_dot_product_attention(*(self._heads(part, group) for part in (q, k, v)))
            for group, q, k, v in parts
        ]
        return self.out(torch.cat([each.transpose(1, 2).flatten(2).flatten(0, 1) for each in seen]))

    def _heads(self, rows: Tensor, group: tuple[int, int]) -> Tensor:
        """(count, heads, length, head width) of `rows` (count * length, width)."""
        return rows.unflatten(0, group).unflatten(2, (self.heads, -1)).transpose(1, 2)


class _Quantizer(nn.Module):
    def __init__(self, config: SemanticConfig) -> None:
        super().__init__()
        self._codebook = _Codebook(config)


class _Codebook(nn.Module):
    embed: Tensor

    def __init__(self, config: SemanticConfig) -> None:
        super().__init__()
        self.register_buffer("embed", empty(config.n_codebook_size, config.n_audio_state))
