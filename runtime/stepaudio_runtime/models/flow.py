"""The flow: audio ids, a prompt and a speaker -> mel, by conditional flow matching.

    ids ──embedding──conformer──projection──length regulator──► mu ─┐
    speaker embedding ──normalise──affine──► spks ──────────────────┼─► Euler, 10 steps ──► mel
    prompt mel, then zeros ──► cond ────────────────────────────────┘

`Flow.prepare` computes everything left of the solver; `ConditionalCFM.steps` is the solver, one yield a step,
so that a caller can stop between two steps; `Flow.solve` is both, and leaves out between two steps whatever
nobody waits for any more. No randomness in here: the start noise is
an argument (`noise_at` draws it).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from stepaudio_runtime.codec.layout import mel_frames
from stepaudio_runtime.errors import InputError
from stepaudio_runtime.models.conformer import ConformerConfig, ConformerEncoder, keys_beyond
from stepaudio_runtime.models.estimator import ConditionalDecoder, EstimatorConfig
from stepaudio_runtime.models.flow_graphs import FlowGraphs
from stepaudio_runtime.models.kernels import Linear
from stepaudio_runtime.models.length_regulator import InterpolateRegulator, stretch
from stepaudio_runtime.models.lengths import stacked
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


@dataclass(frozen=True, eq=False)
class FlowItem:
    """One utterance, or a piece of one in a stream.

    `ids` and `prompt_ids` (n) int64 in 0..vocab_size-1, `prompt_mel` (frames, 80), `embedding`
    (spk_embed_dim). The prompt's ids and mel come together or not at all. In a stream, `frames` are those of
    `ids` (their number depends on where the piece stands), and `made` (80, n) is the mel of the first n of
    them, known already.
    """

    ids: Tensor
    prompt_ids: Tensor
    prompt_mel: Tensor
    embedding: Tensor
    frames: int | None = None
    made: Tensor | None = None


@dataclass(frozen=True, eq=False)
class FlowCondition:
    """What the solver is conditioned on: `mu`, `cond` (B, 80, T), `spks` (B, 80).

    `frames` are those of each element, its prompt's `prompt_frames` included; T is the largest of them.
    """

    mu: Tensor
    spks: Tensor
    cond: Tensor
    frames: tuple[int, ...]
    prompt_frames: tuple[int, ...]

    def only(self, elements: Sequence[int]) -> FlowCondition:
        """Of some elements, no longer than the longest of them."""
        frames = tuple(self.frames[i] for i in elements)
        some, longest = list(elements), max(frames)
        return FlowCondition(
            mu=self.mu[some, :, :longest],
            spks=self.spks[some],
            cond=self.cond[some, :, :longest],
            frames=frames,
            prompt_frames=tuple(self.prompt_frames[i] for i in elements),
        )


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
    """The start noise (80, stop - start) of an utterance's frames; its prompt's have negative numbers."""
    return normal_at(seed, "flow", start, stop, channels=config.output_size, block=NOISE_BLOCK, device=device)


class ConditionalCFM(nn.Module):
    """Flow matching with classifier-free guidance; holds the estimator under the checkpoint's name."""

    def __init__(self, config: FlowConfig) -> None:
        super().__init__()
        self.estimator = ConditionalDecoder(config.estimator)
        self._guidance = config.inference_cfg_rate

    def steps(
        self,
        noise: Tensor,
        condition: FlowCondition,
        steps: int = 10,
        *,
        done: int = 0,
        graphs: FlowGraphs | None = None,
    ) -> Iterator[EulerStep]:
        """Integrates from `noise` (B, 80, T); the last step's `x_next` is the answer.

        Where `done` of the `steps` have been made, `noise` is the state that they led to. The estimator runs
        on twice the batch: with the condition, and with all of it zero; by `graphs` where the batch fits into
        them. It may have another dtype than the rest; the sum of the steps is kept in that of the noise.
        """
        times = cosine_times(steps)[done:].to(noise)
        velocities = self._velocities(condition, graphs)
        x = noise
        for now, then in pairwise(times):
            v_cond, v_uncond = (part.to(x.dtype) for part in velocities(x, now))
            velocity = (1 + self._guidance) * v_cond - self._guidance * v_uncond
            x_next = x + (then - now) * velocity
            yield EulerStep(now, x, v_cond, v_uncond, x_next)
            x = x_next

    def _velocities(
        self, condition: FlowCondition, graphs: FlowGraphs | None
    ) -> Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]:
        """Of x (B, 80, T) at time t (): with the condition, and with all of it zero, both (B, 80, T)."""
        dtype = self.estimator.final_proj.weight.dtype
        given = (condition.mu, condition.spks, condition.cond)
        bound = None if graphs is None else graphs.velocities(*given, condition.frames)
        if bound is not None:
            return bound
        mu, spks, cond = (torch.cat((part, torch.zeros_like(part))).to(dtype) for part in given)
        masks = self.estimator.masks(condition.frames * 2, like=mu)

        def velocities(x: Tensor, time: Tensor) -> tuple[Tensor, Tensor]:
            twice = torch.cat((x, x)).to(dtype)
            v_cond, v_uncond = self.estimator(twice, mu, time.expand(len(twice)), spks, cond, masks).chunk(2)
            return v_cond, v_uncond

        return velocities


class Flow(nn.Module):
    """Audio ids -> mel, for several utterances of any lengths. Inputs live on the module's device."""

    def __init__(self, config: FlowConfig) -> None:
        super().__init__()
        self.config = config
        mel = config.output_size
        self.input_embedding = nn.Embedding(config.vocab_size, config.input_size)
        self.spk_embed_affine_layer = nn.Linear(config.spk_embed_dim, mel)
        self.encoder = ConformerEncoder(config.input_size, config.encoder)
        self.encoder_proj = Linear(config.encoder.output_size, mel)
        self.length_regulator = InterpolateRegulator(mel, config.regulator_stages)
        self.decoder = ConditionalCFM(config)
        self.graphs: FlowGraphs | None = None
        """Where set, they compute what fits into them."""

    def frames(self, ids: int) -> int:
        """Mel frames of the first `ids` ids of an utterance."""
        return mel_frames(ids, self.config.input_frame_rate)

    def prepare(self, items: Sequence[FlowItem]) -> FlowCondition:
        """Everything but the solver, for a batch. Raises InputError."""
        for item in items:
            self._check(item)
        sequences = [torch.cat((item.prompt_ids, item.ids)) for item in items]
        ids = [len(sequence) for sequence in sequences]
        spks = self.spk_embed_affine_layer(
            F.normalize(torch.stack([item.embedding for item in items]), dim=1)
        )
        encoded = None if self.graphs is None else self.graphs.encode(sequences)
        if encoded is None:
            encoded = self.encode(stacked(sequences), keys_beyond(ids, device=sequences[0].device))
        prompt_frames = tuple(len(item.prompt_mel) for item in items)
        stretched = []
        for item, hidden, count, known in zip(items, encoded, ids, prompt_frames, strict=True):
            own = self.frames(len(item.ids)) if item.frames is None else item.frames
            split = len(item.prompt_ids)
            stretched.append(stretch(hidden[:split], hidden[split:count], known, own))
        frames = tuple(part.shape[1] for part in stretched)
        mu = self.length_regulator(stacked(stretched), frames)
        cond = torch.zeros_like(mu)
        for row, item, known in zip(cond, items, prompt_frames, strict=True):
            row[:, :known] = item.prompt_mel.T
            if item.made is not None:
                row[:, known : known + item.made.shape[1]] = item.made
        return FlowCondition(mu=mu, spks=spks, cond=cond, frames=frames, prompt_frames=prompt_frames)

    def encode(self, ids: Tensor, beyond: Tensor | None) -> Tensor:
        """Ids (B, N) int64 -> (B, N, 80), one row an id; `beyond` are those of `keys_beyond`."""
        rows: Tensor = self.encoder_proj(self.encoder(self.input_embedding(ids), beyond))
        return rows

    def solve(
        self,
        items: Sequence[FlowItem],
        noise: Sequence[Tensor],
        *,
        steps: int = 10,
        on_step: Callable[[], None] = lambda: None,
        wanted: Callable[[int], bool] = lambda _: True,
    ) -> list[Tensor]:
        """Mel (80, frames of `ids`) of each item, from its start noise (80, frames with the prompt's).

        After every step of the solver `on_step` is called, and `wanted` asked of every item by its number:
        one that is not wanted any more is computed no further, and its mel is empty. Raises InputError.
        """
        condition = self.prepare(items)
        expected = [(self.config.output_size, frames) for frames in condition.frames]
        if expected != [tuple(part.shape) for part in noise]:
            raise ValueError(f"noise of {[tuple(part.shape) for part in noise]}, not {expected}")
        x, left = stacked(noise), list(range(len(items)))
        running = self.decoder.steps(x, condition, steps, graphs=self.graphs)
        for done in range(1, steps + 1):
            x = next(running).x_next
            on_step()
            stay = [place for place, item in enumerate(left) if wanted(item)]
            if len(stay) == len(left):
                continue
            left = [left[place] for place in stay]
            if not left:
                break
            condition = condition.only(stay)
            x = x[stay, :, : condition.mu.shape[2]]
            running = self.decoder.steps(x, condition, steps, done=done, graphs=self.graphs)
        mels = [x.new_empty(len(x[0]), 0) for _ in items]
        for place, item in enumerate(left):
            mels[item] = x[place, :, condition.prompt_frames[place] : condition.frames[place]]
        return mels

    def _check(self, item: FlowItem) -> None:
        for name, part in (("codes", item.ids), ("prompt codes", item.prompt_ids)):
            # A text id (negative here) would silently become code 0, one above would read past the table.
            wrong = part[(part < 0) | (part >= self.config.vocab_size)]
            if wrong.numel():
                raise InputError(
                    f"{name} hold {int(wrong[0])}, which is not in 0..{self.config.vocab_size - 1}",
                    param="codes",
                    code="invalid_codes",
                )
        if (self.frames(len(item.ids)) if item.frames is None else item.frames) < 1:
            raise InputError("no audio codes to speak", param="codes", code="empty_codes")
        if (len(item.prompt_ids) == 0) != (len(item.prompt_mel) == 0):
            raise InputError(
                "a voice prompt needs both its codes and its mel", param="voice", code="invalid_voice"
            )
