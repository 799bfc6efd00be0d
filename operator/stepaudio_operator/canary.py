"""The verdict on a canary: what the gateways have seen of it, against what they have seen of the revision
that it shall replace, since they serve both. Pure.

1. Nothing is said before `minRequests` requests have gone to the canary.
2. It fails where its share of failed requests is more than `maxErrorPercent` points above that of the other.
3. It fails where the median of its first audio comes later than that of the other by more than
   `maxSlowdownPercent`. The gateways count by bounds a fifth apart, so a median is known to lie between two
   of them; the canary fails only where it is too slow wherever between them both lie. Both need
   `minRequests` answers for it.
4. Its steps pass only while a gateway that serves can be asked; a deployment without gateways has nobody to
   ask, and there the pauses alone count.
5. A verdict stands until the pool has stored it (as the quarantine of the revision), whatever the figures say
   by then.
"""

from __future__ import annotations

from collections.abc import Mapping

from stepaudio_operator import names
from stepaudio_operator.records import CanaryVerdict, Figures, FiguresOf, PoolRecord, Routing
from stepaudio_operator.spec.rollout import Canary

_BOUNDS = (0.0, *names.FIRST_BYTE_BOUNDS_S, float("inf"))


def judged(pool: PoolRecord, routing: Routing | None) -> tuple[str, str] | None:
    """The revision of a pool that is tried and the one that it shall replace, while requests go to both."""
    routed = routing.pools.get(pool.component) if routing is not None and routing.serving else None
    named = {r for r, weight in routed.revisions.items() if weight > 0} if routed is not None else set()
    tried, before, split = pool.wanted, pool.good_revision, pool.traffic
    if split is not None and split.revision == tried:
        before = split.stable  # where the change before had not come to its end, not yet noted as good
    if tried == before or not {tried, before} <= named or tried in pool.quarantined:
        return None
    return tried, before


def verdicts(
    rules: Canary,
    pools: Mapping[str, PoolRecord],
    routing: Routing | None,
    seen: list[FiguresOf],
) -> dict[str, CanaryVerdict]:
    """The verdicts by component that its pool has to know; `seen` is what each gateway says."""
    found: dict[str, CanaryVerdict] = {}
    for component, pool in pools.items():
        told = pool.canary_failed
        if told is not None and told.revision == pool.wanted and told.revision not in pool.quarantined:
            found[component] = told
        elif (pair := judged(pool, routing)) is not None:
            tried, before = (_sum(seen, component, revision) for revision in pair)
            if message := judge(rules, tried, before):
                found[component] = CanaryVerdict(pair[0], f"{message} of revision {pair[1]}")
    return found


def watched(
    pools: Mapping[str, PoolRecord], routing: Routing | None, seen: list[FiguresOf], *, gateways: bool
) -> dict[str, str]:
    """The revisions by component of which somebody sees what becomes of their requests. `gateways`: whether
    the deployment has any.
    """
    if not gateways:
        tried = {c: pool.traffic.revision for c, pool in pools.items() if pool.traffic is not None}
        return {c: revision for c, revision in tried.items() if revision == pools[c].wanted}
    pairs = {component: judged(pool, routing) for component, pool in pools.items()}
    return {component: pair[0] for component, pair in pairs.items() if pair is not None and seen}


def judge(rules: Canary, tried: Figures, before: Figures) -> str | None:
    """Why a canary has failed, in words that end in "those"; None where it has not."""
    if tried.requests < rules.min_requests:
        return None
    failed, usual = _percent(tried), _percent(before)
    if failed > usual + rules.max_error_percent:
        return f"{failed:.0f}% of its {tried.requests} requests failed, {usual:.0f}% of those"
    if min(sum(tried.first_byte), sum(before.first_byte)) < rules.min_requests:
        return None
    soonest, _ = _median(tried)
    _, latest = _median(before)
    if soonest > latest * (1 + rules.max_slowdown_percent / 100):
        return f"the first audio of half its requests came after {soonest:g} s, by {latest:g} s that of those"
    return None


def _sum(seen: list[FiguresOf], component: str, revision: str) -> Figures:
    counted = (gateway.get(component, {}).get(revision, Figures()) for gateway in seen)
    return sum(counted, Figures())


def _percent(figures: Figures) -> float:
    return 100 * figures.errors / figures.requests if figures.requests else 0.0


def _median(figures: Figures) -> tuple[float, float]:
    """Two bounds (s) between which the median of the first byte lies."""
    half, counted = sum(figures.first_byte) / 2, 0
    for place, count in enumerate(figures.first_byte):
        counted += count
        if counted >= half and count:
            return _BOUNDS[place], _BOUNDS[place + 1]
    return 0.0, float("inf")
