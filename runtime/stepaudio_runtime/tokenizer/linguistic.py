"""Linguistic ids, 16 2/3 a second: front-end, SANM encoder, nearest centroid; a whole wave or a stream.

A stream's state lives in its session, so sessions need no lock: the model is read only.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from stepaudio_runtime.audio.frontend import SAMPLES_PER_FEATURE, Cmvn, OnlineFrontend
from stepaudio_runtime.models.nearest import nearest
from stepaudio_runtime.models.sanm import SanmModel
from stepaudio_runtime.tokenizer.ids import Ids


class LinguisticTokenizer:
    """Encoder, normalisation and centroids (K, output_size). Waves are mono at 16 kHz."""

    def __init__(self, model: SanmModel, cmvn: Cmvn, centroids: Tensor) -> None:
        self.model = model.eval()
        self.cmvn = cmvn
        self.centroids = centroids.to(model.encoder.after_norm.weight.device)

    def encode(self, wave: NDArray[np.float32]) -> Ids:
        """Ids of a whole `wave` (N,): one per 960 samples, none below 880."""
        return self.session().push(wave, last=True)

    def session(self) -> LinguisticSession:
        """A new stream."""
        return LinguisticSession(self)


class LinguisticSession:
    """One stream: the ids of its pushes, joined, are those of the whole wave, however it was cut."""

    def __init__(self, tokenizer: LinguisticTokenizer) -> None:
        self._tokenizer = tokenizer
        piece = tokenizer.model.config.chunk * SAMPLES_PER_FEATURE
        self._frontend = OnlineFrontend(tokenizer.cmvn, piece)
        self._state = tokenizer.model.start()

    def push(self, wave: NDArray[np.float32], *, last: bool) -> Ids:
        """Ids that `wave` (N,), after what was pushed before, makes certain. ValueError after the last."""
        features = torch.from_numpy(self._frontend.push(wave, last=last)).to(self._tokenizer.centroids.device)
        with torch.inference_mode():
            rows, self._state = self._tokenizer.model(features, self._state)
            ids, squared = nearest(rows, self._tokenizer.centroids)
            distance = squared.sqrt()
        margin = (distance[:, 1] - distance[:, 0]).float()
        return Ids(ids.cpu().numpy(), margin.cpu().numpy())
