"""What the gateways should serve: the routing object, from the pools' states; pure.

The routing object names one release (`border`) and, of every pool, the revisions of that release that get
requests. Its generation rises only when what it says changes.

1. Within a release a revision's weight is its share of the ready pods. The newest revision is named before
   its first pod is ready, so that gateways know it by then; a canary gets the share that its pool asks for.
2. Traffic goes over to another release at once and as a whole: when every pool has as many ready pods of it
   as its budget asks for, at least one. Until then the release that is served stays.
3. Where a pool can make no pod of the new release without ending the last of the old one, or where gateways
   and pods would not understand each other, that is a declared outage: `serving` false with the time after
   which to try again. When the gateways have nothing of the old release in flight any more and say so, the
   pools replace their pods; rule 2 ends the outage.
4. A tokenizer that moves into the TTS pods, or out of them, is served where it was until the pods that are to
   have it serve; then the routing names those, and what it left goes when every gateway has heard.
5. A release of which a pool has quarantined a revision has failed: the one that is served stays the aim.

A pool hears of this by annotations that are written with its spec, in one call: which revisions go on serving
(`keep`: from before the change until every gateway has acknowledged what follows), which release is on trial
(until the traffic has gone over, no revision of it counts as good: so all can go back), which one failed, and
which one all go `back` to then: each pool's own last good revision may be of another release than its
neighbour's, where one change followed the other before all had noted that the first was good.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from stepaudio_operator import names
from stepaudio_operator.border import Release
from stepaudio_operator.conditions import Verdict
from stepaudio_operator.presets import PRESETS
from stepaudio_operator.records import PoolRecord, RoutedPool, Routing, Wake
from stepaudio_operator.spec.deployment import DeploymentSpec
from stepaudio_operator.spec.fields import seconds

RETRY_SHARE = 10
"""A client is told to try again after this part of the time that the slowest pool may load."""


@dataclass(frozen=True)
class ReleasePlan:
    """What should be stored, and what the release waits for."""

    routing: Routing | None
    """The whole routing object; None where nothing can be routed (yet)."""
    waiting: Verdict | None = None
    """Why another release than the wanted one is served, or none; None where all is well."""
    keep: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """Revisions that a pool has to go on serving, by component."""
    trial: Mapping[str, Release] = field(default_factory=dict)
    """A release that has yet to take over the traffic, by component that is to have it."""
    condemned: Mapping[str, Release] = field(default_factory=dict)
    """A release that failed and must be left, by component."""
    back: Mapping[str, Release] = field(default_factory=dict)
    """The release that takes the place of one that fails, or has failed, by component."""
    leaving: frozenset[str] = frozenset()
    """Components without a pool in the spec of which the pool still serves."""


@dataclass(frozen=True)
class _World:
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


def plan_release(
    spec: DeploymentSpec,
    pools: Mapping[str, PoolRecord],
    releases: Mapping[str, Mapping[str, Release]],
    wanted: Release,
    current: Routing | None,
    *,
    acks: Mapping[str, int | None],
    hearing: frozenset[str] = frozenset(),
) -> ReleasePlan:
    """The routing object that should be stored, and what the pools have to know.

    `pools` and `releases` (of every stored revision) are by component, `wanted` is the release that the spec
    asks for, `current` the stored routing object, `acks` the generation of it that each gateway pod serves
    which takes requests or still finishes some (None: not known), `hearing` the revisions of TTS whose pods
    hold the tokenizer.
    """
    if names.GATEWAY not in spec.components:
        return ReleasePlan(None)
    world = _World(spec, pools, releases, current, hearing)
    served = Release.parse(current.release) if current else _standing(world, wanted)
    if served is None:  # written by nobody of ours
        served = wanted
    failed = world.failed_in(wanted)
    aim = world.fallback(served, failed) if failed else wanted
    serving = current.serving if current else True
    waiting: Verdict | None = None
    lacking = world.lacking(aim)
    whole = not lacking and (aim.speaks(served) if serving else world.gateways_speak(aim))
    if whole:
        served, serving = aim, True
    elif aim != served and serving:
        serving = not _outage(world, lacking, aim.speaks(served))
    if not serving:
        missing = ", ".join(lacking) or names.GATEWAY
        waiting = Verdict("DeclaredOutage", f"nothing is served until {missing} can serve release {aim}")
    elif failed:
        waiting = Verdict(
            "ReleaseFailed", f"release {wanted} failed in {', '.join(failed)}: {aim} is served", stalled=True
        )
    elif aim != served:
        missing = ", ".join(lacking)
        waiting = Verdict("ReleasePending", f"traffic goes over to release {aim} when {missing} can serve it")
    routing = _routing(world, served, serving)
    heard = routing == current and current is not None and acknowledged(current, acks)
    # Also on the way into an outage: a pool may hear of the release and of that at once.
    crossing = aim != served and current is not None and (serving or not heard)
    kept = {c: _kept(world, c, aim if crossing else None, served, heard) for c in spec.components}
    if (heard_in_tts := _heard_in_tts(world, routing)) and (serving or not heard):
        kept[names.TTS] = tuple(sorted({*kept.get(names.TTS, ()), *heard_in_tts}))
    keep = {component: revisions for component, revisions in kept.items() if revisions}
    trial = _by_component(world, aim, served) if aim != served or not serving else {}
    condemned = _by_component(world, wanted, aim) if failed else {}
    back = aim if failed else served
    backs = _by_component(world, back, wanted) if back != wanted else {}
    leaving = _leaving(world, routing, heard)
    return ReleasePlan(routing, waiting, keep, trial, condemned, backs, leaving)


def _by_component(world: _World, release: Release, other: Release) -> dict[str, Release]:
    """The release that each pool has to have where `release` is to be; a gateway is only concerned where it
    would not understand the pods of `other`.
    """
    by = dict.fromkeys(world.components, release)
    return by if release.speaks(other) else {**by, names.GATEWAY: Release("", release.wire)}


def acknowledged(routing: Routing, acks: Mapping[str, int | None]) -> bool:
    """Whether every gateway serves this routing object, and nothing older any more."""
    return all(generation == routing.generation for generation in acks.values())


def _kept(
    world: _World, component: str, towards: Release | None, served: Release, heard: bool
) -> tuple[str, ...]:
    """What a pool has to go on serving: all that is served while a change `towards` another release is
    prepared; then the same, until every gateway has `heard` of what came of it.
    """
    pool = world.pools.get(component)
    if pool is None:
        return ()
    before = () if heard else pool.keep
    if towards is None:
        return before
    if component == names.GATEWAY:
        own = world.release(component, pool.revision)
        if towards.speaks(served):
            return ()
        return pool.keep or ((pool.revision,) if own is not None and own.speaks(served) else ())
    routed = world.current.pools.get(component) if world.current else None
    served_now = {r for r, weight in routed.revisions.items() if weight > 0} if routed else set()
    return tuple(sorted(served_now | set(before)))


def _heard_in_tts(world: _World, routing: Routing | None) -> Mapping[str, int]:
    """The revisions of TTS that have to stay for the tokenizer, whose own pool does not serve yet."""
    routed = routing.pools.get(names.TOKENIZER) if routing is not None else None
    if (
        routed is None
        or names.TOKENIZER not in world.components
        or not _is_of(world.pools.get(names.TTS), routed)
    ):
        return {}
    return routed.revisions


def _is_of(pool: PoolRecord | None, routed: RoutedPool | None) -> bool:
    return routed is not None and pool is not None and routed.service == pool.name


def _leaving(world: _World, routing: Routing | None, heard: bool) -> frozenset[str]:
    """What has no pool in the spec any more, but hears until every gateway knows of another that does."""
    routed = routing.pools.get(names.TOKENIZER) if routing is not None else None
    own = world.pools.get(names.TOKENIZER)
    moved_in = own is not None and world.spec.tokenizer_with_tts
    moved_out = names.TOKENIZER in world.components and names.TTS not in world.components
    left = set()
    if moved_in and not (heard and not _is_of(own, routed)):
        left.add(names.TOKENIZER)
    if moved_out and world.hearing and not (heard and not _is_of(world.pools.get(names.TTS), routed)):
        left.add(names.TTS)
    return frozenset(left)


def _standing(world: _World, wanted: Release) -> Release:
    """The release to begin with: another than the wanted one only where a whole set of it serves, that is,
    where somebody deleted the routing object.
    """
    ready: list[set[Release]] = []
    for component in world.components:
        pool = world.pools.get(component)
        found = {world.release(component, r) for r, n in (pool.revisions if pool else {}).items() if n > 0}
        ready.append({release for release in found if release is not None})
    whole = set.intersection(*ready)
    if wanted in whole or not whole:
        return wanted
    return min(whole, key=str)


def _outage(world: _World, lacking: list[str], speaks: bool) -> bool:
    """Whether the change of release needs an outage, and all is prepared that can be prepared before."""
    stuck = any(world.pools[c].outage_needed for c in world.components if c in world.pools)
    return stuck or (not speaks and not lacking)


def _routing(world: _World, release: Release, serving: bool) -> Routing | None:
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
        moves = component == names.TOKENIZER and _is_of(world.pools.get(names.TTS), before)
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


def _inside_tts(world: _World, tts: RoutedPool, before: RoutedPool | None) -> RoutedPool | None:
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
    world: _World, component: str, pool: PoolRecord, release: Release, before: RoutedPool | None
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
    if not counts and before is not None and _is_of(pool, before):
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
