"""Others work on the operator's objects by every way that there is: what they add stays, what they change of
ours comes back, and nobody fights. A namespace's rules (Pod Security, quotas, defaults) are kept, or named.
"""

import asyncio
from typing import Any

import pytest

from stepaudio_cluster.api import Cluster
from stepaudio_operator import names
from stepaudio_operator.kube import resources
from stepaudio_operator.kube.resources import Resource
from tests.integration.operator.conftest import Stage
from tests.integration.operator.world import LONG_LEASE, condition, eventually, ready

pytestmark = pytest.mark.api

Raw = dict[str, Any]
OFF: Raw = {"enabled": False}
SPEECH: Raw = {"chat": OFF, "tokenizer": OFF}
QUOTAS = Resource("", "v1", "resourcequotas", "ResourceQuota", frozenset())
LIMITS = Resource("", "v1", "limitranges", "LimitRange", frozenset())


def part(resource: Resource, namespace: str, name: str, **fields: Any) -> Raw:
    """A few fields of an object, to be applied."""
    metadata = {"namespace": namespace, "name": name, **fields.pop("metadata", {})}
    return {"apiVersion": resource.api_version, "kind": resource.kind, "metadata": metadata, **fields}


async def test_what_others_add_stays_and_what_they_change_comes_back_without_a_fight(
    stage: Stage, api_cluster: Cluster
) -> None:
    admin, namespace = stage.admin, stage.namespace
    operator = stage.start_operator(**LONG_LEASE)
    await stage.deploy("nano", **SPEECH)
    async with stage.gateways("nano"):
        await eventually(lambda: ready(admin, namespace, "nano"), "Ready")
        before = await operator.writes()

        def kubectl(*arguments: str) -> str:
            return api_cluster.kubectl("--namespace", namespace, *arguments)

        # Theirs: a restart, a sidecar, labels, annotations, a finalizer, another number of pods.
        kubectl("rollout", "restart", "deployment/nano-gateway")
        sidecar = {"name": "proxy", "image": "proxy:1"}
        injected = {"template": {"spec": {"containers": [sidecar]}}}
        gateway = part(resources.APP_DEPLOYMENTS, namespace, "nano-gateway", spec=injected)
        await admin.apply(resources.APP_DEPLOYMENTS, gateway, "injector")
        kubectl("label", "service/nano-tts", "sap/nano-tts", "team=voice")
        kubectl("annotate", "service/nano-tts", "sap/nano-tts", "pdb/nano-tts", "note=mine")
        guarded = {"finalizers": ["example.com/guard"]}
        await admin.apply(resources.POOLS, part(resources.POOLS, namespace, "nano-tts", metadata=guarded))
        kubectl("scale", "sap/nano-tts", "--replicas=2")
        # Ours: a variable, a selector, a number that is not theirs, an owner.
        home = {"name": names.ENV_HOME, "value": names.TMP_MOUNT}
        env = [{**home, "value": "/elsewhere"}]
        changed = {"template": {"spec": {"containers": [{"name": names.CONTAINER, "env": env}]}}}
        gateway = part(resources.APP_DEPLOYMENTS, namespace, "nano-gateway", spec=changed)
        await admin.apply(resources.APP_DEPLOYMENTS, gateway, force=True)
        kubectl("scale", "deployment/nano-gateway", "--replicas=3")
        for resource in (resources.SERVICES, resources.POOLS, resources.DISRUPTION_BUDGETS):
            await admin.patch(resource, namespace, "nano-tts", {"metadata": {"ownerReferences": None}})

        async def right() -> bool:
            workload = await admin.get(resources.APP_DEPLOYMENTS, namespace, "nano-gateway")
            template = workload["spec"]["template"]
            containers = {c["name"]: c for c in template["spec"]["containers"]}
            service, pool, budget = [
                await admin.get(resource, namespace, "nano-tts")
                for resource in (resources.SERVICES, resources.POOLS, resources.DISRUPTION_BUDGETS)
            ]
            return (
                set(containers) == {names.CONTAINER, "proxy"}
                and home in containers[names.CONTAINER]["env"]
                and "kubectl.kubernetes.io/restartedAt" in template["metadata"]["annotations"]
                and workload["spec"]["replicas"] == 1
                and pool["spec"]["replicas"] == 2
                and pool["metadata"]["finalizers"] == ["example.com/guard"]
                and all(o["metadata"].get("ownerReferences") for o in (service, pool, budget))
                and all(o["metadata"]["labels"].get("team") == "voice" for o in (service, pool))
                and all(o["metadata"]["annotations"]["note"] == "mine" for o in (service, pool, budget))
                and await ready(admin, namespace, "nano") is not None
            )

        await eventually(right, "theirs stays, ours is back, and it is Ready")

        async def calm() -> bool:
            writes = await operator.writes()
            await asyncio.sleep(3)
            return await operator.writes() == writes

        await eventually(calm, "nothing is written any more")
        after = await operator.writes()
        applied = sum(count for verb, count in after.items() if "apply" in verb)
        assert applied - sum(count for verb, count in before.items() if "apply" in verb) <= 8, after
    await admin.patch(resources.POOLS, namespace, "nano-tts", {"metadata": {"finalizers": None}})


async def test_what_the_server_cannot_read_of_a_pod_is_said_in_its_words(stage: Stage) -> None:
    template = {"podTemplate": {"volumes": [{"name": "extra", "emptyDirr": {}}]}}
    stage.start_operator(**LONG_LEASE)
    await stage.deploy("nano", **SPEECH, tts=template)
    await stage.deploy("other", chat=OFF, tokenizer=OFF, gateway=template)

    async def said(pool: str) -> str:
        raw = await stage.admin.find(resources.POOLS, stage.namespace, pool)
        stalled = condition(raw, "Stalled")
        return str(stalled.get("message", "")) if stalled.get("status") == "True" else ""

    for pool in ("nano-tts", "other-gateway"):  # one by create, one by server-side apply
        assert "emptyDirr" in await eventually(lambda pool=pool: said(pool), f"{pool} is Stalled")


async def test_pods_pass_the_strictest_rules_and_a_full_quota_is_named_and_rolled_in_place(
    stage: Stage,
) -> None:
    admin, namespace = stage.admin, stage.namespace
    enforced = {"pod-security.kubernetes.io/enforce": "restricted"}
    path = f"/api/v1/namespaces/{namespace}"
    await admin.call("PATCH", path, {"metadata": {"labels": enforced}}, "application/merge-patch+json")
    defaults = {"type": "Container", "default": {"cpu": "4"}, "defaultRequest": {"cpu": "10m"}}
    await admin.apply(LIMITS, part(LIMITS, namespace, "defaults", spec={"limits": [defaults]}))
    stage.start_operator(**LONG_LEASE)
    await stage.deploy("nano", rollout={"surgeTimeout": "1s"})
    async with stage.gateways("nano"):
        await eventually(lambda: ready(admin, namespace, "nano"), "Ready")
        await admin.apply(QUOTAS, part(QUOTAS, namespace, "full", spec={"hard": {"pods": "4"}}))

        async def counted() -> bool:
            quota = await admin.get(QUOTAS, namespace, "full")
            return quota.get("status", {}).get("used", {}).get("pods") == "4"

        await eventually(counted, "the quota knows of the pods")
        (old,) = [n for n in await admin.names(resources.PODS, namespace) if n.startswith("nano-tts-")]
        said: set[tuple[str, str]] = set()
        await stage.deploy("nano", rollout={"surgeTimeout": "4s"}, tts={"maxModelLen": 512})

        async def rolled() -> bool:
            pool = await admin.get(resources.POOLS, namespace, "nano-tts")
            stalled = condition(pool, "Stalled")
            said.add((stalled.get("reason", ""), stalled.get("message", "")))
            pods = [n for n in await admin.names(resources.PODS, namespace) if n.startswith("nano-tts-")]
            return len(pods) == 1 and pods != [old] and await ready(admin, namespace, "nano") is not None

        await eventually(rolled, "it has gone in place")
        message = next(words for reason, words in said if reason == "QuotaExceeded")
        assert "exceeded quota: full" in message
        assert message.endswith(": raise that ResourceQuota, or ask for less")
