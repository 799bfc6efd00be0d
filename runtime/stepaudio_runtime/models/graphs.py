"""The speech models as captured CUDA graphs: a step is started once, not a thousand times.

A graph has fixed shapes. So lengths and batches are rounded up to buckets: what is computed for the padding
is masked (flow) or reaches only what is not given out (vocoder), as in a batch of different lengths.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from stepaudio_runtime.models.estimator import ConditionalDecoder
from stepaudio_runtime.models.hift import Hift
from stepaudio_runtime.models.lengths import ones_before

FRAMES = 64
"""Frames of a bucket are a multiple of it."""
LONGEST = 512
"""Frames of the longest bucket: what a hop of a stream needs, with its context. Whole utterances of more are
computed without a graph: there the arithmetic outweighs the starts.
"""
STREAMS = (1, 2, 4, 8, 16)
"""Batches of the buckets."""
_WARM = 3  # calls before a capture: libraries choose their algorithms in them


def bucket(frames: int, streams: int) -> tuple[int, int] | None:
    """The smallest bucket (frames, streams) that holds so many; None where none does."""
    longer = -(-frames // FRAMES) * FRAMES
    wider = next((size for size in STREAMS if size >= streams), None)
    return None if wider is None or longer > LONGEST else (longer, wider)


def buckets() -> list[tuple[int, int]]:
    """All (frames, streams), the largest first: the memory that they share is then of its final size."""
    return [
        (frames, streams)
        for frames in range(LONGEST, 0, -FRAMES)
        for streams in sorted(STREAMS, reverse=True)
    ]


class Captured:
    """`function` of fixed inputs; to call it again, write new numbers into them. One caller at a time.

    On a GPU it is captured; its answer is overwritten by the next graph of the same `pool`. Elsewhere it is
    called.
    """

    def __init__(self, function: Callable[[], Tensor], device: torch.device, pool: object) -> None:
        self._function = function
        self._graph: torch.cuda.CUDAGraph | None = None
        if device.type != "cuda":
            return
        stream = torch.cuda.Stream(device)
        stream.wait_stream(torch.cuda.current_stream(device))
        with torch.cuda.stream(stream):
            for _ in range(_WARM):
                function()
        torch.cuda.current_stream(device).wait_stream(stream)
        self._graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self._graph, pool=pool, capture_error_mode="thread_local"):
            self._answer = function()

    def __call__(self) -> Tensor:
        """The answer for what the inputs hold now."""
        if self._graph is None:
            return self._function()
        self._graph.replay()
        return self._answer


class EstimatorGraphs:
    """The flow's estimator, with and without its condition, by buckets."""

    def __init__(self, estimator: ConditionalDecoder) -> None:
        weight = estimator.final_proj.weight
        self._estimator, self._device = estimator, weight.device
        self._pool = torch.cuda.graph_pool_handle() if weight.is_cuda else None
        self._made: dict[tuple[int, int], _EstimatorBucket] = {}

    @torch.inference_mode()
    def warm(self) -> None:
        """Capture every bucket now."""
        for frames, streams in buckets():
            self._bucket((frames, streams))

    def bind(
        self, mu: Tensor, spks: Tensor, cond: Tensor, frames: Sequence[int]
    ) -> Callable[[Tensor, Tensor], tuple[Tensor, Tensor]] | None:
        """The two velocities (B, 80, T) of x (B, 80, T) at time t (), the second without any condition.

        `mu`, `cond` (B, 80, T), `spks` (B, 80), `frames` of each element. What it gives holds until the next
        `bind`. None where no bucket is large enough, or where gradients are wanted.
        """
        key = bucket(mu.shape[2], len(mu))
        if key is None or not torch.is_inference_mode_enabled():
            return None
        found = self._bucket(key)
        found.fill(mu, spks, cond, frames)
        return found.velocities

    def _bucket(self, key: tuple[int, int]) -> _EstimatorBucket:
        if key not in self._made:
            self._made[key] = _EstimatorBucket(self._estimator, *key, self._device, self._pool)
        return self._made[key]


class _EstimatorBucket:
    """Inputs (2, streams, ...): with the condition, and without."""

    def __init__(
        self, estimator: ConditionalDecoder, frames: int, streams: int, device: torch.device, pool: object
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
        self._run = Captured(self._step, device, pool)

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


class VocoderGraphs:
    """The vocoder's network by buckets, for pieces that do not end their utterance: what padding changes of
    these is not given out.
    """

    def __init__(self, hift: Hift) -> None:
        weight = hift.conv_post.weight
        self._hift, self._device = hift, weight.device
        self._pool = torch.cuda.graph_pool_handle() if weight.is_cuda else None
        self._made: dict[tuple[int, int], _VocoderBucket] = {}

    @torch.inference_mode()
    def warm(self) -> None:
        """Capture every bucket now."""
        for frames, streams in buckets():
            self._bucket((frames, streams))

    def decode(self, mels: Sequence[Tensor], sources: Sequence[Tensor]) -> Tensor | None:
        """As `Hift.decode`, of mels (80, T) and sources (1, 256 T) of any lengths, padded. None where no bucket
        is large enough, or where gradients are wanted.
        """
        key = bucket(max(mel.shape[1] for mel in mels), len(mels))
        if key is None or not torch.is_inference_mode_enabled():
            return None
        return self._bucket(key).decode(mels, sources)

    def _bucket(self, key: tuple[int, int]) -> _VocoderBucket:
        if key not in self._made:
            self._made[key] = _VocoderBucket(self._hift, *key, self._device, self._pool)
        return self._made[key]


class _VocoderBucket:
    def __init__(self, hift: Hift, frames: int, streams: int, device: torch.device, pool: object) -> None:
        self._hift = hift
        self._mel = torch.zeros(streams, hift.config.in_channels, frames, device=device)
        self._source = torch.zeros(streams, 1, frames * hift.config.samples_per_frame, device=device)
        self._spectrum = hift.source_stft(self._source)
        # The STFTs stay outside: the inverse one looks at numbers on the host.
        self._run = Captured(lambda: hift.network(self._mel, self._spectrum), device, pool)

    def decode(self, mels: Sequence[Tensor], sources: Sequence[Tensor]) -> Tensor:
        for parts, into in ((mels, self._mel), (sources, self._source)):
            into.zero_()
            for part, row in zip(parts, into, strict=False):
                row[:, : part.shape[1]] = part
        self._spectrum.copy_(self._hift.source_stft(self._source))
        return self._hift.to_wave(*self._hift.to_spectrum(self._run()))[: len(mels)]
