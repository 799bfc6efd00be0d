"""Stage `vocoder`: HiFT by spectral losses on short crops, and its pitch predictor on the teacher's pitch.

The source is made from the teacher's pitch, so the filter learns from the first step on; the predictor learns
beside it and takes over when the vocoder is used. No adversary: a formant synthesiser's voice has little that
spectra do not show.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from stepaudio_runtime.audio.mel import PROMPT_HOP, prompt_mel
from stepaudio_runtime.contract import SPEECH_RATE
from stepaudio_runtime.models.hift import Hift, HiftConfig
from stepaudio_runtime.models.hift_source import SourceNoise
from stepaudio_runtime.train.corpus import Utterance, speech
from stepaudio_runtime.train.loop import Losses, Plan, step_random
from stepaudio_runtime.train.pitch import pitch
from stepaudio_runtime.train.spectral import mel_distance, stft_distance

CROPS, FRAMES = 6, 40  # of a batch; mel frames of a crop: 0.46 s
PLAN = Plan(steps=4000, rate=1.2e-3, warmup=100)
_PITCH_SCALE = 100.0  # Hz: pitch errors weigh like spectral ones


class VocoderStage:
    """The vocoder and its crops."""

    def __init__(self, config: HiftConfig, utterances: list[Utterance], seed: int) -> None:
        torch.manual_seed(seed)
        self.module = Hift(config)
        self._seed = seed
        self._waves: list[NDArray[np.float32]] = []
        self._mels: list[NDArray[np.float32]] = []
        self._pitches: list[NDArray[np.float32]] = []
        for utterance in utterances:
            wave = speech(utterance)
            frames = len(wave) // PROMPT_HOP
            if frames <= FRAMES:
                continue
            wave = wave[: frames * PROMPT_HOP]
            self._waves.append(wave)
            self._mels.append(prompt_mel(wave)[:, :frames])
            self._pitches.append(pitch(wave, SPEECH_RATE)[:frames])
        with torch.no_grad():
            start_near_speech(self.module)

    def loss(self, step: int, part: int) -> Losses:
        """One batch of crops."""
        random = step_random(self._seed, step, part)
        mel, f0, wave = self._batch(random)
        hift, config = self.module, self.module.config
        harmonics, samples = config.nb_harmonics + 1, wave.shape[1]
        noise = SourceNoise(
            torch.rand(len(wave), harmonics, 1) * 2 * math.pi, torch.randn(len(wave), harmonics, samples)
        )
        got = hift.decode(mel, hift.m_source(hift.upsampled(f0), noise))
        spectra, mels = stft_distance(got, wave), mel_distance(got, wave)
        pitches = F.l1_loss(hift.f0_predictor(mel), f0) / _PITCH_SCALE
        return {"total": spectra + mels + pitches, "stft": spectra, "mel": mels, "pitch": pitches}

    def _batch(self, random: np.random.Generator) -> tuple[Tensor, Tensor, Tensor]:
        mels, pitches, waves = [], [], []
        for i in random.integers(len(self._waves), size=CROPS):
            start = int(random.integers(len(self._pitches[i]) - FRAMES))
            crop = slice(start, start + FRAMES)
            mels.append(self._mels[i][:, crop])
            pitches.append(self._pitches[i][crop])
            waves.append(self._waves[i][start * PROMPT_HOP : (start + FRAMES) * PROMPT_HOP])
        mel, f0, wave = (torch.from_numpy(np.stack(part)) for part in (mels, pitches, waves))
        return mel, f0, wave


def start_near_speech(hift: Hift) -> None:
    """A quiet spectrum and a pitch in a speaker's range; default weights would start at a roar at 0 Hz."""
    bins = hift.config.n_fft // 2 + 1
    torch.nn.init.constant_(hift.get_parameter("conv_post.bias")[:bins], -4.0)
    hift.f0_predictor.classifier.weight *= 30.0
    hift.f0_predictor.classifier.bias.fill_(_PITCH_SCALE)
