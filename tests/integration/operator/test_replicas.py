"""Replicas of pools by the scale subresource, and replicas of the operator by the Lease."""

import asyncio

import pytest

from stepaudio_operator import names
from stepaudio_operator.kube import resources
from tests.integration.operator.conftest import Stage
from tests.integration.operator.world import LONG_LEASE, condition, eventually, ready

pytestmark = pytest.mark.api


async def test_a_pool_scales_by_its_scale_subresource_and_git_is_not_touched(stage: Stage) -> None:
    admin, namespace = stage.admin, stage.namespace
    stage.start_operator(**LONG_LEASE)
    await stage.deploy("nano")
    async with stage.gateways("nano"):
        await eventually(lambda: ready(admin, namespace, "nano"), "Ready")

        async def tts_pods() -> list[str]:
            return [n for n in await admin.names(resources.PODS, namespace) if n.startswith("nano-tts-")]

        async def scale(pool: str, replicas: int) -> None:
            await admin.patch(resources.POOLS, namespace, pool, {"spec": {"replicas": replicas}}, "scale")

        first = await tts_pods()
        await scale("nano-tts", 3)

        async def has(count: int) -> bool:
            scale_now = await admin.call("GET", resources.POOLS.path(namespace, "nano-tts", "scale"))
            pool = await admin.get(resources.POOLS, namespace, "nano-tts")
            return (
                len(await tts_pods()) == count
                and scale_now["status"]["replicas"] == count
                and names.LABEL_POOL in scale_now["status"]["selector"]
                and condition(pool, "Ready").get("status") == "True"
                and await ready(admin, namespace, "nano") is not None
            )

        await eventually(lambda: has(3), "three replicas")
        assert [name.rsplit("-", 1)[1] for name in await tts_pods()] == ["0", "1", "2"]
        await scale("nano-tts", 1)
        await eventually(lambda: has(1), "one replica")
        assert await tts_pods() == first
        await scale("nano-gateway", 2)

        async def gateways() -> bool:
            workload = await admin.get(resources.APP_DEPLOYMENTS, namespace, "nano-gateway")
            return workload["spec"]["replicas"] == 2 and await ready(admin, namespace, "nano") is not None

        await eventually(gateways, "two gateways")
        # A number that somebody chose stays through an edit of the deployment.
        await stage.deploy("nano", rollout={"drainTimeout": "1m"})
        await asyncio.sleep(1)
        await eventually(gateways, "still two gateways")


async def test_who_owns_the_number_of_replicas(stage: Stage) -> None:
    """Each branch of the rule in docs/operator.md, one after the other on one pool."""
    admin, namespace = stage.admin, stage.namespace
    stage.start_operator(**LONG_LEASE)
    only_speech = {"chat": {"enabled": False}, "tokenizer": {"enabled": False}, "gateway": {"enabled": False}}

    async def deploy(**tts: int) -> None:
        body = {
            "apiVersion": names.API_VERSION,
            "kind": names.DEPLOYMENT_KIND,
            "metadata": {"namespace": namespace, "name": "nano"},
            "spec": {"preset": "nano", **only_speech, "tts": tts},
        }
        await admin.apply(resources.DEPLOYMENTS, body)

    async def owner() -> tuple[int, list[str]] | None:
        """The pool's number, and the field managers that hold it; None before there is a pool."""
        pool = await admin.find(resources.POOLS, namespace, "nano-tts")
        if pool is None:
            return None
        managers = [
            entry["manager"]
            for entry in pool["metadata"]["managedFields"]
            if "f:replicas" in entry["fieldsV1"].get("f:spec", {})
        ]
        return pool["spec"].get("replicas"), sorted(managers)

    async def becomes(number: int, *managers: str) -> None:
        async def so() -> bool:
            found = await owner()
            is_ready = await ready(admin, namespace, "nano") is not None
            return found == (number, list(managers)) and is_ready

        await eventually(so, f"{number} replicas of {managers}")

    async def autoscaler(number: int) -> None:
        """As the controller of an HPA does: read the scale, put it back with another number."""
        path = resources.POOLS.path(namespace, "nano-tts", "scale")
        scale = await admin.call("GET", path)
        scale["spec"]["replicas"] = number
        await admin.call("PUT", f"{path}?fieldManager=kube-controller-manager", scale)

    # Left out: the preset's number, until somebody scales the pool.
    await deploy()
    await becomes(1, names.FIELD_MANAGER)
    # An autoscaler decides, and an edit of the deployment leaves it its number.
    await autoscaler(3)
    await becomes(3, "kube-controller-manager")
    await deploy(maxModelLen=512)
    await asyncio.sleep(2)
    await becomes(3, "kube-controller-manager")
    # A number in the deployment is the operator's, and is put back.
    await deploy(replicas=2)
    await becomes(2, names.FIELD_MANAGER)
    await autoscaler(4)
    await becomes(2, names.FIELD_MANAGER)
    # Taken out of the deployment it stays as it is, and is free again.
    await deploy()
    await asyncio.sleep(2)
    await becomes(2, names.FIELD_MANAGER)
    await autoscaler(1)
    await becomes(1, "kube-controller-manager")
    # Zero is a number as well.
    await deploy(replicas=0)
    await becomes(0, names.FIELD_MANAGER)


async def test_of_two_operators_one_acts_and_the_other_takes_over(stage: Stage) -> None:
    admin, namespace = stage.admin, stage.namespace
    operators = [stage.start_operator("one"), stage.start_operator("two")]
    for operator in operators:
        await eventually(operator.ready, f"{operator.identity} is ready")

    async def leaders() -> list[bool]:
        return [await operator.leads() for operator in operators]

    async def one_leads() -> bool:
        return sum(await leaders()) == 1

    await eventually(one_leads, "one leads")
    leader, standby = operators if await operators[0].leads() else reversed(operators)
    await stage.deploy("nano")
    async with stage.gateways("nano"):
        await eventually(lambda: ready(admin, namespace, "nano"), "Ready")
        assert await standby.writes() == {}
        assert await leader.writes() != {}
        uids = {p["metadata"]["uid"] for p in await admin.all(resources.PODS, namespace)}

        leader.kill()
        await eventually(standby.leads, "the standby leads")
        pod = next(n for n in await admin.names(resources.PODS, namespace) if n.startswith("nano-chat-"))
        await admin.delete(resources.PODS, namespace, pod)
        await eventually(lambda: ready(admin, namespace, "nano"), "Ready under the new leader")
        kept = {p["metadata"]["uid"] for p in await admin.all(resources.PODS, namespace)}
        assert len(uids - kept) == 1


async def test_a_leader_that_is_told_to_stop_hands_over_at_once(stage: Stage) -> None:
    leader = stage.start_operator("one", **LONG_LEASE)
    await eventually(leader.leads, "one leads")
    standby = stage.start_operator("two", **LONG_LEASE)
    await eventually(standby.ready, "two stands by")
    assert leader.stop() == 0
    await eventually(standby.leads, "two leads", within_s=10)
