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
   have it serve; then the routing names those, and what it left goes when every gateway has heard. Until then
   the pool that it leaves is told what every pool is: it stays with the release that is served, or goes back
   to it, whatever it was asked for last.
5. A release of which a pool has quarantined a revision has failed: the one that is served stays the aim.

A pool hears of this by annotations that are written with its spec, in one call: which revisions go on serving
(`keep`: from before the change until every gateway has acknowledged what follows), which release is on trial
(until the traffic has gone over, no revision of it counts as good: so all can go back), which one failed, and
which one all go `back` to then: each pool's own last good revision may be of another release than its
neighbour's, where one change followed the other before all had noted that the first was good.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from stepaudio_operator import names
from stepaudio_operator.border import Release
from stepaudio_operator.conditions import Verdict
from stepaudio_operator.records import PoolRecord, Routing
from stepaudio_operator.routes import World, is_of, routing_of
from stepaudio_operator.spec.deployment import DeploymentSpec


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
    """A release that failed, or that a pool which leaves was asked for last, by component: to be left."""
    back: Mapping[str, Release] = field(default_factory=dict)
    """The release that takes the place of one that fails, or has failed, by component."""
    leaving: frozenset[str] = frozenset()
    """Components without a pool in the spec of which the pool still serves."""


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
    world = World(spec, pools, releases, current, hearing)
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
    routing = routing_of(world, served, serving)
    heard = routing == current and current is not None and acknowledged(current, acks)
    leaving = _leaving(world, routing, heard)
    # Also on the way into an outage: a pool may hear of the release and of that at once.
    crossing = aim != served and current is not None and (serving or not heard)
    kept = {
        c: _kept(world, c, aim if crossing else None, served, heard) for c in (*spec.components, *leaving)
    }
    if (heard_in_tts := _heard_in_tts(world, routing)) and (serving or not heard):
        kept[names.TTS] = tuple(sorted({*kept.get(names.TTS, ()), *heard_in_tts}))
    keep = {component: revisions for component, revisions in kept.items() if revisions}
    trial = _by_component(world, aim, served) if aim != served or not serving else {}
    condemned = _by_component(world, wanted, aim) if failed else {}
    back = aim if failed else served
    backs = _by_component(world, back, wanted) if back != wanted else {}
    for component in leaving:
        asked = world.release(component, pools[component].wanted)
        if asked is not None and asked != back:
            condemned[component], backs[component] = asked, back
    return ReleasePlan(routing, waiting, keep, trial, condemned, backs, leaving)


def _by_component(world: World, release: Release, other: Release) -> dict[str, Release]:
    """The release that each pool has to have where `release` is to be; a gateway is only concerned where it
    would not understand the pods of `other`.
    """
    by = dict.fromkeys(world.components, release)
    return by if release.speaks(other) else {**by, names.GATEWAY: Release("", release.wire)}


def acknowledged(routing: Routing, acks: Mapping[str, int | None]) -> bool:
    """Whether every gateway serves this routing object, and nothing older any more."""
    return all(generation == routing.generation for generation in acks.values())


def _kept(
    world: World, component: str, towards: Release | None, served: Release, heard: bool
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
    if routed is None or not is_of(pool, routed):
        return before
    return tuple(sorted({r for r, weight in routed.revisions.items() if weight > 0} | set(before)))


def _heard_in_tts(world: World, routing: Routing | None) -> Mapping[str, int]:
    """The revisions of TTS that have to stay for the tokenizer, whose own pool does not serve yet."""
    routed = routing.pools.get(names.TOKENIZER) if routing is not None else None
    waits = names.TOKENIZER in world.components and is_of(world.pools.get(names.TTS), routed)
    return routed.revisions if routed is not None and waits else {}


def _leaving(world: World, routing: Routing | None, heard: bool) -> frozenset[str]:
    """What has no pool in the spec any more, but hears until every gateway knows of another that does."""
    routed = routing.pools.get(names.TOKENIZER) if routing is not None else None
    moved_out = names.TOKENIZER in world.components and names.TTS not in world.components
    left = {
        names.TOKENIZER: world.spec.tokenizer_with_tts,
        names.TTS: moved_out and bool(world.hearing),
    }
    return frozenset(
        component
        for component, pool in world.pools.items()
        if left.get(component) and (is_of(pool, routed) or not heard)
    )


def _standing(world: World, wanted: Release) -> Release:
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


def _outage(world: World, lacking: list[str], speaks: bool) -> bool:
    """Whether the change of release needs an outage, and all is prepared that can be prepared before."""
    stuck = any(world.pools[c].outage_needed for c in world.needed if c in world.pools)
    return stuck or (not speaks and not lacking)
