"""Captured CUDA graphs: what a model computes is started once, not a thousand times.

A graph has fixed shapes. So lengths and batches are rounded up to buckets: what is computed for the padding
is masked (`flow_graphs`) or reaches only what is not given out (`hift_graphs`), as in a batch of different
lengths.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache
from typing import Generic, TypeVar

import torch
from torch import Tensor

FRAMES = 64
"""Frames of a bucket are a multiple of it."""
LONGEST = 512
"""Frames of the longest bucket: what a hop of a stream needs, with its context. Whole utterances of more are
computed without a graph: there the arithmetic outweighs the starts.
"""
STREAMS = (1, 2, 4, 8, 16)
"""Batches of the buckets."""
B = TypeVar("B")
_WARM = 3  # calls before a capture: libraries choose their algorithms in them


class Buckets(Generic[B]):
    """Of one model, by (frames, streams); `make` makes one, which captures it, for batches of `sizes`."""

    def __init__(self, make: Callable[[int, int], B], sizes: Sequence[int] = STREAMS) -> None:
        self._make = make
        self._sizes = sizes
        self._made: dict[tuple[int, int], B] = {}

    def fitting(self, frames: int, streams: int) -> B | None:
        """The smallest that holds so many; None where none does, or where gradients are wanted."""
        key = bucket(frames, streams, self._sizes)
        return None if key is None or not torch.is_inference_mode_enabled() else self._get(key)

    @torch.inference_mode()
    def warm(self) -> None:
        """Make every one now."""
        for key in buckets(self._sizes):
            self._get(key)

    def _get(self, key: tuple[int, int]) -> B:
        if key not in self._made:
            self._made[key] = self._make(*key)
        return self._made[key]


@cache
def _pool() -> torch.cuda.MemPool:
    return torch.cuda.MemPool()  # a mere handle is void once the last of its graphs is gone


@cache
def _side(device: torch.device) -> torch.cuda.Stream:
    return torch.cuda.Stream(device)  # one: cuBLAS keeps a workspace for each


def bucket(frames: int, streams: int, sizes: Sequence[int] = STREAMS) -> tuple[int, int] | None:
    """The smallest bucket (frames, streams) that holds so many; None where none does."""
    longer = -(-frames // FRAMES) * FRAMES
    wider = next((size for size in sizes if size >= streams), None)
    return None if wider is None or longer > LONGEST else (longer, wider)


def buckets(sizes: Sequence[int] = STREAMS) -> list[tuple[int, int]]:
    """All (frames, streams), the largest first: the memory that they share is then of its final size."""
    return [
        (frames, streams) for frames in range(LONGEST, 0, -FRAMES) for streams in sorted(sizes, reverse=True)
    ]


class Captured:
    """`function` of fixed inputs; to call it again, write new numbers into them. One caller at a time.

    On a GPU it is captured, and all that are captured share their memory: the answer holds until the next one
    is called, whichever it is, and one thread calls them. Elsewhere the function is called.
    """

    def __init__(self, function: Callable[[], Tensor], device: torch.device) -> None:
        self._function = function
        self._graph: torch.cuda.CUDAGraph | None = None
        if device.type != "cuda":
            return
        stream = _side(device)
        stream.wait_stream(torch.cuda.current_stream(device))
        with torch.cuda.stream(stream):
            for _ in range(_WARM):
                function()
        torch.cuda.current_stream(device).wait_stream(stream)
        self._graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self._graph, pool=_pool().id, capture_error_mode="thread_local"):
            self._answer = function()

    def __call__(self) -> Tensor:
        """The answer for what the inputs hold now."""
        if self._graph is None:
            return self._function()
        self._graph.replay()
        return self._answer
