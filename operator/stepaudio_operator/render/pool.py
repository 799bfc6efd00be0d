"""The objects of one StepAudioPool: revisions, pods, the gateway's Deployment, disruption budgets.

A revision is named after a hash of the pool's **inputs**: what its spec says, without what does not reach a
pod. Its ControllerRevision stores what was rendered from them, and pods are made from the stored form
verbatim, whichever operator version rendered it.
"""

from __future__ import annotations

import copy
import hashlib
import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from stepaudio_operator import names
from stepaudio_operator.border import Release, release_of
from stepaudio_operator.records import RevisionRecord
from stepaudio_operator.render import gpus, node_affinity
from stepaudio_operator.render.objects import child
from stepaudio_operator.render.pod import pod_template, queue_labels
from stepaudio_operator.spec.pool import PoolSpec
from stepaudio_operator.spec.rollout import Rollout

# Fields of a pool that reach no pod: changing them restarts nothing.
_NOT_INPUTS: dict[str, Any] = {
    "replicas": True,
    "autoscaling": True,
    "rollout": set(Rollout.model_fields) - {"drain_timeout"},
}


@dataclass(frozen=True)
class Revision:
    """What a pool's pods should be. `data` is what its ControllerRevision stores: `template` (a pod
    template), `image`, for the gateway `workload` (the rest of its Deployment's spec), where GPUs are claimed
    `claimTemplate` (the spec of the ResourceClaimTemplate that bears the revision's name), where a replica is
    a group `group` (its size, its own labels, and the template of the pods that do not lead), `withTokenizer`
    where TTS pods hold the tokenizer too, and `nodeFolder`, the folder of models that its pods' nodes need.
    """

    name: str
    hash8: str
    inputs: str
    release: Release
    restart: str  # what a person asked to be restarted by; "" where nobody did
    data: Mapping[str, Any]


def revision(pool: Mapping[str, Any], spec: PoolSpec) -> Revision:
    """The revision that `pool` (the raw StepAudioPool) asks for."""
    restart = (pool["metadata"].get("annotations") or {}).get(names.ANNOTATION_RESTART, "")
    inputs = input_hash(spec, restart)
    hash8 = inputs[: names.REVISION_DIGITS]
    template = pod_template(pool["metadata"]["name"], spec, hash8)
    data: dict[str, Any] = {"template": template, "image": template["spec"]["containers"][0]["image"]}
    if spec.component == names.GATEWAY:
        data["workload"] = {
            "selector": {"matchLabels": names.pool_selector(pool["metadata"]["name"])},
            "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1, "maxUnavailable": 0}},
            "revisionHistoryLimit": 2,
            "progressDeadlineSeconds": 600,
        }
    if spec.nodes > 1:
        data["group"] = {
            "size": spec.nodes,
            "labels": queue_labels(spec),
            "workerTemplate": pod_template(pool["metadata"]["name"], spec, hash8, worker=True),
        }
    if spec.with_tokenizer:
        data["withTokenizer"] = True
    if (claim := gpus.claim_template(spec)) is not None:
        data["claimTemplate"] = claim
    if spec.models is not None and (local := spec.models.source.node_local) is not None:
        data["nodeFolder"] = local.folder
    name = names.revision(pool["metadata"]["name"], hash8)
    return Revision(name, hash8, inputs, release_of(spec), restart, data)


def input_hash(spec: PoolSpec, restart: str = "") -> str:
    """SHA-256 (hex) of what a pool's pods are made from, and of the restart that a person asked for.

    Values that equal a default count as not set, so that a field that a later version adds changes no hash.
    """
    # The declared size of a GPU reaches a pod only where nodes are chosen by it.
    by_memory = spec.gpu is not None and spec.gpu.require_memory
    left_out = _NOT_INPUTS if by_memory else _NOT_INPUTS | {"gpu": {"memory"}}
    inputs = spec.model_dump(
        mode="json", by_alias=True, exclude=left_out, exclude_none=True, exclude_defaults=True
    )
    inputs = {k: v for k, v in inputs.items() if v != {}}
    text = json.dumps(inputs, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256((text + restart).encode()).hexdigest()


def ask(pool: Mapping[str, Any], spec: PoolSpec) -> str:
    """Digest (8 hex digits) of what lifts a quarantine when it changes: the spec without what says how many
    replicas there are, and the retry annotation.
    """
    left_out = {"replicas", "autoscaling"}
    said = spec.model_dump(
        mode="json", by_alias=True, exclude=left_out, exclude_none=True, exclude_defaults=True
    )
    retry = (pool["metadata"].get("annotations") or {}).get(names.ANNOTATION_RETRY, "")
    text = json.dumps([said, retry], sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()[: names.REVISION_DIGITS]


def controller_revision(pool: Mapping[str, Any], wanted: Revision, number: int) -> dict[str, Any]:
    """The ControllerRevision that stores `wanted`; `number` is its order in the pool, from 1."""
    stored = child(
        pool,
        api_version="apps/v1",
        kind="ControllerRevision",
        name=wanted.name,
        labels=_labels(pool, wanted.hash8),
    )
    stored["metadata"]["annotations"] = {
        names.ANNOTATION_INPUTS: wanted.inputs,
        names.ANNOTATION_RELEASE: str(wanted.release),
    }
    if wanted.restart:
        stored["metadata"]["annotations"][names.ANNOTATION_RESTART] = wanted.restart
    stored["revision"] = number
    stored["data"] = copy.deepcopy(dict(wanted.data))
    return stored


def claim_template(pool: Mapping[str, Any], stored: RevisionRecord) -> dict[str, Any] | None:
    """The ResourceClaimTemplate of a stored revision, which goes with it; None where it has none."""
    if "claimTemplate" not in stored.data:
        return None
    owner = {
        "apiVersion": "apps/v1",
        "kind": "ControllerRevision",
        "metadata": {"name": stored.name, "namespace": stored.namespace, "uid": stored.uid},
    }
    made = child(
        owner,
        api_version="resource.k8s.io/v1",
        kind="ResourceClaimTemplate",
        name=stored.name,
        labels=_labels(pool, stored.hash8),
    )
    made["spec"] = copy.deepcopy(stored.data["claimTemplate"])
    return made


def replica(
    pool: Mapping[str, Any],
    stored: RevisionRecord,
    slot: int,
    attempt: int = 0,
    avoid: Sequence[str] = (),
    *,
    near: Collection[str] = (),
    bound: bool = False,
) -> dict[str, Any]:
    """The pod, or the group of pods, of a stored revision in `slot`; `attempt` counts the failures in a row
    before it, `avoid` names nodes that this one replica keeps away from where another has room, `near` those
    that have its models; with `bound` its pods may be on no other ones.
    """
    data = copy.deepcopy(stored.data)
    templates = [data["template"]] + ([data["group"]["workerTemplate"]] if "group" in data else [])
    place = {names.ANNOTATION_SLOT: str(slot), names.ANNOTATION_ATTEMPT: str(attempt)}
    for template in templates:
        node_affinity.avoid(template["spec"], avoid)
        if bound and near and node_affinity.bind(template["spec"], near):
            place[names.ANNOTATION_BOUND] = "true"
        else:
            node_affinity.prefer(template["spec"], set(near) - set(avoid))
    name = names.pod(pool["metadata"]["name"], stored.hash8, slot)
    if "group" in data:
        labels = {**_labels(pool, stored.hash8), **data["group"]["labels"]}
        kind = {"api_version": "leaderworkerset.x-k8s.io/v1", "kind": "LeaderWorkerSet"}
        made = child(pool, **kind, name=name, labels=labels)
        made["metadata"]["annotations"] = place
        made["spec"] = _group(data["group"]["size"], *templates)
        return made
    made = child(pool, api_version="v1", kind="Pod", name=name, labels=data["template"]["metadata"]["labels"])
    made["metadata"]["annotations"] = {**data["template"]["metadata"].get("annotations", {}), **place}
    made["spec"] = data["template"]["spec"]
    return made


def _group(size: int, leader: dict[str, Any], worker: dict[str, Any]) -> dict[str, Any]:
    """Spec of the LeaderWorkerSet of one replica. How many there are, and of which revision, is the planner's
    matter: each has one group for ever.

    Its pods end together by themselves and are started again where they are, with the kubelet's growing
    pauses. LeaderWorkerSet's RecreateGroupOnPodRestart would make new pods at once each time, without a
    pause, and nobody could count how often.
    """
    rolling = {"partition": 0, "maxUnavailable": 1, "maxSurge": 0}
    return {
        "replicas": 1,
        "startupPolicy": "LeaderCreated",
        "networkConfig": {"subdomainPolicy": "Shared"},
        "rolloutStrategy": {"type": "RollingUpdate", "rollingUpdateConfiguration": rolling},
        "leaderWorkerTemplate": {
            "size": size,
            "restartPolicy": "None",
            "leaderTemplate": leader,
            "workerTemplate": worker,
        },
    }


def gateway_deployment(pool: Mapping[str, Any], stored: RevisionRecord, replicas: int) -> dict[str, Any]:
    """The gateway's Deployment at a stored revision."""
    workload = child(
        pool,
        api_version="apps/v1",
        kind="Deployment",
        name=pool["metadata"]["name"],
        labels=_labels(pool, None),
    )
    data = copy.deepcopy(stored.data)
    workload["spec"] = {"replicas": replicas, **data["workload"], "template": data["template"]}
    return workload


def disruption_budget(pool: Mapping[str, Any], spec: PoolSpec) -> dict[str, Any]:
    """Lets one pod at a time be evicted: it never blocks the drain of a node for ever, and a pod that is
    not ready may always go.
    """
    budget = child(
        pool,
        api_version="policy/v1",
        kind="PodDisruptionBudget",
        name=pool["metadata"]["name"],
        labels=_labels(pool, None),
    )
    selector = names.pool_selector(pool["metadata"]["name"])
    if spec.nodes > 1:  # the pods that do not lead count as well: with one of them a replica goes
        selector = names.child_labels(spec.deployment, spec.component)
    budget["spec"] = {
        "maxUnavailable": spec.rollout.max_unavailable if spec.rollout else 1,
        "selector": {"matchLabels": selector},
        "unhealthyPodEvictionPolicy": "AlwaysAllow",
    }
    return budget


def _labels(pool: Mapping[str, Any], hash8: str | None) -> dict[str, str]:
    spec = pool["spec"]
    labels = names.child_labels(spec["deployment"], spec["component"])
    labels[names.LABEL_POOL] = pool["metadata"]["name"]
    if hash8 is not None:
        labels[names.LABEL_REVISION] = hash8
    return labels
