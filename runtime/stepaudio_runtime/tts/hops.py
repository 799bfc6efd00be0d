"""Which codes go into the flow at which time: the plan of a stream, pure.

    voice prompt │ made already          │ hop        │ look-ahead │ not here yet
    ─────────────┴───────[── context ────┼────────────┼────────────]
                          known mel        made now     seen only

The flow is not causal, so a hop is made again from the prompt, some of the past (its mel is given as known)
and a little of what follows. What a plan decides depends on the codes alone, never on when they arrive.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum


class PromptMode(StrEnum):
    """How much of the voice prompt a hop sees."""

    WHOLE = "whole"  # all of it, in every hop
    FIRST = "first"  # all of it in the first hop; later the last `context` codes of prompt and made audio
    ROLLING = "rolling"  # the last `context` codes of prompt and made audio, in every hop


@dataclass(frozen=True)
class Hop:
    """Codes start..stop-1 are spoken; codes up to `seen` are known to the flow."""

    index: int
    start: int
    stop: int
    seen: int


@dataclass(frozen=True)
class HopPlan:
    """Sizes in codes (41.67 a second); the defaults make about a second, then up to four seconds a hop."""

    first: int = 35  # of the first hop
    growth: float = 2.0  # of a hop over the one before it
    largest: int = 165
    context: int = 50  # of the past, given to the flow again
    look_ahead: int = 10  # of the future, seen but not yet spoken
    prompt: PromptMode = PromptMode.FIRST

    def __post_init__(self) -> None:
        if self.first < 1 or self.largest < self.first or self.growth < 1:
            raise ValueError(f"hops must grow from at least one code: {self}")
        if self.context < 0 or self.look_ahead < 0:
            raise ValueError(f"context and look-ahead are never negative: {self}")

    @classmethod
    def whole(cls) -> HopPlan:
        """One hop, whatever its length: offline."""
        return cls(first=sys.maxsize, largest=sys.maxsize, context=0, look_ahead=0, prompt=PromptMode.WHOLE)

    def size(self, index: int) -> int:
        """Codes of hop number `index`, from 0."""
        size = self.first
        for _ in range(index):
            if size >= self.largest:
                break
            size = min(self.largest, int(size * self.growth))
        return size

    def next_hop(self, index: int, start: int, known: int, *, last: bool) -> Hop | None:
        """Hop number `index`, from code `start` on; None where the `known` codes do not decide it yet.

        One code beyond the look-ahead must be there, or the end: a rest no longer than the look-ahead is
        spoken with this hop.
        """
        stop = start + self.size(index)
        if known > stop + self.look_ahead:
            return Hop(index, start, stop, stop + self.look_ahead)
        return Hop(index, start, known, known) if last and known > start else None

    def cost(self, hops: Sequence[Hop], prompt: int) -> float:
        """Codes that the flow computes for `hops` with a prompt of so many, over those of one whole hop."""
        computed = sum(hop.seen - self.context_start(hop) + self.prompt_codes(hop, prompt) for hop in hops)
        return computed / (hops[-1].stop + prompt)

    def context_start(self, hop: Hop) -> int:
        """First code that `hop` sees of its own utterance."""
        return max(0, hop.start - self.context)

    def prompt_codes(self, hop: Hop, prompt: int) -> int:
        """How many of the prompt's `prompt` last codes `hop` sees."""
        if self.prompt is PromptMode.WHOLE or (self.prompt is PromptMode.FIRST and hop.index == 0):
            return prompt
        return min(prompt, max(0, self.context - hop.start))
