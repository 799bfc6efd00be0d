"""Seconds of several ways to do one thing, in turn.

Turns let what the machine does meanwhile (other work, caches, clock rate) hit all ways alike. With one thread
they are the process's own processor seconds, which other work on the machine hardly changes; with several,
where one that waits for another spins, they are a clock's and want an idle machine.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from statistics import median

import torch

Ways = Mapping[str, Callable[[], object]]


class Times:
    """Seconds of every round of every way."""

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
    clock = time.process_time if torch.get_num_threads() == 1 else time.perf_counter
    found: dict[str, list[float]] = {name: [] for name in ways}
    order = list(ways)
    for _ in range(rounds):
        for name in order:
            started = clock()
            ways[name]()
            found[name].append(clock() - started)
        order.append(order.pop(0))
    return Times(found)
