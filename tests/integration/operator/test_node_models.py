"""Models on the nodes' own disks: they follow the first pods, come before a drain, and go only when asked.

API server, Job controller and admission (Pod Security "restricted" enforced) are real; the operator has the
chart's rights alone. Nodes, kubelets and the pods of the Jobs are played.
"""

import contextlib
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import Any

import pytest

from stepaudio_operator import names
from stepaudio_operator.kube import resources
from stepaudio_operator.kube.resources import Resource
from tests.integration.operator.conftest import Stage
from tests.integration.operator.test_models import downloader, of_job, stalls
from tests.integration.operator.world import JOB_HOST, LONG_LEASE, MERGE, condition, eventually, ready

pytestmark = pytest.mark.api

PATIENCE_S = 180.0
NODES = Resource("", "v1", "nodes", "Node", frozenset())
NAMESPACES = Resource("", "v1", "namespaces", "Namespace", frozenset())
RESTRICTED = {"pod-security.kubernetes.io/enforce": "restricted"}
Raw = dict[str, Any]


def models(revision: str) -> Raw:
    hub = {"revisions": {"chat": revision}, "tokenSecretRef": {"name": "hf"}}
    cache = {"nodeLocal": {"claimName": "node-models"}, "whenUnused": "Delete"}
    return {"source": {"huggingFace": hub}, "cache": cache}


class Disks:
    """Two nodes, and which folders are on their disks."""

    def __init__(self, stage: Stage) -> None:
        self._stage = stage
        self.nodes = [f"{stage.namespace}-{number}" for number in (1, 2)]
        self.held: dict[str, set[str]] = {node: set() for node in self.nodes}
        stage.kubelet.hold = of_job
        stage.kubelet.place = self._place
        stage.kubelet.waits = self._waits

    @contextlib.asynccontextmanager
    async def nodes_exist(self) -> AsyncIterator[None]:
        for node in self.nodes:
            body = {"apiVersion": "v1", "kind": "Node", "metadata": {"name": node}}
            await self._stage.admin.call("POST", NODES.path(), body)
        try:
            yield
        finally:
            for node in self.nodes:
                await self._stage.admin.delete(NODES, None, node)

    def _place(self, pod: Raw) -> str:
        """Chat on the one, all else on the other."""
        return self.nodes[pod["metadata"]["labels"].get(names.LABEL_COMPONENT) != names.CHAT]

    def _waits(self, pod: Raw) -> bool:
        folder = folder_of(pod)
        return bool(folder) and folder not in self.held[pod["spec"]["nodeName"]]

    async def jobs(self) -> dict[str, Raw]:
        return {
            j["metadata"]["name"]: j
            for j in await self._stage.admin.all(resources.JOBS, self._stage.namespace)
        }

    async def run(self, job: str, ended: bool) -> None:
        """The pod of a Job runs, or has done what it is for."""

        async def pods() -> list[Raw]:
            found = await self._stage.admin.all(resources.PODS, self._stage.namespace)
            return [p for p in found if p["metadata"]["labels"].get(names.LABEL_COPY) == job]

        (pod,) = await eventually(pods, f"Job {job} has a pod", within_s=PATIENCE_S)
        now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        times = {"startedAt": now, "finishedAt": now}
        state = {"terminated": {"exitCode": 0, **times}} if ended else {"running": {"startedAt": now}}
        container = {
            "name": names.CONTAINER,
            "image": "x",
            "imageID": "",
            "restartCount": 0,
            "ready": not ended,
            "state": state,
        }
        status = {
            "phase": "Succeeded" if ended else "Running",
            "podIP": JOB_HOST,
            "podIPs": [{"ip": JOB_HOST}],
            "startTime": now,
            "containerStatuses": [container],
        }
        if ended:
            action, path = pod["spec"]["containers"][0]["command"][2:4]
            terms = pod["spec"]["affinity"]["nodeAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"]
            (node,) = terms["nodeSelectorTerms"][0]["matchFields"][0]["values"]
            disk, folder = self.held[node], path.rpartition("/")[2]
            (disk.add if action == "fetch" else disk.discard)(folder)
        await self._stage.admin.patch(
            resources.PODS, self._stage.namespace, pod["metadata"]["name"], {"status": status}, "status"
        )


def folder_of(pod: Raw) -> str:
    first = (pod["spec"].get("initContainers") or [{}])[0]
    return str(first["command"][3]).rpartition("/")[2] if first.get("command") else ""


async def cache(stage: Stage, name: str) -> Raw:
    raw = await stage.admin.get(resources.DEPLOYMENTS, stage.namespace, name)
    found: Raw = raw.get("status", {}).get("cache") or {}
    return found


async def model_pods(stage: Stage, name: str) -> dict[str, str]:
    """uid -> node of the pods with models."""
    pods = await stage.admin.all(resources.PODS, stage.namespace)
    ours = [p for p in pods if p["metadata"]["labels"].get(names.LABEL_DEPLOYMENT) == name and folder_of(p)]
    return {p["metadata"]["uid"]: p["spec"].get("nodeName", "") for p in ours}


async def test_models_follow_pods_to_their_nodes_come_before_a_drain_and_go_when_asked(stage: Stage) -> None:
    admin, namespace = stage.admin, stage.namespace
    await admin.call("PATCH", NAMESPACES.path(None, namespace), {"metadata": {"labels": RESTRICTED}}, MERGE)
    disks = Disks(stage)
    spec: Raw = {"models": models("v1"), "rollout": {"strategy": "InPlace", "historyLimit": 0}}
    stage.start_operator(**LONG_LEASE)
    async with disks.nodes_exist(), stage.gateways("one"):
        # The pods of two deployments are placed first; then one Job a node brings the models for both.
        await stage.deploy("one", **spec)
        await stage.deploy("two", models=models("v1"))
        await stalls(stage, "one", "DownloadingModels")

        async def placed() -> bool:
            found = [sorted((await model_pods(stage, name)).values()) for name in ("one", "two")]
            where = [disks.nodes[0], disks.nodes[1], disks.nodes[1]]
            return found == [where, where] and len(await disks.jobs()) == 2

        await eventually(placed, "pods wait on two nodes, with a Job each", within_s=PATIENCE_S)
        folder = (await cache(stage, "one"))["folder"]
        first = [names.copy(folder, node) for node in disks.nodes]
        assert sorted(await disks.jobs()) == sorted(first)
        assert await admin.names(resources.CLAIMS, namespace) == []
        await disks.run(first[0], ended=False)
        async with downloader(430_000, 1_000_000):

            async def told() -> bool:
                nodes = {n["node"]: n for n in (await cache(stage, "one")).get("nodes") or ()}
                return nodes.get(disks.nodes[0], {}).get("percent") == 40

            await eventually(told, "the status says how far node 1 is", within_s=PATIENCE_S)
        for job in first:
            await disks.run(job, ended=True)
        await eventually(lambda: ready(admin, namespace, "one"), "Ready", within_s=PATIENCE_S)
        before = await model_pods(stage, "one")

        # Another revision is brought to both nodes before the first pod is drained.
        await stage.deploy("one", **{**spec, "models": models("v2")})
        await stalls(stage, "one", "DownloadingModels")

        async def begun() -> str:
            found = (await cache(stage, "one"))["folder"]
            both = found != folder and len(await disks.jobs()) == 4
            return str(found) if both else ""

        new = await eventually(begun, "a Job a node for the new models", within_s=PATIENCE_S)
        await disks.run(names.copy(new, disks.nodes[0]), ended=True)

        async def one_of_two() -> bool:
            found = await cache(stage, "one")
            return (found["readyNodes"], found["nodes"]) == (
                1,
                [{"node": disks.nodes[1], "phase": "Downloading"}],
            )

        await eventually(one_of_two, "one node has them", within_s=PATIENCE_S)
        raw = await admin.get(resources.DEPLOYMENTS, namespace, "one")
        assert condition(raw, "Ready")["message"] == f"waits for models on node {disks.nodes[1]}"
        assert await model_pods(stage, "one") == before
        await disks.run(names.copy(new, disks.nodes[1]), ended=True)

        async def replaced() -> bool:
            return not before.keys() & (await model_pods(stage, "one")).keys()

        await eventually(replaced, "every pod is replaced", within_s=PATIENCE_S)
        await eventually(lambda: ready(admin, namespace, "one"), "Ready again", within_s=PATIENCE_S)
        pods = [p for p in await admin.all(resources.PODS, namespace) if folder_of(p) == new]
        assert {p["metadata"]["annotations"].get(names.ANNOTATION_BOUND) for p in pods} == {"true"}

        # The first models stay for the other deployment, and go from every node with it.
        assert set(first) <= set(await disks.jobs())
        await admin.delete(resources.DEPLOYMENTS, namespace, "two")
        for job in first:
            await disks.run(names.removal(job), ended=True)

        async def only_the_new() -> bool:
            left = sorted(names.copy(new, node) for node in disks.nodes)
            return sorted(await disks.jobs()) == left

        await eventually(only_the_new, "the Jobs of the first models are gone", within_s=PATIENCE_S)
        assert disks.held == {node: {new} for node in disks.nodes}
