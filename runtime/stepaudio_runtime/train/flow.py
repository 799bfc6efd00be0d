"""Stage `flow`: audio codes to mel by conditional flow matching, on stretches of the teacher's speech.

The utterances of a voice are laid end to end, in whole rounds of codes, and stretches are cut from that. The
first part of a stretch is the prompt, as a voice's recording is when the flow is used; sometimes there is
none. One condition in five is dropped whole, for the guidance.

Beside the velocity, the encoder's answer itself is drawn to the mel: it learns within minutes what to say,
and the solver starts from there.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from stepaudio_runtime.audio.mel import PROMPT_HOP, prompt_mel
from stepaudio_runtime.codec.layout import CODE_RATE, MEL_HOP, MEL_RATE, RUN, mel_frames
from stepaudio_runtime.models.flow import Flow, FlowConfig, FlowItem
from stepaudio_runtime.train.loop import Losses, Plan, step_random

BATCH, ROUNDS = 8, 20  # stretches of a batch, rounds of codes of a stretch: 2.4 s
PLAN = Plan(steps=2500, rate=1e-3, warmup=150, bfloat16=True)
CFG_DROPOUT = 0.2
_NO_PROMPT = 0.3  # of the batches
_PROMPT_ROUNDS = (3, 14)
_DRAWN = 0.5  # weight of the encoder's own distance
_MEAN_MEL = -6.0
FRAMES_PER_ROUND = float(RUN / CODE_RATE * MEL_RATE / MEL_HOP)


@dataclass(frozen=True, eq=False)
class VoiceTape:
    """All speech of one voice: codes (5 n), mel (80, frames) in step with them, embeddings (m, 192)."""

    codes: NDArray[np.int64]
    mel: NDArray[np.float32]
    embeddings: NDArray[np.float32]


def tape(
    codes: list[list[int]], waves: list[NDArray[np.float32]], embeddings: NDArray[np.float32]
) -> VoiceTape:
    """One voice's utterances end to end; each is cut to its whole rounds, its wave to just as long."""
    samples_per_round = MEL_RATE * RUN / CODE_RATE
    kept = []
    for each, wave in zip(codes, waves, strict=True):
        samples = round(float(len(each) // RUN * samples_per_round))
        # Codes may say a little more than there was: left out, all that follows would come too early.
        kept.append(np.pad(wave[:samples], (0, max(0, samples - len(wave)))))
    wave = np.concatenate(kept)
    frames = len(wave) // PROMPT_HOP
    return VoiceTape(
        codes=np.concatenate([np.asarray(each[: len(each) // RUN * RUN], np.int64) for each in codes]),
        mel=prompt_mel(wave)[:, :frames],
        embeddings=embeddings,
    )


class FlowStage:
    """The flow and its stretches of `tapes`, one a voice."""

    def __init__(self, config: FlowConfig, tapes: list[VoiceTape], seed: int) -> None:
        torch.manual_seed(seed)
        self.module = Flow(config)
        self._seed = seed
        self._tapes = tapes
        with torch.no_grad():
            # A log mel lies around -6: found by the first layers it would cost a thousand steps.
            self.module.decoder.estimator.final_proj.bias.fill_(_MEAN_MEL)
            last = self.module.length_regulator.model[-1]
            last.bias.fill_(_MEAN_MEL)

    def loss(self, step: int, part: int) -> Losses:
        """One batch: velocity of the parts after the prompts, and the encoder's distance."""
        random = step_random(self._seed, step, part)
        rounds = 0 if random.random() < _NO_PROMPT else int(random.integers(*_PROMPT_ROUNDS))
        codes, mel, embedding = self._stretches(random)
        split, rate = rounds * RUN, self.module.config.input_frame_rate
        prompt_frames = mel_frames(split, rate)
        frames = prompt_frames + mel_frames(codes.shape[1] - split, rate)
        mel = mel[:, :, :frames]
        condition = self.module.prepare(
            [
                FlowItem(code[split:], code[:split], spoken[:, :prompt_frames].T, speaker)
                for code, spoken, speaker in zip(codes, mel, embedding, strict=True)
            ]
        )
        kept = torch.from_numpy((random.random(len(mel)) >= CFG_DROPOUT).astype(np.float32))
        time = 1 - torch.cos(torch.from_numpy(random.random(len(mel)).astype(np.float32)) * 0.5 * math.pi)
        noise = torch.randn_like(mel)
        mixed = time[:, None, None] * mel + (1 - time)[:, None, None] * noise
        velocity = self.module.decoder.estimator(
            mixed,
            condition.mu * kept[:, None, None],
            time,
            condition.spks * kept[:, None],
            condition.cond * kept[:, None, None],
        )
        wanted = mel - noise
        matched = F.mse_loss(velocity[:, :, prompt_frames:], wanted[:, :, prompt_frames:])
        drawn = F.l1_loss(condition.mu, mel)
        return {"total": matched + _DRAWN * drawn, "velocity": matched, "encoder": drawn}

    def _stretches(self, random: np.random.Generator) -> tuple[Tensor, Tensor, Tensor]:
        codes, mels, embeddings = [], [], []
        wanted = math.ceil(ROUNDS * FRAMES_PER_ROUND)
        for number in random.integers(len(self._tapes), size=BATCH):
            held = self._tapes[number]
            start = int(random.integers(len(held.codes) // RUN - ROUNDS - 1))
            frame = round(start * FRAMES_PER_ROUND)
            codes.append(held.codes[start * RUN : (start + ROUNDS) * RUN])
            mels.append(held.mel[:, frame : frame + wanted])
            embeddings.append(held.embeddings[random.integers(len(held.embeddings))])
        code, mel, embedding = (torch.from_numpy(np.stack(part)) for part in (codes, mels, embeddings))
        return code, mel, embedding
