"""Plays the plan of a pool to its end, in a world where all goes well. Pure.

Every pod finds a node and becomes ready, pods that are asked to go are gone, waits pass. So the steps are
those that `plan_pool` and `decide` really take, in their order and with their reasons; what a cluster without
room or a revision that fails would make of them shows only when it happens.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

from stepaudio_operator import names, plan
from stepaudio_operator.records import PodRecord, PoolObserved, RevisionRecord, WorkloadRecord
from stepaudio_operator.times import stamp

ROUNDS = 10_000
"""A plan that is not at its end after so many rounds is broken off; the largest pool takes fewer."""
_ROUND = timedelta(seconds=1)


def play(
    target: plan.PoolTarget, observed: PoolObserved, now: datetime
) -> tuple[list[plan.Step], PoolObserved]:
    """The steps until nothing is left to do, and what is there then."""
    taken: list[plan.Step] = []
    waited = False  # in vain, where the next round finds nothing to do either
    for _ in range(ROUNDS):
        decided = replace(observed, memory=plan.decide(target, observed, now))
        steps = plan.plan_pool(target, decided, now)
        acts = [step for step in steps if not isinstance(step, plan.Wait)]
        waits = [step for step in steps if isinstance(step, plan.Wait)]
        taken += acts
        reached = _obeyed(_after(target, decided, acts, now), now)
        if reached == observed and (not waits or waited):
            break
        waited = reached == observed
        if waited:
            wait = min(waits, key=lambda step: step.seconds)
            taken.append(wait)
            now += timedelta(seconds=wait.seconds)
        observed, now = reached, now + _ROUND
    return taken, observed


def _after(
    target: plan.PoolTarget, observed: PoolObserved, acts: Sequence[plan.Step], now: datetime
) -> PoolObserved:
    """What is there when the steps are done."""
    pods, revisions, workload = list(observed.pods), list(observed.revisions), observed.workload
    for act in acts:
        match act:
            case plan.CreateRevision(hash8=hash8, number=number):
                revisions.append(_revision(target, hash8, number))
            case plan.DeleteRevision(uid=uid):
                revisions = [r for r in revisions if r.uid != uid]
            case plan.CreatePod(hash8=hash8, slot=slot, attempt=attempt):
                pods.append(_pod(target, hash8, slot, attempt, now))
            case plan.DeletePod(uid=uid):
                pods = [p for p in pods if p.uid != uid]
            case plan.ApplyWorkload(hash8=hash8, replicas=replicas):
                workload = _workload(target, hash8, replicas)
    return replace(observed, pods=tuple(pods), revisions=tuple(revisions), workload=workload)


def _obeyed(observed: PoolObserved, now: datetime) -> PoolObserved:
    """The same when every pod is ready, every leaving one gone and the Deployment rolled out."""
    pods = tuple(p if p.failed or p.ready else _served(p, now) for p in observed.pods if not p.deleting)
    work = observed.workload
    if work is not None:
        count = work.replicas
        work = replace(work, total_replicas=count, updated_replicas=count, ready_replicas=count)
        work = replace(work, observed_generation=work.generation)
    return replace(observed, pods=pods, workload=work)


def _served(pod: PodRecord, now: datetime) -> PodRecord:
    return replace(
        pod,
        phase="Running",
        ready=True,
        ready_changed=now,
        scheduled=True,
        unschedulable="",
        unschedulable_since=None,
        waiting="",
        running_since=now,
    )


def _pod(target: plan.PoolTarget, hash8: str, slot: int, attempt: int, now: datetime) -> PodRecord:
    name = names.pod(target.name, hash8, slot)
    annotations = {names.ANNOTATION_SLOT: str(slot), names.ANNOTATION_ATTEMPT: str(attempt)}
    created = {"creationTimestamp": stamp(now)}
    metadata = _metadata(target, name, hash8) | created | {"annotations": annotations}
    return PodRecord.from_raw({"metadata": metadata})


def _revision(target: plan.PoolTarget, hash8: str, number: int) -> RevisionRecord:
    name = names.revision(target.name, hash8)
    return RevisionRecord.from_raw({"metadata": _metadata(target, name, hash8), "revision": number})


def _workload(target: plan.PoolTarget, hash8: str, replicas: int) -> WorkloadRecord:
    metadata = _metadata(target, target.name, hash8) | {"generation": 1}
    template = {"metadata": {"labels": {names.LABEL_REVISION: hash8}}}
    return WorkloadRecord.from_raw(
        {"metadata": metadata, "spec": {"replicas": replicas, "template": template}}
    )


def _metadata(target: plan.PoolTarget, name: str, hash8: str) -> dict[str, Any]:
    labels: Mapping[str, str] = {
        names.LABEL_POOL: target.name,
        names.LABEL_COMPONENT: target.component,
        names.LABEL_REVISION: hash8,
    }
    return {"name": name, "uid": f"not made: {name}", "labels": labels}
