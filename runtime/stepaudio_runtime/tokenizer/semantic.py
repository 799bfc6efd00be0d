"""Semantic ids, 25 a second: log-mel, encoder, nearest code; long waves in pieces of 30 s.

The log-mel is raised to its own maximum, so every piece stands alone and a stream cannot give the same ids.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

from stepaudio_runtime.audio.mel import WHISPER_RATE, whisper_mel
from stepaudio_runtime.models.semantic import SemanticModel
from stepaudio_runtime.tokenizer.ids import Ids, joined

PIECE_SAMPLES = 30 * WHISPER_RATE
MIN_PIECE_SAMPLES = 480
"""A last piece below 30 ms is dropped, as is a whole wave."""


class SemanticTokenizer:
    """Waves are mono at 16 kHz."""

    def __init__(self, model: SemanticModel) -> None:
        self.model = model.eval()

    def encode(self, wave: NDArray[np.float32]) -> Ids:
        """Ids of a whole `wave` (N,); none below 480 samples."""
        pieces = [wave[start : start + PIECE_SAMPLES] for start in range(0, len(wave), PIECE_SAMPLES)]
        return joined([self._piece(piece) for piece in pieces if len(piece) >= MIN_PIECE_SAMPLES])

    def _piece(self, wave: NDArray[np.float32]) -> Ids:
        device = self.model.encoder.positional_embedding.device
        mel = torch.from_numpy(whisper_mel(wave)).to(device)
        with torch.inference_mode():
            ids, squared = self.model.quantise(self.model(mel[None])[0])
        margin = (squared[:, 1] - squared[:, 0]).float()
        return Ids(ids.cpu().numpy(), margin.cpu().numpy())
