"""What the gateways should serve: the routing object, from the pools' states; pure.

Its generation rises only when what it says changes.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping

from stepaudio_operator import names
from stepaudio_operator.records import PoolRecord, RoutedPool, Routing
from stepaudio_operator.spec import DeploymentSpec


def plan_routing(
    spec: DeploymentSpec, deployment: str, pools: Mapping[str, PoolRecord], current: Routing | None
) -> Routing | None:
    """The routing object to write, or None where `current` is right or nothing can be routed yet.

    A pool's weights are its revisions' shares of ready pods, so that a pool that is being replaced is
    served by both; where none is ready, its newest revision. Which endpoint is ready the gateways see by
    themselves, so scaling and restarts change nothing here.
    """
    routed: dict[str, RoutedPool] = {}
    for component in spec.components:
        pool = pools.get(component)
        if component == names.GATEWAY or pool is None or not pool.revision:
            continue
        ready = {name: count for name, count in pool.revisions.items() if count > 0}
        weights = _percent(ready) if ready else {pool.revision: 100}
        routed[component] = RoutedPool(pool.name, names.POOL_PORT, weights)
    if names.GATEWAY not in spec.components or not routed:
        return None
    wanted = Routing(
        generation=current.generation if current else 1,
        release=release({c: pools[c].revision for c in routed}),
        serving=True,
        retry_after_s=None,
        pools=routed,
    )
    if current is None:
        return wanted
    if wanted == current:
        return None
    return Routing(current.generation + 1, wanted.release, wanted.serving, wanted.retry_after_s, wanted.pools)


def release(revisions: Mapping[str, str]) -> str:
    """Name of a set of pool revisions that belong together: 8 hex digits."""
    text = ",".join(f"{component}={revisions[component]}" for component in sorted(revisions))
    return hashlib.sha256(text.encode()).hexdigest()[:8]


def _percent(counts: Mapping[str, int]) -> dict[str, int]:
    """Whole per cents in the ratio of `counts`, 100 in all, at least 1 each."""
    total, order = sum(counts.values()), sorted(counts)
    shares = {name: max(counts[name] * 100 // total, 1) for name in order}
    largest = max(order, key=lambda name: (counts[name], name))
    shares[largest] += 100 - sum(shares.values())
    return shares
