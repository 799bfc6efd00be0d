"""Stage `linguistic`: the SANM encoder by CTC on the letters, then k-means of its rows.

Beside the letters the rows learn to give back their own features, weakly: it makes neighbouring sounds
neighbours, where CTC alone would leave most frames blank.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from stepaudio_runtime.audio.frontend import FEATURES, Cmvn, OnlineFrontend
from stepaudio_runtime.models.sanm import SanmConfig, SanmModel
from stepaudio_runtime.train.codebook import kmeans
from stepaudio_runtime.train.corpus import BLANK, LETTERS, Utterance, letters, speech_16k
from stepaudio_runtime.train.loop import Losses, Plan, step_random

BATCH = 12  # utterances
PLAN = Plan(steps=1200, rate=1.5e-3, warmup=100)
CODES_USED = 256
_GIVE_BACK = 0.5  # weight of the features' part
_SMALLEST_DEVIATION = 0.1


class _Listener(nn.Module):
    def __init__(self, config: SanmConfig) -> None:
        super().__init__()
        self.sanm = SanmModel(config)
        self.letters = nn.Linear(config.output_size, len(LETTERS) + 1)
        self.features = nn.Linear(config.output_size, FEATURES)


class LinguisticStage:
    """The encoder, the statistics of its features, and its batches."""

    def __init__(self, config: SanmConfig, utterances: list[Utterance], seed: int) -> None:
        torch.manual_seed(seed)
        self.module = _Listener(config)
        self._seed = seed
        raw = [raw_features(speech_16k(utterance)) for utterance in utterances]
        self.cmvn = statistics(raw)
        self._features = [torch.from_numpy(self.cmvn.apply(features)) for features in raw]
        self._letters = [torch.tensor(letters(utterance.text)) for utterance in utterances]

    def loss(self, step: int, part: int) -> Losses:
        """One batch, an utterance at a time: the encoder's windows are its batch."""
        chosen = step_random(self._seed, step, part).integers(len(self._features), size=BATCH)
        spelt, given_back = [], []
        for i in chosen:
            rows = self.module.sanm.encode(self._features[i])
            spelt.append(ctc(self.module.letters(rows), self._letters[i]))
            given_back.append(F.mse_loss(self.module.features(rows), self._features[i]))
        letter, feature = torch.stack(spelt).mean(), torch.stack(given_back).mean()
        return {"total": letter + _GIVE_BACK * feature, "letters": letter, "features": feature}

    def centroids(self, rows_at_most: int = 40_000) -> Tensor:
        """The code book of the trained encoder, (CODES_USED, output_size)."""
        rows: list[Tensor] = []
        with torch.inference_mode():
            for features in self._features:
                rows.append(self.module.sanm.encode(features))
                if sum(map(len, rows)) > rows_at_most:
                    break
        return kmeans(torch.cat(rows), CODES_USED, self._seed)


def ctc(logits: Tensor, wanted: Tensor) -> Tensor:
    """CTC loss a letter of `logits` (n, letters + 1); 0 where n frames cannot spell it."""
    return F.ctc_loss(
        logits.log_softmax(-1)[:, None],
        wanted[None],
        torch.tensor([len(logits)]),
        torch.tensor([len(wanted)]),
        blank=BLANK,
        reduction="sum",
        zero_infinity=True,
    ) / max(1, len(wanted))


def raw_features(wave: NDArray[np.float32]) -> NDArray[np.float32]:
    """Features (n, 560) of a whole wave at 16 kHz before normalisation, cut as the tokenizer cuts them."""
    nothing = Cmvn(np.zeros(FEATURES, np.float32), np.ones(FEATURES, np.float32))
    return OnlineFrontend(nothing).push(wave, last=True)


def statistics(features: list[NDArray[np.float32]]) -> Cmvn:
    """What brings `features` to mean 0 and deviation 1."""
    together = np.concatenate(features)
    deviation = np.maximum(together.std(axis=0), _SMALLEST_DEVIATION)
    return Cmvn(-together.mean(axis=0), (1 / deviation).astype(np.float32))
