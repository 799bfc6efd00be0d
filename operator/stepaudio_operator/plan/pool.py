"""The plan of one pool: revisions, then pods or the gateway's Deployment, then the history."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime

from stepaudio_operator import names
from stepaudio_operator.plan.course import Course, aim, course, fallback, keeps, least
from stepaudio_operator.plan.decisions import deadlines
from stepaudio_operator.plan.groups import plan_groups
from stepaudio_operator.plan.pods import plan_pods
from stepaudio_operator.plan.steps import (
    ApplyWorkload,
    CreateRevision,
    DeletePod,
    DeleteRevision,
    PoolTarget,
    Step,
)
from stepaudio_operator.records import PodRecord, PoolObserved
from stepaudio_operator.spec.fields import seconds
from stepaudio_operator.spec.pool import PoolSpec
from stepaudio_operator.spec.rollout import IN_PLACE, SURGE_TIMEOUT, Rollout


def pool_target(
    name: str,
    spec: PoolSpec,
    wanted: str,
    *,
    ask: str = "",
    keep: tuple[str, ...] = (),
    condemned: bool = False,
    trial: bool = False,
    back: str = "",
    watched: bool = True,
) -> PoolTarget:
    """The target of the pool `name` whose spec asks for revision `wanted`; see `PoolTarget` for the rest."""
    rollout = spec.rollout or Rollout()
    steps = rollout.canary.steps if rollout.canary is not None else ()
    return PoolTarget(
        name=name,
        component=spec.component,
        wanted=wanted,
        replicas=spec.replicas,
        strategy=rollout.strategy,
        max_unavailable=rollout.max_unavailable,
        surge_timeout_s=seconds(rollout.surge_timeout or SURGE_TIMEOUT),
        progress_deadline_s=seconds(rollout.progress_deadline),
        auto_rollback=rollout.auto_rollback,
        history_limit=rollout.history_limit,
        canary=tuple((step.traffic, seconds(step.pause)) for step in steps),
        ask=ask,
        keep=keep,
        condemned=condemned,
        trial=trial,
        back=back,
        local_models=spec.models is not None and spec.models.source.node_local is not None,
        watched=watched,
    )


def plan_pool(target: PoolTarget, observed: PoolObserved, now: datetime) -> tuple[Step, ...]:
    """The steps to take now, in order. Empty when the pool is as it should be, or when only time helps."""
    steps: list[Step] = []
    if not any(r.hash8 == target.wanted for r in observed.revisions):
        number = max((r.number for r in observed.revisions), default=0) + 1
        steps.append(CreateRevision(target.wanted, number, "the spec asks for a revision that is not stored"))
    if target.replicas is not None:
        if target.component == names.GATEWAY:
            steps += _plan_workload(target, target.replicas, observed)
        else:
            sets = _plan_sets(target, target.replicas, observed, now)
            going = {step.uid for step in sets if isinstance(step, DeletePod)}
            steps += sets + plan_groups(target, (p for p in observed.pods if p.uid not in going), now)
        steps += deadlines(target, observed, now)
    steps += _plan_history(target, observed)
    return tuple(steps)


def _plan_sets(target: PoolTarget, replicas: int, observed: PoolObserved, now: datetime) -> list[Step]:
    """The pods, as one set on its course, or as several where other revisions have to go on serving: a set of
    each release of them, for a request goes through the pods of one.
    """
    kept = keeps(target, observed)
    if not kept:
        return plan_pods(course(target, replicas, observed), replicas, observed.pods, now)
    theirs = tuple(p for p in observed.pods if p.revision in kept)
    rest = replace(observed, pods=tuple(p for p in observed.pods if p.revision not in kept))
    onward = course(target, replicas, rest)
    release = observed.releases
    served = {release.get(hash8) for hash8 in kept}
    if not any(p.revision != onward.aim and release.get(p.revision) in served for p in rest.pods):
        onward = replace(onward, floor=0)  # what else is there is of a release that nobody is sent to
    stay = replicas if onward.phase in ("Surge", "Recreate") else least(target, replicas)
    steps: list[Step] = []
    for own in _by_release(observed, kept):
        pods = tuple(p for p in theirs if p.revision in own)
        steps += plan_pods(_as_it_is(pods, own, stay), stay, pods, now)
    if onward.phase == "Recreate":
        return steps
    if target.strategy == IN_PLACE:  # only in the places that are given up
        holding = sum(not p.failed for p in theirs)
        onward = replace(onward, new_max=max(replicas - holding, 0))
    return steps + plan_pods(onward, replicas, rest.pods, now)


def _by_release(observed: PoolObserved, kept: frozenset[str]) -> list[frozenset[str]]:
    """The kept revisions, those of one release together."""
    release = observed.releases
    found: dict[str, set[str]] = {}
    for hash8 in sorted(kept):
        found.setdefault(release.get(hash8, ""), set()).add(hash8)
    return [frozenset(own) for own in found.values()]


def _as_it_is(pods: Sequence[PodRecord], kept: frozenset[str], stay: int) -> Course:
    """The course on which `stay` of the `pods` are kept, of whichever of the revisions they are."""
    live = [p.revision for p in pods if p.live]
    most = max(kept, key=lambda hash8: (live.count(hash8), hash8))
    others = len(live) - live.count(most)
    return Course(most, "", "InPlace", floor=stay, new_max=stay - others, old_min=others, spare=0)


def _plan_workload(target: PoolTarget, replicas: int, observed: PoolObserved) -> list[Step]:
    workload, to = observed.workload, aim(target, observed)
    if workload is None:
        reason = "there is no Deployment yet"
    elif workload.revision != to and workload.revision not in target.keep:
        reason = f"the Deployment is at revision {workload.revision or 'of nobody'}"
    elif workload.replicas != replicas:
        to = workload.revision
        reason = f"the Deployment has {workload.replicas} replicas"
    else:
        return []
    return [ApplyWorkload(to, replicas, reason)]


def _plan_history(target: PoolTarget, observed: PoolObserved) -> list[Step]:
    memory = observed.memory
    used = {p.revision for p in observed.pods} | {target.wanted, *target.keep, memory.good}
    used.add(fallback(target, observed))
    if observed.workload is not None:
        used.add(observed.workload.revision)
    if memory.rollout is not None:
        used |= {memory.rollout.revision, memory.rollout.stable}
    unused = sorted((r for r in observed.revisions if r.hash8 not in used), key=lambda r: r.number)
    spare = unused[: max(len(unused) - target.history_limit, 0)]
    return [DeleteRevision(r.name, r.uid, "beyond the history limit") for r in spare]
