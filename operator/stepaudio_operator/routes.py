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

    @property
    def needed(self) -> tuple[str, ...]:
        """Model pools that have to serve: also the one that the tokenizer was to leave, where the TTS pods
        went back to what does not hold it.
        """
        tts = self.pools.get(names.TTS)
        if not self.spec.tokenizer_with_tts or tts is None or names.TOKENIZER not in self.pools:
            return self.components
        went_back = tts.current and tts.revision != tts.wanted and tts.revision not in self.hearing
        return (*self.components, names.TOKENIZER) if went_back else self.components

    def lacking(self, wanted: Release) -> list[str]:
        """Model pools that cannot take over the traffic of a release yet."""
        return [
            c
            for c in self.needed
            if not self._complete(c, wanted) and not (c == names.TOKENIZER and self._heard_in_tts(wanted))
        ]

    def _heard_in_tts(self, wanted: Release) -> bool:
        return self._complete(names.TTS, wanted) and self.pools[names.TTS].revision in self.hearing

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
    stood = current.pools if current is not None and current.release == str(release) else {}
    places = {c: _place(world, c, release, stood.get(c)) for c in world.components if c != names.TOKENIZER}
    if names.TOKENIZER in world.spec.enabled:
        before = stood.get(names.TOKENIZER)
        places[names.TOKENIZER] = _tokenizer(world, release, places.get(names.TTS), before)
    routed = {component: place for component, place in places.items() if place is not None}
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


def _place(world: World, component: str, release: Release, before: RoutedPool | None) -> RoutedPool | None:
    """Where a component is served by its own pool."""
    pool = world.pools.get(component)
    if pool is None:
        return None
    before = before if is_of(pool, before) else None
    leaves = component not in world.components
    wake = before.wake if leaves and before is not None else _wake(world.spec, component)
    weights = _weights(world, component, pool, release, before)
    return RoutedPool(pool.name, names.POOL_PORT, weights, wake) if weights else None


def _tokenizer(
    world: World, release: Release, tts: RoutedPool | None, before: RoutedPool | None
) -> RoutedPool | None:
    """Where the tokenizer is served: where it is to be as soon as it serves there, else where it was. It
    moves in when all TTS pods that are routed hold it.
    """
    own, inside = _place(world, names.TOKENIZER, release, before), _inside_tts(world, release, tts)
    within = world.spec.tokenizer_with_tts
    to, left = (inside, own) if within else (own, inside)
    moved = before is None or is_of(world.pools.get(names.TTS if within else names.TOKENIZER), before)
    may_move = not within or (inside and tts and len(inside.revisions) == len(tts.revisions))
    if to is not None and (moved or may_move) and _serves(world, to):
        return to
    if left is not None and _serves(world, left):
        return left
    return (to if moved else left) or before


def _inside_tts(world: World, release: Release, tts: RoutedPool | None) -> RoutedPool | None:
    """The TTS pods that hold the tokenizer: of those that are routed, or of all where it is to leave them."""
    pool = world.pools.get(names.TTS)
    if pool is None:
        return None
    if world.spec.tokenizer_with_tts:
        counts = tts.revisions if tts is not None else {}
    else:
        ours = _ours(world, names.TTS, pool, release)
        counts = {r: ready for r, ready in pool.revisions.items() if ready > 0 and r in ours}
    hearing = {r: count for r, count in counts.items() if r in world.hearing}
    return RoutedPool(pool.name, names.POOL_PORT, _shares(hearing)) if hearing else None


def _serves(world: World, place: RoutedPool) -> bool:
    pool = next(pool for pool in world.pools.values() if is_of(pool, place))
    return any(pool.revisions.get(revision, 0) > 0 for revision in place.revisions)


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
    """Weights of a pool's revisions within a release. While no pod is ready they are as `before`, as long as
    there is a pod of those (it may be that only its node is not heard) or the pool works towards none.
    """
    ours = _ours(world, component, pool, release)
    counts = {r: n for r, n in pool.revisions.items() if n > 0 and r in ours}
    split = pool.traffic
    if split is not None and split.revision in ours:
        shares = {split.revision: split.share, split.stable: 100 - split.share}
        if split.stable not in ours:
            return {split.revision: 100}
        return {revision: share for revision, share in shares.items() if share > 0}
    if not counts and before is not None:
        left = {r: weight for r, weight in before.revisions.items() if r in ours and r in pool.revisions}
        if left:
            return _shares(left)
    if pool.revision in ours:
        counts.setdefault(pool.revision, 0)
    if not counts and before is not None:
        return before.revisions
    return _shares(counts) if counts else {}


def _ours(world: World, component: str, pool: PoolRecord, release: Release) -> set[str]:
    """The revisions of a release that may get requests."""
    known = world.releases.get(component, {})
    return {r for r, of in known.items() if of == release and r not in pool.quarantined}


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
