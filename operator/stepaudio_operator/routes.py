"""What the routing object says of a release: where each component is served, by which revisions; pure.

Which release that is, and when another takes its place, is decided in `release`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from stepaudio_operator import names
from stepaudio_operator.border import Release
from stepaudio_operator.presets import PRESETS
from stepaudio_operator.records import PoolRecord, RoutedPool, Routing, Wake
from stepaudio_operator.spec.deployment import DeploymentSpec
from stepaudio_operator.spec.fields import seconds

RETRY_SHARE = 10
"""A client is told to try again after this part of the time that the slowest pool may load."""


@dataclass(frozen=True)
class World:
    """Everything that the rules look at."""

    spec: DeploymentSpec
    pools: Mapping[str, PoolRecord]
    releases: Mapping[str, Mapping[str, Release]]  # component -> revision -> release
    current: Routing | None
    hearing: frozenset[str] = frozenset()  # revisions of TTS that hold the tokenizer
    components: tuple[str, ...] = field(init=False)  # model pools

    def __post_init__(self) -> None:
        routed = tuple(c for c in self.spec.components if c != names.GATEWAY)
        object.__setattr__(self, "components", routed)

    def release(self, component: str, revision: str) -> Release | None:
        """The release of a stored revision."""
        return self.releases.get(component, {}).get(revision)

    def lacking(self, wanted: Release) -> list[str]:
        """Model pools that cannot take over the traffic of a release yet."""
        return [c for c in self.components if not self._complete(c, wanted)]

    def _complete(self, component: str, wanted: Release) -> bool:
        pool = self.pools.get(component)
        if pool is None or not pool.current or pool.deleting or pool.replicas is None:
            return False
        budget = self.spec.rollout.max_unavailable if self.spec.rollout else 1
        need = max(pool.replicas - budget, 1) if pool.replicas else 0
        enough = pool.revisions.get(pool.revision, 0) >= need
        return enough and self.release(component, pool.revision) == wanted

    def gateways_speak(self, wanted: Release) -> bool:
        """Whether every gateway is one that understands the pods of a release."""
        pool = self.pools.get(names.GATEWAY)
        if pool is None or not pool.current:
            return False
        left = [self.release(names.GATEWAY, revision) for revision in pool.revisions]
        some = pool.replicas == 0 or any(pool.revisions.values())
        return some and all(own is not None and own.speaks(wanted) for own in left)

    def failed_in(self, wanted: Release) -> list[str]:
        """Pools that have quarantined a revision of a release."""
        return [
            c
            for c in self.components
            if c in self.pools
            and self.release(c, self.pools[c].revision) != wanted
            and any(self.release(c, r) == wanted for r in self.pools[c].quarantined)
        ]

    def fallback(self, served: Release, failed: list[str]) -> Release:
        """The release to serve instead of one that failed: that which the pool went back to."""
        return self.release(failed[0], self.pools[failed[0]].revision) or served


def routing_of(world: World, release: Release, serving: bool) -> Routing | None:
    """The routing object that should be stored; None where nothing can be routed yet."""
    current = world.current
    if current is not None and not (serving or current.serving):
        return current  # nobody is served: how many of what are left says nothing
    pools = [world.pools[c] for c in world.components if c in world.pools]
    if current is None and any(pool.observed_generation == 0 for pool in pools):
        return None  # in a moment they all are known: the first object names them at once
    routed: dict[str, RoutedPool] = {}
    stood = current.pools if current is not None and current.release == str(release) else {}
    for component in world.components:
        pool, before = world.pools.get(component), stood.get(component)
        weights = _weights(world, component, pool, release, before) if pool is not None else {}
        moves = component == names.TOKENIZER and is_of(world.pools.get(names.TTS), before)
        if (
            before is not None
            and (moves or pool is not None)
            and not (_serves(pool, weights) if moves else weights)
        ):
            routed[component] = before if moves else replace(before, wake=_wake(world.spec, component))
        elif pool is not None and weights:
            routed[component] = RoutedPool(pool.name, names.POOL_PORT, weights, _wake(world.spec, component))
    if world.spec.tokenizer_with_tts and names.TTS in routed:
        inside = _inside_tts(world, routed[names.TTS], stood.get(names.TOKENIZER))
        routed |= {names.TOKENIZER: inside} if inside is not None else {}
    if not routed:
        return current
    wanted = Routing(
        generation=current.generation if current else 1,
        release=str(release),
        serving=serving,
        retry_after_s=None if serving else retry_after_s(world.spec),
        pools=routed,
    )
    if current is None or wanted == current:
        return wanted
    return replace(wanted, generation=current.generation + 1)


def _inside_tts(world: World, tts: RoutedPool, before: RoutedPool | None) -> RoutedPool | None:
    """Where the tokenizer is served that is to be in the TTS pods: as `before` until all that are routed hold
    it.
    """
    weights = {r: weight for r, weight in tts.revisions.items() if r in world.hearing}
    ready = _serves(world.pools[names.TTS], weights)
    moved = before is None or before.service == tts.service
    if before is not None and not (ready and (moved or len(weights) == len(tts.revisions))):
        return before
    return RoutedPool(tts.service, tts.port, _shares(weights)) if weights else None


def _serves(pool: PoolRecord | None, revisions: Mapping[str, int]) -> bool:
    return pool is not None and any(pool.revisions.get(revision, 0) > 0 for revision in revisions)


def retry_after_s(spec: DeploymentSpec) -> int:
    """When a client should try again in a declared outage (s)."""
    pools = PRESETS[spec.preset].pools
    return max(pools[c].startup_s for c in spec.components if c != names.GATEWAY) // RETRY_SHARE


def _wake(spec: DeploymentSpec, component: str) -> Wake | None:
    """What gateways do with a request while the pool sleeps; None where it never does."""
    part = getattr(spec, component)
    if part is None or part.autoscaling is None or part.autoscaling.min > 0:
        return None
    hold, startup_s = part.autoscaling.hold, PRESETS[spec.preset].pools[component].startup_s
    return Wake(seconds(hold) if hold is not None else None, startup_s // RETRY_SHARE)


def _weights(
    world: World, component: str, pool: PoolRecord, release: Release, before: RoutedPool | None
) -> Mapping[str, int]:
    """Weights of a pool's revisions within a release; empty where it has none of it. While no pod is ready
    they are as `before`, as long as there is a pod of those: it may be that only its node is not heard.
    """
    ours = {
        r
        for r, of in world.releases.get(component, {}).items()
        if of == release and r not in pool.quarantined
    }
    counts = {r: n for r, n in pool.revisions.items() if n > 0 and r in ours}
    split = pool.traffic
    if split is not None and split.revision in ours:
        shares = {split.revision: split.share, split.stable: 100 - split.share}
        if split.stable not in ours:
            return {split.revision: 100}
        return {revision: share for revision, share in shares.items() if share > 0}
    if not counts and before is not None and is_of(pool, before):
        left = {r: weight for r, weight in before.revisions.items() if r in ours and r in pool.revisions}
        if left:
            return _shares(left)
    if pool.revision in ours:
        counts.setdefault(pool.revision, 0)
    return _shares(counts) if counts else {}


def _shares(counts: Mapping[str, int]) -> dict[str, int]:
    """Whole per cents in the ratio of `counts`, 100 in all, at least 1 each."""
    total, order = max(sum(counts.values()), 1), sorted(counts)
    shares = {name: max(counts[name] * 100 // total, 1) for name in order}
    largest = max(order, key=lambda name: (counts[name], name))
    shares[largest] += 100 - sum(shares.values())
    return shares


def is_of(pool: PoolRecord | None, routed: RoutedPool | None) -> bool:
    """Whether requests are sent to this pool."""
    return routed is not None and pool is not None and routed.service == pool.name
