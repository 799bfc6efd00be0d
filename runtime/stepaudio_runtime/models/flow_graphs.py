"""The flow as captured graphs: its encoder, and a step of its estimator with and without the condition."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from stepaudio_runtime.models.estimator import ConditionalDecoder
from stepaudio_runtime.models.graphs import Buckets, Captured
from stepaudio_runtime.models.lengths import ones_before

if TYPE_CHECKING:
    from stepaudio_runtime.models.flow import Flow


class FlowGraphs:
    """For batches that fit into a bucket; an id is two frames of mel or a little more, so ids do first."""

    def __init__(self, flow: Flow) -> None:
        estimator = flow.decoder.estimator
        device = estimator.final_proj.weight.device
        self._encoders = Buckets(lambda ids, streams: _Encoder(flow, ids, streams, device))
        self._estimators = Buckets(lambda frames, streams: _Estimator(estimator, frames, streams, device))

    def warm(self) -> None:
        """Capture all of them now."""
        self._encoders.warm()
        self._estimators.warm()

    def encode(self, sequences: Sequence[Tensor]) -> Tensor | None:
        """As `Flow.encode`, of ids (N) of any lengths; rows beyond an element's own mean nothing.

        What it gives holds until the next graph runs. None where no bucket is large enough.
        """
        found = self._encoders.fitting(max(map(len, sequences)), len(sequences))
        return None if found is None else found.encode(sequences)

    def velocities(
        self, mu: Tensor, spks: Tensor, cond: Tensor, frames: Sequence[int]
    ) -> Callable[[Tensor, Tensor], tuple[Tensor, Tensor]] | None:
        """The two velocities (B, 80, T) of x (B, 80, T) at time t (), the second without any condition.

        `mu`, `cond` (B, 80, T), `spks` (B, 80), `frames` of each element. It is good until the next call of
        this. None where no bucket is large enough.
        """
        found = self._estimators.fitting(mu.shape[2], len(mu))
        if found is None:
            return None
        found.fill(mu, spks, cond, frames)
        return found.velocities


class _Encoder:
    def __init__(self, flow: Flow, ids: int, streams: int, device: torch.device) -> None:
        self._ids = torch.zeros(streams, ids, dtype=torch.int64, device=device)
        self._beyond = torch.zeros(streams, 1, 1, ids, dtype=torch.bool, device=device)
        self._run = Captured(lambda: flow.encode(self._ids, self._beyond), device)

    def encode(self, sequences: Sequence[Tensor]) -> Tensor:
        # Ids of before may stay beyond an end: no element hears them.
        self._beyond.zero_()
        for row, beyond, sequence in zip(self._ids, self._beyond, sequences, strict=False):
            row[: len(sequence)] = sequence
            beyond[..., len(sequence) :] = True
        return self._run()[: len(sequences)]


class _Estimator:
    """Inputs (2, streams, ...): with the condition, and without."""

    def __init__(
        self, estimator: ConditionalDecoder, frames: int, streams: int, device: torch.device
    ) -> None:
        self._estimator = estimator
        mel, dtype = estimator.config.out_channels, estimator.final_proj.weight.dtype

        def zeros(*shape: int) -> Tensor:
            return torch.zeros(2, streams, *shape, device=device, dtype=dtype)

        self._x, self._mu, self._cond = zeros(mel, frames), zeros(mel, frames), zeros(mel, frames)
        self._spks = zeros(mel)
        self._time = torch.zeros(2 * streams, device=device)
        self._masks = [zeros(1, frames >> level) for level in range(len(estimator.config.channels))]
        self._filled = (0, 0)
        self._set_masks([])
        self._run = Captured(self._step, device)

    def fill(self, mu: Tensor, spks: Tensor, cond: Tensor, frames: Sequence[int]) -> None:
        """Take in the condition of a batch. Zeros first: the masks take away numbers, not NaN."""
        streams, length = len(mu), mu.shape[2]
        for part in (self._x, self._mu, self._cond, self._spks):
            part.zero_()
        self._mu[0, :streams, :, :length] = mu
        self._cond[0, :streams, :, :length] = cond
        self._spks[0, :streams] = spks
        self._set_masks(frames)
        self._filled = streams, length

    def velocities(self, x: Tensor, time: Tensor) -> tuple[Tensor, Tensor]:
        streams, length = self._filled
        self._x[:, :streams, :, :length] = x
        self._time[:] = time
        answer = self._run().unflatten(0, (2, -1))[:, :streams, :, :length]
        return answer[0], answer[1]

    def _set_masks(self, frames: Sequence[int]) -> None:
        # An element that is not there has one frame: nothing divides by zero.
        lengths = [*frames, *[1] * (self._x.shape[1] - len(frames))]
        for mask in self._masks:
            mask.zero_()
            mask[..., : max(lengths)] = ones_before(lengths, like=mask)
            lengths = [(length + 1) // 2 for length in lengths]

    def _step(self) -> Tensor:
        flat = (part.flatten(0, 1) for part in (self._x, self._mu, self._spks, self._cond))
        x, mu, spks, cond = flat
        return self._estimator(x, mu, self._time, spks, cond, [mask.flatten(0, 1) for mask in self._masks])
