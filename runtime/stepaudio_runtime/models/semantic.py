"""The semantic tokenizer: a Whisper-like encoder of log-mels and a code book of its normalised rows.

Both convolutions halve the frame rate: 100 mel frames a second become 25 ids. Modules carry the checkpoint's
names: `encoder.conv1…`, `encoder.blocks.#.attn.query…`, `quantizer._codebook.embed`.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor, empty, nn

from stepaudio_runtime.models.nearest import nearest


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


class SemanticModel(nn.Module):
    """Log-mels to hidden rows (`forward`) and to ids (`quantise`)."""

    def __init__(self, config: SemanticConfig) -> None:
        super().__init__()
        self.config = config
        self.encoder = _Encoder(config)
        self.quantizer = _Quantizer(config)

    def forward(self, mel: Tensor) -> Tensor:
        """Hidden rows (B, semantic_length(T), n_audio_state) of `mel` (B, n_mels, T).

        Raises ValueError when the mel is longer than the positions reach.
        """
        return self.encoder(mel)

    def quantise(self, hidden: Tensor) -> tuple[Tensor, Tensor]:
        """Ids (n,) of `hidden` (n, n_audio_state) and the two smallest squared distances (n, 2)."""
        return nearest(F.normalize(hidden.double(), dim=-1), self.quantizer._codebook.embed)


class _Encoder(nn.Module):
    def __init__(self, config: SemanticConfig) -> None:
        super().__init__()
        width = config.n_audio_state
        self.conv1 = nn.Conv1d(config.n_mels, width, 3, stride=2, padding=1)
        self.conv2 = nn.Conv1d(width, width, 3, stride=2, padding=1)
        self.positional_embedding = nn.Parameter(empty(config.n_audio_ctx, width))
        self.blocks = nn.ModuleList([_Block(width, config.n_audio_head) for _ in range(config.n_audio_layer)])

    def forward(self, mel: Tensor) -> Tensor:
        x = F.gelu(self.conv1(mel))
        x = F.gelu(self.conv2(x)).transpose(1, 2)
        if x.shape[1] > len(self.positional_embedding):
            raise ValueError(f"{mel.shape[2]} mel frames are more than the model has positions for")
        x = x + self.positional_embedding[: x.shape[1]]
        for block in self.blocks:
            x = block(x)
        return x


class _Block(nn.Module):
    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.attn = _Attention(width, heads)
        self.attn_ln = nn.LayerNorm(width, eps=1e-5)
        self.mlp = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))
        self.mlp_ln = nn.LayerNorm(width, eps=1e-5)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attn(self.attn_ln(x))
        return x + self.mlp(self.mlp_ln(x))


class _Attention(nn.Module):
    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.query = nn.Linear(width, width)
        self.key = nn.Linear(width, width, bias=False)
        self.value = nn.Linear(width, width)
        self.out = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = (
            part(x).unflatten(2, (self.heads, -1)).transpose(1, 2)
            for part in (self.query, self.key, self.value)
        )
        return self.out(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))


class _Quantizer(nn.Module):
    def __init__(self, config: SemanticConfig) -> None:
        super().__init__()
        self._codebook = _Codebook(config)


class _Codebook(nn.Module):
    embed: Tensor

    def __init__(self, config: SemanticConfig) -> None:
        super().__init__()
        self.register_buffer("embed", empty(config.n_codebook_size, config.n_audio_state))
