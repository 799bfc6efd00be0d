"""A replica on several nodes against a real API server: what the condition says where it does not serve
LeaderWorkerSets, and what is made where it does, by LeaderWorkerSet's own schema and with the chart's rights.

LeaderWorkerSet's controller is not run: the test makes the pods of a group as that does, from its templates.
"""

import copy
from pathlib import Path
from typing import Any

import pytest
import yaml

from stepaudio_operator import names
from stepaudio_operator.kube import resources
from tests.integration.operator.conftest import _CRDS, Stage
from tests.integration.operator.world import LONG_LEASE, Raw, Refused, condition, eventually, stalled

pytestmark = pytest.mark.api

CRD = Path(__file__).parent / "leaderworkerset.yaml"
CHAT: Raw = {
    "replicas": 1,
    "gpu": {"count": 4, "nodes": 2},
    "podTemplate": {"queue": {"name": "gpus"}, "nodeSelector": {"disk": "fast"}},
}


async def chat_pool(stage: Stage) -> Raw:
    return await stage.admin.find(resources.POOLS, stage.namespace, "nano-chat") or {}


async def groups(stage: Stage) -> list[Raw]:
    return await stage.admin.all(resources.GROUPS, stage.namespace)


async def serve_groups(stage: Stage) -> None:
    await stage.admin.apply(_CRDS, yaml.safe_load(CRD.read_text()))

    async def served() -> bool:
        try:
            return (await groups(stage)) == []
        except Refused:
            return False

    await eventually(served, "LeaderWorkerSets are served")


async def make_pods(stage: Stage, group: Raw) -> None:
    """What LeaderWorkerSet's controller and StatefulSets come to: names, labels, variables."""
    template, leader = group["spec"]["leaderWorkerTemplate"], names.leader(group["metadata"]["name"])
    owner = {k: group[k] for k in ("apiVersion", "kind")} | {k: group["metadata"][k] for k in ("name", "uid")}
    for rank in range(template["size"]):
        body = copy.deepcopy(template["workerTemplate" if rank else "leaderTemplate"])
        body["metadata"] |= {"name": f"{leader}-{rank}" if rank else leader, "ownerReferences": [owner]}
        own = {names.LABEL_GROUP: group["metadata"]["name"], names.LABEL_GROUP_RANK: str(rank)}
        body["metadata"]["labels"] |= own
        address = {"name": "LWS_LEADER_ADDRESS", "value": f"{leader}.{group['metadata']['name']}.x"}
        body["spec"]["containers"][0]["env"].insert(0, address)
        path = f"{resources.PODS.path(stage.namespace)}?fieldValidation=Strict"
        await stage.admin.call("POST", path, {"apiVersion": "v1", "kind": "Pod", **body})


async def test_where_they_are_not_served_the_condition_says_what_to_install(stage: Stage) -> None:
    stage.start_operator(**LONG_LEASE)
    await stage.deploy("nano", chat=CHAT)

    said = await eventually(
        lambda: stalled(stage.admin, resources.POOLS, stage.namespace, "nano-chat"), "the pool is stalled"
    )
    assert (said["reason"], said["message"]) == (
        "KindUnknown",
        "this cluster does not serve leaderworkersets of leaderworkerset.x-k8s.io/v1; a replica on several"
        " nodes needs LeaderWorkerSet: install it, or remove gpu.nodes",
    )


async def test_a_replica_on_two_nodes_is_a_set_of_one_group(stage: Stage) -> None:
    admin, namespace = stage.admin, stage.namespace
    await serve_groups(stage)
    stage.start_operator(**LONG_LEASE)
    await stage.deploy("nano", chat=CHAT)
    (group,) = await eventually(lambda: groups(stage), "the group is made")
    pool = await chat_pool(stage)
    revision = group["metadata"]["labels"][names.LABEL_REVISION]
    stored = await admin.get(resources.REVISIONS, namespace, f"nano-chat-{revision}")
    labels = {
        "app.kubernetes.io/name": "step-audio",
        "app.kubernetes.io/instance": "nano",
        "app.kubernetes.io/managed-by": "stepaudio-operator",
        "app.kubernetes.io/component": "chat",
        "stepaudio.io/deployment": "nano",
        "stepaudio.io/pool": "nano-chat",
        "stepaudio.io/revision": revision,
    }
    assert {k: group["metadata"][k] for k in ("name", "labels", "annotations", "ownerReferences")} == {
        "name": f"nano-chat-{revision}-0",
        "labels": {**labels, "kueue.x-k8s.io/queue-name": "gpus"},
        "annotations": {"stepaudio.io/slot": "0", "stepaudio.io/attempt": "0"},
        "ownerReferences": [
            {
                "apiVersion": "stepaudio.io/v1alpha1",
                "kind": "StepAudioPool",
                "name": "nano-chat",
                "uid": pool["metadata"]["uid"],
                "controller": True,
            }
        ],
    }
    # Whole, and nothing that the server had to default or drop.
    assert group["spec"] == {
        "replicas": 1,
        "startupPolicy": "LeaderCreated",
        "networkConfig": {"subdomainPolicy": "Shared"},
        "rolloutStrategy": {
            "type": "RollingUpdate",
            "rollingUpdateConfiguration": {"partition": 0, "maxUnavailable": 1, "maxSurge": 0},
        },
        "leaderWorkerTemplate": {
            "size": 2,
            "restartPolicy": "None",
            "leaderTemplate": stored["data"]["template"],
            "workerTemplate": stored["data"]["group"]["workerTemplate"],
        },
    }

    await make_pods(stage, group)

    async def serves() -> Any:
        return (await chat_pool(stage)).get("status", {}).get("readyReplicas") == 1

    await eventually(serves, "the replica serves")
    status = (await chat_pool(stage))["status"]
    assert (status["replicas"], status["readyReplicas"], status["updatedReplicas"]) == (1, 1, 1)
    assert condition({"status": status}, "Ready")["reason"] == "AllReplicasReady"
    selected = {k: v for k, v in labels.items() if k in (names.LABEL_MANAGED_BY, names.LABEL_POOL)}
    service = await admin.get(resources.SERVICES, namespace, "nano-chat")
    assert service["spec"]["selector"] == selected
    pods = await admin.all(resources.PODS, namespace)
    chat = [p for p in pods if p["metadata"]["labels"][names.LABEL_COMPONENT] == names.CHAT]
    called = [p["metadata"]["name"] for p in chat if selected.items() <= p["metadata"]["labels"].items()]
    assert called == [names.leader(group["metadata"]["name"])]
    budget = await admin.get(resources.DISRUPTION_BUDGETS, namespace, "nano-chat")
    matched = budget["spec"]["selector"]["matchLabels"].items()
    assert all(matched <= p["metadata"]["labels"].items() for p in chat)
    assert len(chat) == 2

    # A pod of it leaves its node: the set goes, with the chart's rights, and another one takes its place.
    worker = f"{names.leader(group['metadata']['name'])}-1"
    path = f"{resources.PODS.path(namespace, worker)}/binding"
    target = {"apiVersion": "v1", "kind": "Node", "name": "n1"}
    metadata = {"namespace": namespace, "name": worker}
    binding = {"apiVersion": "v1", "kind": "Binding", "metadata": metadata, "target": target}
    await admin.call("POST", path, binding)
    await admin.delete(resources.PODS, namespace, worker)

    async def another() -> bool:
        found = await groups(stage)
        return [g["metadata"]["uid"] for g in found] not in ([], [group["metadata"]["uid"]])

    await eventually(another, "another group is made")
    await admin.delete(resources.DEPLOYMENTS, namespace, "nano")

    async def gone() -> bool:
        return await groups(stage) == []

    await eventually(gone, "the groups go with their pool")
