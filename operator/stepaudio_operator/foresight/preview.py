"""What a deployment or a data job would become in an empty cluster, by the real thing's own functions."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

from stepaudio_operator import names, plan
from stepaudio_operator.records import PoolObserved, PoolRecord, RevisionRecord
from stepaudio_operator.release import plan_release
from stepaudio_operator.render import data as render_data
from stepaudio_operator.render import deployment as render_deployment
from stepaudio_operator.render import models as render_models
from stepaudio_operator.render import pool as render_pool
from stepaudio_operator.render import routing as render_routing
from stepaudio_operator.render.images import ImageDefaults
from stepaudio_operator.render.pool import Revision
from stepaudio_operator.spec.deployment import DeploymentSpec
from stepaudio_operator.spec.reading import parse_data_job, parse_deployment, parse_pool

# No cluster gives uids here; owner references need one all the same.
_NO_UID = "00000000-0000-0000-0000-000000000000"


@dataclass(frozen=True)
class Planned:
    """One object that would be created, and why."""

    body: dict[str, Any]
    reason: str


def objects(deployment: Mapping[str, Any], images: ImageDefaults) -> list[Planned]:
    """Everything that the operator would create for `deployment`, in order. Raises SpecError."""
    metadata = {"namespace": "default", "uid": _NO_UID, **(deployment.get("metadata") or {})}
    owner = {**deployment, "metadata": metadata}
    spec = parse_deployment(owner)
    planned, records = _models(owner, spec, images), {}
    for child in render_deployment.children(owner, spec, {}, images):
        planned.append(Planned(child, f"belongs to {owner['metadata']['name']}"))
        if child["kind"] == names.POOL_KIND:
            records[child["spec"]["component"]] = PoolRecord.from_raw(child)
    revisions: dict[str, Revision] = {}
    for entry in list(planned):
        if entry.body["kind"] == names.POOL_KIND:
            pool = copy.deepcopy(entry.body)
            pool["metadata"]["uid"] = _NO_UID
            made, revisions[pool["spec"]["component"]] = _pool_objects(pool)
            planned += made
    stated = {
        c: replace(record, revision=revisions[c].hash8, observed_generation=1)
        for c, record in records.items()
    }
    releases = {c: {revision.hash8: revision.release} for c, revision in revisions.items()}
    wanted = next(revision.release for c, revision in revisions.items() if c != names.GATEWAY)
    hearing = frozenset(r.hash8 for r in revisions.values() if r.data.get("withTokenizer"))
    routing = plan_release(spec, stated, releases, wanted, None, acks={}, hearing=hearing).routing
    if routing is not None:
        config = render_routing.config_map(owner, routing)
        planned.append(Planned(config, "tells the gateways which revisions to serve"))
    return planned


def data_job_objects(data_job: Mapping[str, Any], images: ImageDefaults) -> list[Planned]:
    """Everything that the operator would create for `data_job`, in order. Raises SpecError."""
    metadata = {"namespace": "default", "uid": _NO_UID, **(data_job.get("metadata") or {})}
    owner = {**data_job, "metadata": metadata}
    spec = parse_data_job(owner)
    planned = []
    if (volume := spec.output.volume) is not None:
        claim = render_data.claim(metadata["namespace"], metadata["name"], volume, volume.size)
        planned.append(Planned(claim, "holds the data, and stays"))
    job = render_data.job(owner, spec, render_data.reference(spec, images, ""))
    return [*planned, Planned(job, "makes the data")]


def _models(owner: Mapping[str, Any], spec: DeploymentSpec, images: ImageDefaults) -> list[Planned]:
    """The volume of downloaded models and the Job that fills it."""
    name, namespace = render_models.claim_name(spec), owner["metadata"]["namespace"]
    if name is None:
        return []
    user = (owner["metadata"]["name"], owner["metadata"]["uid"])
    claim = render_models.claim(
        namespace,
        name,
        spec,
        size=render_models.size(spec),
        policy=render_models.when_unused(spec),
        users=[user],
    )
    job = render_models.job(namespace, name, _NO_UID, spec, images)
    return [Planned(claim, "holds the models"), Planned(job, "downloads the models before any pod is made")]


def _pool_objects(pool: dict[str, Any]) -> tuple[list[Planned], Revision]:
    """What the pool itself would create, and its revision."""
    spec = parse_pool(pool)
    revision = render_pool.revision(pool, spec)
    target = plan.pool_target(pool["metadata"]["name"], spec, revision.hash8)
    made = [Planned(render_pool.disruption_budget(pool, spec), "bounds evictions")]
    stored: RevisionRecord | None = None
    for step in plan.plan_pool(target, PoolObserved(), datetime(1970, 1, 1, tzinfo=UTC)):
        if isinstance(step, plan.CreateRevision):
            body = render_pool.controller_revision(pool, revision, step.number)
            stored = RevisionRecord.from_raw(body)
        elif isinstance(step, plan.CreatePod) and stored is not None:
            claim = render_pool.claim_template(pool, stored)
            if claim is not None and step.slot == 0:
                made.append(Planned(claim, "asks for the GPUs of each pod"))
            body = render_pool.replica(pool, stored, step.slot, step.attempt)
        elif isinstance(step, plan.ApplyWorkload) and stored is not None:
            body = render_pool.gateway_deployment(pool, stored, step.replicas)
        else:
            continue
        made.append(Planned(body, step.reason))
    return made, revision
