"""Linguistic ids, 16 2/3 a second: front-end, SANM encoder, nearest centroid; whole waves and streams.

A stream's state is handed in and out, so the model is read only and streams need no lock.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from stepaudio_runtime.audio.frontend import SAMPLES_PER_FEATURE, Cmvn, OnlineFrontend
from stepaudio_runtime.models.nearest import CodeBook
from stepaudio_runtime.models.sanm import SanmModel, SanmState
from stepaudio_runtime.tokenizer.ids import Ids

Features = NDArray[np.float32]


class LinguisticTokenizer:
    """Encoder, normalisation and centroids (K, output_size). Waves are mono at 16 kHz."""

    def __init__(self, model: SanmModel, cmvn: Cmvn, centroids: Tensor) -> None:
        self.model = model.eval()
        self.cmvn = cmvn
        self._book = CodeBook(centroids.to(model.encoder.after_norm.weight.device))

    def frontend(self) -> OnlineFrontend:
        """The front-end of a new stream; it gives features in whole windows but for the stream's last."""
        return OnlineFrontend(self.cmvn, self.model.config.chunk * SAMPLES_PER_FEATURE)

    def features(self, wave: NDArray[np.float32]) -> Features:
        """Features (n, 560) of a whole `wave` (N,): one per 960 samples, none below 880."""
        return self.frontend().push(wave, last=True)

    @torch.inference_mode()
    def batch(self, stretches: Sequence[tuple[Features, SanmState]]) -> list[tuple[Ids, SanmState]]:
        """Ids of the next features of several streams, one each, and the streams' states after them."""
        device = self._book.device
        found = self.model.batch([(torch.from_numpy(x).to(device), state) for x, state in stretches])
        ids, squared = self._book.nearest(torch.cat([rows for rows, _ in found]))
        distance = squared.sqrt()
        margin = (distance[:, 1] - distance[:, 0]).float()
        sizes = [len(rows) for rows, _ in found]
        parts = zip(ids.cpu().split(sizes), margin.cpu().split(sizes), found, strict=True)
        return [(Ids(some.numpy(), by.numpy()), state) for some, by, (_, state) in parts]
