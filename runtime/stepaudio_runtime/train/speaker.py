"""Stage `speaker`: a small network in CAM++'s place, trained to tell voices apart.

Filter bank frames through one hidden layer, their mean over time, and a linear layer to 192 values; a
classifier over the teacher's voices sits on top while training. It knows these voices and says little about
others.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from stepaudio_runtime.audio.fbank import BANDS, speaker_features
from stepaudio_runtime.audio.resample import resample
from stepaudio_runtime.checkpoints import nano_trained as stored
from stepaudio_runtime.contract import SPEECH_RATE
from stepaudio_runtime.train.corpus import TOKENIZER_RATE, Utterance, speech, voices
from stepaudio_runtime.train.loop import Losses, Plan, step_random

EMBEDDING = 192
BATCH, FRAMES = 32, 80  # stretches of 0.8 s
PLAN = Plan(steps=300, rate=2e-3, warmup=30)
_SHARPNESS = 10.0  # of the cosines


class SpeakerNet(nn.Module):
    """(B, F, 80) -> (B, 192)."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(BANDS, EMBEDDING)
        self.second = nn.Linear(EMBEDDING, EMBEDDING, bias=False)

    def forward(self, features: Tensor) -> Tensor:
        """Mean-free filter bank frames to an embedding, whatever their number."""
        out: Tensor = self.second(torch.tanh(self.first(features)).mean(dim=1))
        return out


class Embedder:
    """The trained network on waves at 16 kHz, as the runtime's CAM++ is used."""

    def __init__(self, weights: Path) -> None:
        held, _ = stored.read_stage(weights)
        self._net = SpeakerNet()
        self._net.load_state_dict(
            {
                "first.weight": held["first.weight"].T,
                "first.bias": held["first.bias"],
                "second.weight": held["second.weight"].T,
            }
        )

    @torch.inference_mode()
    def __call__(self, wave: NDArray[np.float32]) -> NDArray[np.float32]:
        """Wave (N,) -> embedding (192,)."""
        embedding: NDArray[np.float32] = self._net(torch.from_numpy(speaker_features(wave))[None])[0].numpy()
        return embedding


class _WithClasses(nn.Module):
    def __init__(self, classes: int) -> None:
        super().__init__()
        self.net = SpeakerNet()
        self.classes = nn.Parameter(torch.randn(classes, EMBEDDING))


class SpeakerStage:
    """The network and stretches of every voice."""

    def __init__(self, utterances: list[Utterance], seed: int) -> None:
        torch.manual_seed(seed)
        names = voices(utterances)
        self.module = _WithClasses(len(names))
        self._seed = seed
        self._features = [
            speaker_features(resample(speech(utterance), SPEECH_RATE, TOKENIZER_RATE))
            for utterance in utterances
        ]
        self._voices = np.array([names.index(utterance.voice) for utterance in utterances])

    def loss(self, step: int, part: int) -> Losses:
        """Cross-entropy over the voices, by the cosine to each one's direction."""
        random = step_random(self._seed, step, part)
        chosen = random.integers(len(self._features), size=BATCH)
        stretches = []
        for i in chosen:
            features = self._features[i]
            start = int(random.integers(max(1, len(features) - FRAMES)))
            stretch = features[start : start + FRAMES]
            stretches.append(np.pad(stretch, ((0, FRAMES - len(stretch)), (0, 0))))
        embedding = self.module.net(torch.from_numpy(np.stack(stretches)))
        cosines = F.normalize(embedding, dim=1) @ F.normalize(self.module.classes, dim=1).T
        return {"total": F.cross_entropy(_SHARPNESS * cosines, torch.from_numpy(self._voices[chosen]))}
