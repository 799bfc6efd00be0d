"""What the scheduler knows of a stream's listener, and which streams go next. Pure: the clock is an argument.

A listener is taken to play from the first piece on, in real time. Whoever runs dry first goes first. Several
streams share a step where their hops are ready, but a stream with plenty in hand does not join a step for one
that is about to run dry: it would only make it longer.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

K = TypeVar("K")

FIRST_AUDIO_S = 0.3
"""A stream that has not begun goes before any that has this much longer to play."""
AT_EASE_S = 1.5
"""With this much in hand a listener can wait for a step of others."""


class Playback:
    """One listener's clock; seconds throughout."""

    def __init__(self, opened_at: float) -> None:
        self.opened_at = opened_at
        self.first_at: float | None = None
        self.given_s = 0.0
        self.underrun_s = 0.0

    def give(self, duration_s: float, now: float) -> None:
        """So much audio went out at `now`."""
        if self.first_at is None:
            self.first_at = now
        late = now - self.dry_at
        if self.given_s and late > 0:
            self.underrun_s += late
        self.given_s += duration_s

    @property
    def dry_at(self) -> float:
        """When the listener has nothing more to play."""
        if self.first_at is None:
            return self.opened_at + FIRST_AUDIO_S
        return self.first_at + self.underrun_s + self.given_s


@dataclass(frozen=True)
class Ready(Generic[K]):
    """A stream whose next hop can be made: `group` says with which others, `dry_at` in clock seconds."""

    key: K
    group: Hashable
    dry_at: float


def next_batch(ready: Sequence[Ready[K]], now: float, limit: int) -> list[K]:
    """The streams of the next step, most urgent first, at most `limit`, of one group."""
    order = sorted(ready, key=lambda stream: stream.dry_at)  # stable: who came first goes first
    if not order:
        return []
    first = order[0]
    all_at_ease = first.dry_at - now >= AT_EASE_S
    return [
        stream.key
        for stream in order
        if stream.group == first.group and (all_at_ease or stream.dry_at - now < AT_EASE_S)
    ][:limit]
