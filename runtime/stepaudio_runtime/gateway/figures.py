"""What this gateway has seen of each revision: requests, errors, time to the first byte.

A pool's figures start anew whenever other revisions of it are served than before, so that all of them cover
the same time. The operator reads them (`GET /stepaudio/figures`) to judge a revision that is tried with a
share of the requests.
"""

from bisect import bisect_left
from collections.abc import Set
from dataclasses import dataclass, field

from stepaudio_runtime.bodies import FIRST_BYTE_BOUNDS_S, RevisionFigures, ServedFigures


@dataclass(slots=True)
class Counts:
    """Of one revision of one pool."""

    requests: int = 0
    """Requests that a pod took, or should have taken: not those that it refused, being full or draining."""
    errors: int = 0
    """Those that ended in a broken connection, a 5xx, or an answer that is not what the contract says."""
    first_byte: list[int] = field(default_factory=lambda: [0] * (len(FIRST_BYTE_BOUNDS_S) + 1))
    """Answers by the time to their first byte: up to each bound, and beyond the last."""

    def answered(self, seconds: float) -> None:
        """The first byte of an answer came after `seconds`."""
        self.first_byte[bisect_left(FIRST_BYTE_BOUNDS_S, seconds)] += 1


class Figures:
    """Counts by pool and revision. Bounded by what the routing object names."""

    def __init__(self) -> None:
        self._counts: dict[tuple[str, str], Counts] = {}
        self._named: Set[tuple[str, str]] = frozenset()

    def of(self, pool: str, revision: str) -> Counts:
        """The counts to add to."""
        return self._counts.setdefault((str(pool), revision), Counts())

    def keep(self, named: Set[tuple[str, str]]) -> None:
        """These (pool, revision) are served from now on: forget the pools where that is a change."""
        changed = {pool for pool, _ in named ^ self._named}
        self._counts = {place: counts for place, counts in self._counts.items() if place[0] not in changed}
        self._named = frozenset(named)

    def as_json(self) -> ServedFigures:
        """Body of `GET /stepaudio/figures`."""
        pools: dict[str, dict[str, RevisionFigures]] = {}
        for (pool, revision), counts in sorted(self._counts.items()):
            pools.setdefault(pool, {})[revision] = {
                "requests": counts.requests,
                "errors": counts.errors,
                "firstByte": list(counts.first_byte),
            }
        return {"pools": pools}
