"""Processor seconds of several ways to do one thing, in turn.

A process's own processor time leaves out what the machine does meanwhile, and taking turns lets what is left
of that (caches, clock rate) hit all ways alike. With several threads, one that waits for another by spinning
counts too, so on a busy machine run with one.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from statistics import median

Ways = Mapping[str, Callable[[], object]]


class Times:
    """Processor seconds of every round of every way."""

    def __init__(self, rounds: dict[str, list[float]]) -> None:
        self._rounds = rounds

    def __getitem__(self, way: str) -> float:
        """Median of a way."""
        return median(self._rounds[way])

    def ratio(self, slow: str, fast: str) -> float:
        """How many times as long `slow` takes: the median of the rounds' own ratios."""
        return median(a / b for a, b in zip(self._rounds[slow], self._rounds[fast], strict=True))

    def as_json(self) -> dict[str, list[float]]:
        """All rounds."""
        return {way: [round(each, 4) for each in times] for way, times in self._rounds.items()}


def interleaved(ways: Ways, rounds: int, *, warm_up: bool = True) -> Times:
    """Every way once a round, in changing order."""
    if warm_up:
        for way in ways.values():
            way()
    found: dict[str, list[float]] = {name: [] for name in ways}
    order = list(ways)
    for _ in range(rounds):
        for name in order:
            started = time.process_time()
            ways[name]()
            found[name].append(time.process_time() - started)
        order.append(order.pop(0))
    return Times(found)
