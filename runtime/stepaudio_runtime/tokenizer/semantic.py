"""Semantic ids, 25 a second: log-mel, encoder, nearest code; waves in pieces of at most 30 s.

The log-mel is raised to its own maximum, and every row attends to all others: a piece stands alone, so a
stream cannot give the ids of the whole wave. It is tokenised in windows of declared length (`windows.py`).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from stepaudio_runtime.audio.mel import WHISPER_RATE, whisper_mel
from stepaudio_runtime.models.nearest import CodeBook
from stepaudio_runtime.models.semantic import SemanticModel
from stepaudio_runtime.tokenizer.ids import Ids

PIECE_SAMPLES = 30 * WHISPER_RATE
MIN_PIECE_SAMPLES = 480
"""A last piece below 30 ms is dropped, as is a whole wave."""


class SemanticTokenizer:
    """Waves are mono at 16 kHz."""

    def __init__(self, model: SemanticModel) -> None:
        self.model = model.eval()
        self._book = CodeBook(model.code_vectors)

    @torch.inference_mode()
    def batch(self, pieces: Sequence[NDArray[np.float32]]) -> list[Ids]:
        """Ids of each of the `pieces` (N,), all of 480 to 480,000 samples."""
        device = self._book.device
        hidden = self.model([torch.from_numpy(whisper_mel(piece)).to(device) for piece in pieces])
        ids, squared = self.quantise(torch.cat(hidden))
        margin = (squared[:, 1] - squared[:, 0]).float()
        sizes = [len(rows) for rows in hidden]
        parts = zip(ids.cpu().split(sizes), margin.cpu().split(sizes), strict=True)
        return [Ids(some.numpy(), by.numpy()) for some, by in parts]

    def quantise(self, hidden: Tensor) -> tuple[Tensor, Tensor]:
        """Ids (n,) of `hidden` (n, n_audio_state) and the two smallest squared distances (n, 2)."""
        return self._book.nearest(F.normalize(hidden.double(), dim=-1))
