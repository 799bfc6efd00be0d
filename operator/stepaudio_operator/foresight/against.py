"""What a file would do to the cluster as it is now: read, planned by the operator's own functions, not done.

The pools are played to their end as if every pod found a node and became ready (`rehearsal`). Only reads are
sent. An object that the operator would write "in other words than applied" is known only to an operator that
has written it, so here it may show as a change that is none.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from pydantic import BaseModel

from stepaudio_operator import names, plan
from stepaudio_operator.data_job import DataStep, plan_data
from stepaudio_operator.errors import NotFound, Rejected, SpecError
from stepaudio_operator.foresight.rehearsal import play
from stepaudio_operator.gpus import vram
from stepaudio_operator.kube import resources
from stepaudio_operator.kube.cache import Key
from stepaudio_operator.kube.client import Client
from stepaudio_operator.kube.cluster import Cluster
from stepaudio_operator.kube.resources import Resource
from stepaudio_operator.model_cache import CachePlan, shared_size
from stepaudio_operator.polling import Poller
from stepaudio_operator.reconcile.data import DataJobReconciler
from stepaudio_operator.reconcile.deployment import DeploymentReconciler, Desired
from stepaudio_operator.reconcile.pool import observe, target_of
from stepaudio_operator.records import ClaimRecord, PoolRecord
from stepaudio_operator.render import data as render_data
from stepaudio_operator.render import deployment as render_deployment
from stepaudio_operator.render import pool as render_pool
from stepaudio_operator.render import routing as render_routing
from stepaudio_operator.render.images import ImageDefaults
from stepaudio_operator.settings import PollSettings
from stepaudio_operator.spec import reading as spec
from stepaudio_operator.spec.fields import as_written

Raw = dict[str, Any]
_TOLD = frozenset(
    {
        names.ANNOTATION_KEEP,
        names.ANNOTATION_TRIAL,
        names.ANNOTATION_CONDEMNED,
        names.ANNOTATION_BACK,
    }
)
_NO_UID = "00000000-0000-0000-0000-000000000000"


@dataclass(frozen=True)
class Act:
    """One thing that would happen, and why."""

    what: str
    reason: str

    def __str__(self) -> str:
        return f"{self.what}: {self.reason}"


async def foresee(
    client: Client, deployment: Mapping[str, Any], images: ImageDefaults, now: Callable[[], datetime]
) -> list[Act]:
    """What applying `deployment` (with its namespace) would lead to, in order; empty where nothing would.

    Raises `SpecError` where it cannot be, `ClusterError` where the cluster cannot be read.
    """
    parsed = spec.parse_deployment(deployment)
    metadata = deployment["metadata"]
    key = Key(names.DEPLOYMENT_KIND, metadata["namespace"], metadata["name"])
    cluster = _cluster(client, key.namespace, now)
    if (too_large := vram.refused(parsed)) is not None:
        return [Act(f"nothing is done, {too_large[0]}", too_large[1])]
    await cluster.fill()
    live = await _find(client, resources.DEPLOYMENTS, key)
    owner: Raw = {
        "apiVersion": names.API_VERSION,
        "kind": names.DEPLOYMENT_KIND,
        "metadata": live["metadata"] if live else {**metadata, "uid": _NO_UID},
        "spec": deployment.get("spec") or {},
    }
    reconciler = DeploymentReconciler(cluster, _poller(), images, now)
    desired = reconciler.desired(key, owner, parsed, models_there=True)

    acts = [Act("nothing is done", "spec.paused is true; without it:")] if parsed.paused else []
    if live is None:
        acts.append(Act(f"create {key.kind} {key.name}", "it is not there"))
    elif changes := list(_changes(_said(spec.parse_deployment, live), as_written(parsed), "spec")):
        acts.append(Act(f"change {key.kind} {key.name}", "; ".join(changes)))
    acts += _models(cluster, key, desired.models)
    acts += await _children(cluster, key, owner, parsed, desired)
    first, then = [], []
    for pool in _pools(cluster, key, owner, parsed, desired):
        place = Key(names.POOL_KIND, key.namespace, pool["metadata"]["name"])
        sooner, later = await _pool(cluster, place, pool, now())
        first += sooner
        then += later
    return [*acts, *first, *_release(cluster, key, desired), *then]


def _models(cluster: Cluster, key: Key, plan: CachePlan | None) -> list[Act]:
    """What brings the models, before all that follows."""
    if plan is None or plan.filled:
        return []
    name = plan.status.get("folder") or plan.status["claimName"]
    jobs = {names.copy(name, node): copy for node, copy in plan.copies.items()} or {name: plan}
    acts = [
        Act(
            f"wait for Job {job}"
            if cluster.cache.held(resources.JOBS.kind, key.namespace, job)
            else f"create Job {job}",
            copy.verdict.message,
        )
        for job, copy in jobs.items()
        if copy.verdict is not None
    ]
    if cluster.pools(key):
        acts.append(Act("pools keep the models that they have", "until the new ones are there; then:"))
    return acts


async def foresee_data_job(
    client: Client, data_job: Mapping[str, Any], images: ImageDefaults, now: Callable[[], datetime]
) -> list[Act]:
    """What applying `data_job` (with its namespace) would lead to, as `foresee`."""
    parsed = spec.parse_data_job(data_job)
    metadata = data_job["metadata"]
    key = Key(names.DATA_JOB_KIND, metadata["namespace"], metadata["name"])
    cluster = _cluster(client, key.namespace, now)
    await cluster.fill()
    live = await _find(client, resources.DATA_JOBS, key)
    told = (live or {}).get("status") or {}
    acts: list[Act] = []
    if live is None:
        acts.append(Act(f"create {key.kind} {key.name}", "it is not there"))
    elif changes := list(_changes(_said(spec.parse_data_job, live), as_written(parsed), "spec")):
        acts.append(Act(f"change {key.kind} {key.name}", "; ".join(changes)))
    asked = render_data.asked(key.name, parsed)
    seen = DataJobReconciler(cluster, _poller(), images, now).observed(key)
    if (volume := parsed.output.volume) is not None:
        size = shared_size(volume.size, seen.claim)
        claim = render_data.claim(key.namespace, key.name, volume, size)
        acts += await _child(cluster, None, claim)
        seen = replace(seen, claim=seen.claim or ClaimRecord.from_raw(claim))
    plan_ = plan_data(asked, seen, told, now())
    if plan_.step is DataStep.DELETE_JOB:
        acts.append(Act(f"delete Job {names.data(key.name)}", plan_.verdict.message))
        plan_ = plan_data(asked, replace(seen, job=None, pods=()), told, now())
    if plan_.step is DataStep.CREATE_JOB:
        image = render_data.reference(parsed, images, plan_.figures.get("image", ""))
        acts.append(Act(f"create Job {names.data(key.name)}", f"makes the data, by {image}"))
    return acts


def _cluster(client: Client, namespace: str, now: Callable[[], datetime]) -> Cluster:
    return Cluster(
        client,
        lambda key, fresh: None,
        namespace=namespace,
        instance="",
        wall=now,
        on_trouble=lambda resource, error: None,
    )


def _poller() -> Poller:
    """One that nobody runs: no pod is asked."""
    return Poller(PollSettings(), time.monotonic, lambda key: None, lambda outcome: None)


async def _find(client: Client, resource: Resource, key: Key) -> Raw | None:
    try:
        return await client.get(resource, key.namespace, key.name)
    except NotFound:
        return None


async def _children(
    cluster: Cluster, key: Key, owner: Raw, parsed: spec.DeploymentSpec, desired: Desired
) -> list[Act]:
    """The deployment's own children."""
    routing = desired.release.routing
    config = [] if routing is None else [render_routing.config_map(owner, routing)]
    acts = [act for child in [*desired.children, *config] for act in await _child(cluster, owner, child)]
    existing = {(held.kind, held.name) for held in cluster.cache.children(key.namespace, key.name)}
    for kind, name in render_deployment.obsolete(owner, parsed, sorted(existing), desired.release.leaving):
        acts.append(Act(f"delete {kind} {name}", "its component has no pool any more"))
    return acts


async def _child(cluster: Cluster, owner: Raw | None, child: Raw) -> list[Act]:
    kind, name = child["kind"], child["metadata"]["name"]
    try:
        difference = await cluster.difference(child, owner)
    except Rejected as taken:
        return [Act(f"cannot have {kind} {name}", str(taken))]
    if difference is None:
        return []
    if difference == "missing":
        why = "belongs to nobody, and stays" if owner is None else f"belongs to {owner['metadata']['name']}"
        return [Act(f"create {kind} {name}", why)]
    held = cluster.cache.held(kind, child["metadata"]["namespace"], name)
    changes: list[str] = []
    if kind == names.POOL_KIND and held is not None:
        live = held.raw()
        before = {k: v for k, v in live["spec"].items() if k != "replicas" or k in child["spec"]}
        changes = list(_changes(before, child["spec"], "spec"))
        changes = changes or list(_changes(_told(live), _told(child), "annotations"))
    return [Act(f"change {kind} {name}", "; ".join(changes) or "this version makes it otherwise")]


def _pools(
    cluster: Cluster, key: Key, owner: Raw, parsed: spec.DeploymentSpec, desired: Desired
) -> Iterator[Raw]:
    """The pools as they would be once written."""
    pools = [child for child in desired.children if child["kind"] == names.POOL_KIND]
    records = {pool["spec"]["component"]: PoolRecord.from_raw(pool) for pool in pools}
    records |= cluster.pools(key)
    replicas = {record.name: record.replicas for record in records.values()}
    for pool in pools:
        name = pool["metadata"]["name"]
        held = cluster.cache.held(names.POOL_KIND, key.namespace, name)
        live: Raw = held.raw() if held else {"metadata": {"uid": _NO_UID}}
        said = {k: v for k, v in (live["metadata"].get("annotations") or {}).items() if k not in _TOLD}
        annotations = {**said, **pool["metadata"].get("annotations", {})}
        yield {
            **pool,
            "metadata": {**live["metadata"], **pool["metadata"], "annotations": annotations},
            "spec": {"replicas": replicas[name], **pool["spec"]},
            "status": live.get("status") or {},
        }


def _told(pool: Raw) -> Raw:
    """What its deployment told a pool of the release."""
    return {k: v for k, v in (pool["metadata"].get("annotations") or {}).items() if k in _TOLD}


async def _pool(cluster: Cluster, key: Key, pool: Raw, now: datetime) -> tuple[list[Act], list[Act]]:
    """What the pool does at once, and what it does when the release has moved."""
    parsed = spec.parse_pool(pool)
    revision = render_pool.revision(pool, parsed)
    target = replace(target_of(pool, parsed, revision), watched=True)
    acts = await _child(cluster, pool, render_pool.disruption_budget(pool, parsed))
    observed = observe(cluster, key, pool)
    steps, reached = play(target, observed, now)
    grouped = [record.hash8 for record in observed.revisions if "group" in record.data]
    grouped += [revision.hash8] if "group" in revision.data else []
    groups = {replica.name for replica in observed.pods if replica.group}
    groups |= {
        names.pod(target.name, hash8, slot)
        for hash8 in grouped
        for slot in {step.slot for step in steps if isinstance(step, plan.CreatePod)}
    }
    for step in steps:
        acts.append(_act(target, step, groups))
        if isinstance(step, plan.CreateRevision) and "claimTemplate" in revision.data:
            acts.append(Act(f"create ResourceClaimTemplate {revision.name}", "asks for the GPUs of each pod"))
    if not target.keep:
        return acts, []
    afterwards, _ = play(replace(target, keep=()), reached, now)
    return acts, [_act(target, step, groups) for step in afterwards]


def _act(target: plan.PoolTarget, step: plan.Step, groups: Collection[str]) -> Act:
    """`groups` are the names of replicas that are not one pod each."""
    match step:
        case plan.CreateRevision(hash8=hash8):
            what = f"create ControllerRevision {names.revision(target.name, hash8)}"
        case plan.DeleteRevision(name=name):
            what = f"delete ControllerRevision {name}"
        case plan.CreatePod(hash8=hash8, slot=slot):
            name = names.pod(target.name, hash8, slot)
            what = f"create {_kind(name, groups)} {name}"
        case plan.DeletePod(name=name):
            what = f"delete {_kind(name, groups)} {name}"
        case plan.ApplyWorkload(hash8=hash8, replicas=replicas):
            what = f"roll Deployment {target.name} to revision {hash8} at {replicas} replicas"
        case plan.Wait(seconds=seconds):
            what = f"{target.name} waits {seconds:.0f} s"
    return Act(what, step.reason)


def _kind(name: str, groups: Collection[str]) -> str:
    return resources.GROUPS.kind if name in groups else resources.PODS.kind


def _release(cluster: Cluster, key: Key, desired: Desired) -> list[Act]:
    """Where the traffic goes, if to another release."""
    served = render_routing.parse(cluster.config_map(key.namespace, names.routing(key.name)))
    routing, waiting = desired.release.routing, desired.release.waiting
    if waiting is not None:
        return [Act(waiting.reason, waiting.message)]
    if served is None or routing is None or served.release == routing.release:
        return []
    return [Act(f"move traffic to release {routing.release}", f"{served.release} is served")]


def _said(parse: Callable[[Raw], BaseModel], live: Raw) -> Any:
    """What a live object's spec says beside defaults; all of it where it is one of older rules."""
    try:
        return as_written(parse(live))
    except SpecError:
        return live["spec"]


def _changes(before: Any, after: Any, path: str) -> Iterator[str]:
    """The fields in which two specs differ, with both values."""
    if isinstance(before, Mapping) and isinstance(after, Mapping):
        for name in [*before, *(name for name in after if name not in before)]:
            yield from _changes(before.get(name), after.get(name), f"{path}.{name}")
    elif before != after:
        yield f"{path} {_short(before)} -> {_short(after)}"


def _short(value: Any) -> str:
    return "unset" if value is None else json.dumps(value, ensure_ascii=False)
