"""Models on the nodes' own disks: on which nodes they have to be, and what is to be done on each. Pure.

The scheduler chooses, the models follow:

1. They have to be on every node that runs a pod of the deployment's pools, old revisions' too. Where the spec
   names other models than the pools have, the pools keep theirs until the new ones are on all these nodes: so
   no pod is drained before its successor finds its models in the place that it leaves.
2. A pod that is put on another node (the first ones, a surge, more replicas) waits there in its first
   container, and its node becomes one of these. Nodes with the models are preferred for new pods. So it is
   for a pod of a revision before: its Job is made as those of the other nodes were.
3. One Job a folder and node brings them, whichever deployment of the namespace asks first. The Job stays:
   that it is complete says that the folder is whole. A Job that has not come to its end goes when no pod of
   anybody who wants its folder is on its node any more.
4. Where pods wait although the Job is complete, the node has lost its disk (it was set up anew): the Job is
   made again.
5. Where nobody wants a folder with `whenUnused: Delete`, a Job takes it away on each node; then both Jobs go.
   One that still brings it is suspended first. If somebody wants it again meanwhile, both go, and the folder
   is brought anew.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any

from stepaudio_operator.conditions import DOWNLOADING, Verdict
from stepaudio_operator.model_cache import CachePlan, CacheStep, plan_job
from stepaudio_operator.records import CopyObserved, JobRecord, PodRecord
from stepaudio_operator.spec.models import NodeFolder

LOST_AFTER = timedelta(minutes=1)
"""A pod that waits for so long for models that are said to be there shows that they are not."""
SHOWN = 20
"""Nodes in the status, at most."""


class Leaving(StrEnum):
    """What to do about a folder on a node that nobody wants."""

    REMOVE = "create the Job that takes the folder away"
    STOP = "suspend the Job that brings it"
    FORGET = "delete the Job that brought it"
    END = "delete the Job that took it away"


def nodes_of(pods: Iterable[PodRecord]) -> list[str]:
    """The nodes that have to have the models, for these pods of pools."""
    return sorted({pod.node for pod in pods if pod.live and pod.node})


def older(pods: Iterable[PodRecord], folder: str) -> list[tuple[str, str]]:
    """Folder and node of the models that pods wait for which want others than `folder`."""
    return sorted({(p.folder, p.node) for p in pods if p.live and p.awaiting_since and p.folder != folder})


def awaited_since(pods: Iterable[PodRecord], folder: str, node: str) -> datetime | None:
    """Since when a pod waits for its models on a node."""
    here = (p for p in pods if p.live and (p.folder, p.node) == (folder, node))
    return min((p.awaiting_since for p in here if p.awaiting_since), default=None)


def plan_copies(models: NodeFolder, seen: Sequence[CopyObserved], now: datetime) -> CachePlan:
    """What the folder comes to on the nodes that have to have it, in order."""
    copies = {one.node: plan_copy(one, now) for one in seen}
    open_ = {node: plan for node, plan in copies.items() if not plan.filled}
    phases = {plan.status["phase"] for plan in open_.values()}
    phase = next((p for p in ("Failed", "Downloading", "Pending") if p in phases), "Ready")
    status: dict[str, Any] = {"claimName": models.claim_name, "folder": models.folder, "phase": phase}
    status["readyNodes"] = len(copies) - len(open_)
    worst = sorted(open_, key=lambda node: _rank(open_[node], node))
    if open_:
        status["nodes"] = [open_[node].status for node in sorted(worst[:SHOWN])]
    waits = [plan.look_after_s for plan in copies.values() if plan.look_after_s is not None]
    return CachePlan(
        status,
        verdict=_verdict(worst[0], open_[worst[0]], len(open_) - 1) if open_ else None,
        look_after_s=min(waits, default=None),
        copies=copies,
    )


def leaving(
    job: JobRecord | None, removal: JobRecord | None, *, running: bool, wanted: bool, needed: bool
) -> Leaving | None:
    """What to do about the folder on one node, where `job` brings it and `removal` takes it away.

    `running`: a pod of `job` is; `wanted`: somebody names the folder; `needed`: a pod of somebody who does is
    on the node.
    """
    if wanted:
        if job is not None and not job.deleting:
            spoilt = removal is not None or job.suspended
            return Leaving.FORGET if spoilt or not (job.complete or needed) else None
        return Leaving.END if removal is not None and not removal.deleting else None
    if job is None:
        return Leaving.END if removal is not None and removal.complete and not removal.deleting else None
    if job.deleting or job.when_unused != "Delete":
        return None
    if removal is not None:
        return Leaving.FORGET if removal.complete else None
    if job.complete or job.failed or (job.suspended and not running):
        return Leaving.REMOVE
    return None if job.suspended else Leaving.STOP


def plan_copy(seen: CopyObserved, now: datetime) -> CachePlan:
    """What a folder comes to on one node."""
    job, node = seen.fetch.job, seen.node
    status: dict[str, Any] = {"node": node, "phase": "Pending"}
    if seen.removing or (job is not None and job.suspended):
        message = f"the models on node {node} are being removed, then they are brought anew"
        return CachePlan(status, verdict=Verdict(DOWNLOADING, message))  # `leaving` goes back on it
    if job is None and any(not pod.failed for pod in seen.fetch.pods):
        message = f"waits for models on node {node}: a pod of an earlier Job is still going"
        return CachePlan(status, verdict=Verdict(DOWNLOADING, message))
    if job is None:
        begins = Verdict(DOWNLOADING, f"waits for models on node {node}: their Job is being made")
        return CachePlan(status, CacheStep.CREATE_JOB, begins)
    pod = f"the pod that brings models to node {node}"
    plan = plan_job(status, job, seen.fetch, now, pod=pod, going_on=_on_the_way)
    if job.complete and seen.awaited_since is not None:
        lost_at = max(seen.awaited_since, job.ended_at or seen.awaited_since) + LOST_AFTER
        left = (lost_at - now).total_seconds()
        if left > 0:
            return CachePlan(plan.status, look_after_s=left)
        lost = Verdict(DOWNLOADING, f"node {node} has lost the models: they are brought anew")
        return CachePlan(status, CacheStep.DELETE_JOB, lost)
    return plan


def _on_the_way(status: Mapping[str, Any]) -> str:
    """How far a node is, in the status's own steps, so that the words change no more often than that."""
    told = f"waits for models on node {status['node']}"
    if "percent" not in status:
        return told
    by = f", all of them by about {status['expectedAt']}" if "expectedAt" in status else ""
    return f"{told}: {status['percent']} %{by}"


def _rank(plan: CachePlan, node: str) -> tuple[bool, bool, int, str]:
    """Nodes where a person has to help come first, then those that have a problem, then the slowest."""
    verdict, percent = _of(plan), plan.status.get("percent", 0)
    return (not verdict.stalled, verdict.reason == DOWNLOADING, percent, node)


def _verdict(worst: str, plan: CachePlan, others: int) -> Verdict:
    """The words of the `worst` node, and how many `others` wait."""
    verdict = _of(plan)
    where = "" if f"node {worst}" in verdict.message else f"node {worst}: "
    more = f" (and {others} more nodes)" if others else ""
    return replace(verdict, message=f"{where}{verdict.message}{more}")


def _of(plan: CachePlan) -> Verdict:
    assert plan.verdict is not None  # noqa: S101 - it is not filled
    return plan.verdict
