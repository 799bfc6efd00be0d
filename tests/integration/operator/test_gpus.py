"""The ways to a GPU against a real API server: what is rendered it takes whole, claims are made from the
operator's templates, and what it refuses of them stands in the condition.
"""

from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from stepaudio_operator import names
from stepaudio_operator.kube import resources
from stepaudio_operator.kube.resources import Resource
from stepaudio_operator.plan.decisions import GATED
from stepaudio_operator.records import PodRecord
from tests.integration.operator.conftest import Stage
from tests.integration.operator.world import LONG_LEASE, eventually, stalled

pytestmark = pytest.mark.api

Raw = dict[str, Any]
CLAIMS = Resource("resource.k8s.io", "v1", "resourceclaims", "ResourceClaim", frozenset())
ZONE = {"maxSkew": 1, "topologyKey": "topology.kubernetes.io/zone", "whenUnsatisfiable": "ScheduleAnyway"}
CHAT = {
    "gpu": {"count": 4, "memory": "80GB", "requireMemory": True, "products": ["NVIDIA-A800-SXM4-80GB"]},
    "podTemplate": {"topologySpreadConstraints": [ZONE], "queue": {"name": "gpus", "priorityClass": "high"}},
}
TTS = {"gpu": {"count": 1, "claim": {"deviceClass": "gpu.example.com"}}}
TOKENIZER = {"gpu": {"count": 1, "resource": "nvidia.com/mig-1g.10gb"}}
MODELS = {"source": {"image": {"reference": "registry.example.com/models:1", "path": "/step-audio"}}}


def pod_of(stage: Stage, component: str) -> Callable[[], Awaitable[Raw | None]]:
    async def found() -> Raw | None:
        pods = await stage.admin.all(resources.PODS, stage.namespace)
        ours = (p for p in pods if p["metadata"].get("labels", {}).get(names.LABEL_COMPONENT) == component)
        return next(ours, None)

    return found


async def test_pods_of_every_way_are_taken_as_they_are_rendered(stage: Stage) -> None:
    admin, namespace = stage.admin, stage.namespace
    stage.kubelet.hold = lambda pod: True
    stage.start_operator(**LONG_LEASE)
    await stage.deploy("nano", chat=CHAT, tts=TTS, tokenizer=TOKENIZER, models=MODELS)
    chat, tts, tokenizer = [
        await eventually(pod_of(stage, component), f"the pod of {component} is made")
        for component in names.MODEL_COMPONENTS
    ]

    selector = {names.LABEL_MANAGED_BY: names.MANAGED_BY, names.LABEL_POOL: "nano-chat"}
    assert chat["spec"]["topologySpreadConstraints"] == [{**ZONE, "labelSelector": {"matchLabels": selector}}]
    expressions = [
        {"key": "nvidia.com/gpu.product", "operator": "In", "values": ["NVIDIA-A800-SXM4-80GB"]},
        {"key": "nvidia.com/gpu.memory", "operator": "Gt", "values": ["74768"]},
    ]
    assert chat["spec"]["affinity"]["nodeAffinity"] == {
        "requiredDuringSchedulingIgnoredDuringExecution": {
            "nodeSelectorTerms": [{"matchExpressions": expressions}]
        }
    }
    assert chat["metadata"]["labels"]["kueue.x-k8s.io/queue-name"] == "gpus"
    limits = tokenizer["spec"]["containers"][0]["resources"]["limits"]
    assert limits == {"memory": "3Gi", "nvidia.com/mig-1g.10gb": "1"}
    (volume,) = [v for v in tokenizer["spec"]["volumes"] if v["name"] == "models"]
    assert volume["image"] == {"reference": "registry.example.com/models:1", "pullPolicy": "IfNotPresent"}
    (mount,) = [m for m in tokenizer["spec"]["containers"][0]["volumeMounts"] if m["name"] == "models"]
    assert mount == {"name": "models", "mountPath": "/models", "readOnly": True, "subPath": "step-audio"}

    revision = f"nano-tts-{tts['metadata']['labels'][names.LABEL_REVISION]}"
    template = await admin.get(resources.CLAIM_TEMPLATES, namespace, revision)
    (owner,) = template["metadata"]["ownerReferences"]
    assert (owner["kind"], owner["name"]) == ("ControllerRevision", revision)

    async def claimed() -> Raw | None:
        return next(iter(await admin.all(CLAIMS, namespace)), None)

    claim = await eventually(claimed, "Kubernetes makes the pod's claim")
    assert claim["metadata"]["ownerReferences"][0]["name"] == tts["metadata"]["name"]
    exactly = {"deviceClassName": "gpu.example.com", "allocationMode": "ExactCount", "count": 1}
    assert claim["spec"] == {"devices": {"requests": [{"name": "gpu", "exactly": exactly}]}}

    # What Kueue's webhook does to a pod with its label: by these words it is known to be held back.
    gated = {**chat, "metadata": {"name": "gated", "labels": chat["metadata"]["labels"]}}
    gated["spec"] = {**chat["spec"], "schedulingGates": [{"name": "kueue.x-k8s.io/admission"}]}
    answer = await admin.call("POST", f"{resources.PODS.path(namespace)}?dryRun=All", gated)
    record = PodRecord.from_raw(answer)
    assert GATED in record.unschedulable
    assert record.unschedulable_since is not None

    await admin.delete(resources.DEPLOYMENTS, namespace, "nano")

    async def gone() -> bool:
        return await admin.find(resources.CLAIM_TEMPLATES, namespace, revision) is None

    await eventually(gone, "the template goes with its revision")


async def test_a_claim_that_the_api_server_refuses_is_said_in_its_words(stage: Stage) -> None:
    admin, namespace = stage.admin, stage.namespace
    stage.start_operator(**LONG_LEASE)
    claim = {"deviceClass": "gpu.example.com", "selectors": [{"cel": "device.memory >"}]}
    await stage.deploy("nano", tts={"gpu": {"count": 1, "claim": claim}})

    said = await eventually(
        lambda: stalled(admin, resources.POOLS, namespace, "nano-tts"), "the pool is stalled"
    )
    assert said["reason"] == "Invalid"
    assert "selectors[0].cel.expression" in said["message"]
    assert await pod_of(stage, "tts")() is None
