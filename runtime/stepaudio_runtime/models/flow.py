"""The flow: audio ids, a prompt and a speaker -> mel, by conditional flow matching.

    ids ──embedding──conformer──projection──length regulator──► mu ─┐
    speaker embedding ──normalise──affine──► spks ──────────────────┼─► Euler, 10 steps ──► mel
    prompt mel, then zeros ──► cond ────────────────────────────────┘

`Flow.prepare` computes everything left of the solver; `ConditionalCFM.steps` is the solver, one yield a step,
so that a caller can stop between two steps. No randomness in here: the start noise is an argument
(`noise_at` draws it).
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from stepaudio_runtime.errors import InputError
from stepaudio_runtime.models.conformer import ConformerConfig, ConformerEncoder
from stepaudio_runtime.models.estimator import ConditionalDecoder, EstimatorConfig
from stepaudio_runtime.models.length_regulator import InterpolateRegulator, mel_frames
from stepaudio_runtime.models.noise import normal_at

NOISE_BLOCK = 64  # frames whose start noise is drawn at once


@dataclass(frozen=True)
class FlowConfig:
    """Sizes and rates of the flow; the defaults are those of the published checkpoint."""

    input_size: int = 512
    output_size: int = 80  # mel bins
    spk_embed_dim: int = 192
    vocab_size: int = 5121
    input_frame_rate: float = 41.67  # ids a second of the interleaved stream
    regulator_stages: int = 4
    inference_cfg_rate: float = 0.7
    encoder: ConformerConfig = field(default_factory=ConformerConfig)
    estimator: EstimatorConfig = field(default_factory=EstimatorConfig)


@dataclass(frozen=True)
class FlowCondition:
    """What the solver is conditioned on: `mu`, `cond` (1, 80, T), `spks` (1, 80); T counts the prompt too."""

    mu: Tensor
    spks: Tensor
    cond: Tensor
    prompt_frames: int

    @property
    def frames(self) -> int:
        """Frames to solve for, the prompt's included."""
        return self.mu.shape[2]


@dataclass(frozen=True)
class EulerStep:
    """One step of the solver: the state `x` at time `t`, the two answers there, and the state after it."""

    t: Tensor
    x: Tensor
    v_cond: Tensor
    v_uncond: Tensor
    x_next: Tensor


def cosine_times(steps: int) -> Tensor:
    """The steps + 1 times of the solver, 0 to 1, dense near 0: 1 - cos(k/steps · π/2), float32."""
    return 1 - torch.cos(torch.linspace(0, 1, steps + 1) * 0.5 * math.pi)


def noise_at(config: FlowConfig, seed: int, start: int, stop: int, device: torch.device) -> Tensor:
    """The start noise (1, 80, stop - start) of an utterance's frames; its prompt's have negative numbers."""
    return normal_at(
        seed, "flow", start, stop, channels=config.output_size, block=NOISE_BLOCK, device=device
    )[None]


class ConditionalCFM(nn.Module):
    """Flow matching with classifier-free guidance; holds the estimator under the checkpoint's name."""

    def __init__(self, config: FlowConfig) -> None:
        super().__init__()
        self.estimator = ConditionalDecoder(config.estimator)
        self._guidance = config.inference_cfg_rate

    def steps(self, noise: Tensor, condition: FlowCondition, steps: int = 10) -> Iterator[EulerStep]:
        """Integrates from `noise` (1, 80, T); the last step's `x_next` is the answer.

        The estimator runs on a batch of two: with the condition, and with all of it zero.
        """
        times = cosine_times(steps).to(noise)
        both = (2, *[-1] * (noise.dim() - 1))
        mu, spks, cond = (
            torch.cat((part, torch.zeros_like(part)))
            for part in (condition.mu, condition.spks, condition.cond)
        )
        x = noise
        for now, then in pairwise(times):
            v_cond, v_uncond = self.estimator(x.expand(*both), mu, now.expand(2), spks, cond).chunk(2)
            velocity = (1 + self._guidance) * v_cond - self._guidance * v_uncond
            x_next = x + (then - now) * velocity
            yield EulerStep(now, x, v_cond, v_uncond, x_next)
            x = x_next


class Flow(nn.Module):
    """Audio ids -> mel (1, 80, frames); one utterance at a time. Inputs live on the module's device."""

    def __init__(self, config: FlowConfig) -> None:
        super().__init__()
        self.config = config
        mel = config.output_size
        self.input_embedding = nn.Embedding(config.vocab_size, config.input_size)
        self.spk_embed_affine_layer = nn.Linear(config.spk_embed_dim, mel)
        self.encoder = ConformerEncoder(config.input_size, config.encoder)
        self.encoder_proj = nn.Linear(config.encoder.output_size, mel)
        self.length_regulator = InterpolateRegulator(mel, config.regulator_stages)
        self.decoder = ConditionalCFM(config)

    def frames(self, ids: int, prompt_frames: int = 0) -> int:
        """Frames that the start noise must have: those of the prompt's mel and those of `ids` ids."""
        return prompt_frames + mel_frames(ids, self.config.input_frame_rate)

    def prepare(
        self,
        ids: Tensor,
        prompt_ids: Tensor,
        prompt_mel: Tensor,
        embedding: Tensor,
        *,
        frames: int | None = None,
        made: Tensor | None = None,
    ) -> FlowCondition:
        """Everything but the solver.

        `ids` and `prompt_ids` (1, n) int64 in 0..vocab_size-1, `prompt_mel` (1, frames, 80), `embedding`
        (1, spk_embed_dim). The prompt's ids and mel come together or not at all. In a stream, `frames` are
        those of `ids` (their number depends on where they stand), and `made` (1, 80, n) is the mel of the
        first n of them, which is known already. Raises InputError.
        """
        self._check(ids, prompt_ids, prompt_mel)
        spks = self.spk_embed_affine_layer(F.normalize(embedding, dim=1))
        encoded = self.encoder_proj(self.encoder(self.input_embedding(torch.cat((prompt_ids, ids), dim=1))))
        split, prompt_frames = prompt_ids.shape[1], prompt_mel.shape[1]
        new_frames = mel_frames(ids.shape[1], self.config.input_frame_rate) if frames is None else frames
        mu = self.length_regulator(encoded[:, :split], encoded[:, split:], prompt_frames, new_frames)
        mu = mu.transpose(1, 2).contiguous()
        cond = torch.zeros_like(mu)
        cond[:, :, :prompt_frames] = prompt_mel.transpose(1, 2)
        if made is not None:
            cond[:, :, prompt_frames : prompt_frames + made.shape[2]] = made
        return FlowCondition(mu=mu, spks=spks, cond=cond, prompt_frames=prompt_frames)

    def forward(  # noqa: PLR0917 - tensors in the order of `prepare`
        self,
        ids: Tensor,
        prompt_ids: Tensor,
        prompt_mel: Tensor,
        embedding: Tensor,
        noise: Tensor,
        steps: int = 10,
    ) -> Tensor:
        """Arguments as `prepare`, and `noise` (1, 80, `self.frames(...)`) -> mel (1, 80, frames of `ids`)."""
        condition = self.prepare(ids, prompt_ids, prompt_mel, embedding)
        if noise.shape != condition.mu.shape:
            raise ValueError(f"noise has shape {tuple(noise.shape)}, not {tuple(condition.mu.shape)}")
        x = noise
        for step in self.decoder.steps(noise, condition, steps):
            x = step.x_next
        return x[:, :, condition.prompt_frames :]

    def _check(self, ids: Tensor, prompt_ids: Tensor, prompt_mel: Tensor) -> None:
        for name, part in (("codes", ids), ("prompt codes", prompt_ids)):
            # A text id (negative here) would silently become code 0, one above would read past the table.
            wrong = part[(part < 0) | (part >= self.config.vocab_size)]
            if wrong.numel():
                raise InputError(
                    f"{name} hold {int(wrong[0])}, which is not in 0..{self.config.vocab_size - 1}",
                    param="codes",
                    code="invalid_codes",
                )
        if mel_frames(ids.shape[1], self.config.input_frame_rate) < 1:
            raise InputError("no audio codes to speak", param="codes", code="empty_codes")
        if (prompt_ids.shape[1] == 0) != (prompt_mel.shape[1] == 0):
            raise InputError(
                "a voice prompt needs both its codes and its mel", param="voice", code="invalid_voice"
            )
