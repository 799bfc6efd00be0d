"""What is changed, deleted or broken under the operator comes back, or its cause is said in the status."""

import asyncio
import json

import pytest

from stepaudio_operator import names
from stepaudio_operator.kube import resources
from tests.integration.operator.conftest import Stage
from tests.integration.operator.world import LONG_LEASE, Refused, eventually, ready, stalled

pytestmark = pytest.mark.api


async def test_deleted_and_changed_children_come_back(stage: Stage) -> None:
    admin, namespace = stage.admin, stage.namespace
    operator = stage.start_operator(**LONG_LEASE)
    await stage.deploy("nano")
    async with stage.gateways("nano"):
        await eventually(lambda: ready(admin, namespace, "nano"), "Ready")
        uids = {
            p["metadata"]["name"]: p["metadata"]["uid"] for p in await admin.all(resources.PODS, namespace)
        }
        pod = next(name for name in uids if name.startswith("nano-tts-"))
        await admin.delete(resources.PODS, namespace, pod)

        async def replaced() -> bool:
            found = await admin.find(resources.PODS, namespace, pod)
            return found is not None and found["metadata"]["uid"] != uids[pod]

        await eventually(replaced, "the pod is made again under its own name")
        await eventually(lambda: ready(admin, namespace, "nano"), "Ready after the pod's return")
        others = {
            p["metadata"]["name"]: p["metadata"]["uid"]
            for p in await admin.all(resources.PODS, namespace)
            if p["metadata"]["name"] != pod
        }
        assert others == {name: uid for name, uid in uids.items() if name != pod}

        await admin.delete(resources.CONFIG_MAPS, namespace, "nano-routing")
        await admin.delete(resources.SERVICES, namespace, "nano-chat")
        await admin.delete(resources.POOLS, namespace, "nano-tokenizer")
        await admin.patch(
            resources.SERVICES, namespace, "nano-tts", {"spec": {"selector": {names.LABEL_POOL: "elsewhere"}}}
        )
        await admin.patch(
            resources.SERVICES, namespace, "nano-tts", {"metadata": {"labels": {"theirs": "stays"}}}
        )
        await admin.patch(resources.APP_DEPLOYMENTS, namespace, "nano-gateway", {"spec": {"replicas": 3}})
        await admin.patch(resources.ROLES, namespace, "nano-gateway", {"rules": []})

        async def repaired() -> bool:
            routing = await admin.find(resources.CONFIG_MAPS, namespace, "nano-routing")
            chat = await admin.find(resources.SERVICES, namespace, "nano-chat")
            tts = await admin.get(resources.SERVICES, namespace, "nano-tts")
            gateway = await admin.get(resources.APP_DEPLOYMENTS, namespace, "nano-gateway")
            role = await admin.get(resources.ROLES, namespace, "nano-gateway")
            tokenizer = await admin.find(resources.POOLS, namespace, "nano-tokenizer")
            return bool(
                routing
                and chat
                and tokenizer
                and not tokenizer["metadata"].get("deletionTimestamp")
                and tts["spec"]["selector"][names.LABEL_POOL] == "nano-tts"
                and gateway["spec"]["replicas"] == 1
                and len(role["rules"] or ()) == 2
            )

        await eventually(repaired, "all of it is as it was")
        tts = await admin.get(resources.SERVICES, namespace, "nano-tts")
        assert tts["metadata"]["labels"]["theirs"] == "stays"
        # What the pool left is the garbage collector's, which learns of a young cluster's kinds late.
        await eventually(lambda: ready(admin, namespace, "nano"), "Ready after the repairs", within_s=180)
        assert operator.process.poll() is None


async def test_the_last_words_of_a_pod_reach_the_deployment_and_a_cure_clears_them(stage: Stage) -> None:
    admin, namespace = stage.admin, stage.namespace
    stage.start_operator(**LONG_LEASE)
    words = "ModelFileMissing: Step-Audio-TTS-3B/hift.pt is missing; load it again"
    stage.kubelet.failing["tts"] = (names.EXIT_CONFIGURATION, words)
    await stage.deploy("nano")

    async with stage.gateways("nano"):
        said = await eventually(
            lambda: stalled(admin, resources.DEPLOYMENTS, namespace, "nano"), "the deployment is Stalled"
        )
        assert said["reason"] == "ModelFileMissing"
        assert "Step-Audio-TTS-3B/hift.pt is missing; load it again" in said["message"]
        assert said["message"].startswith("tts: nano-tts-")

        async def warned() -> bool:  # events follow the status that they tell of
            events = await admin.all(resources.EVENTS, namespace)
            warnings = {(e["regarding"]["kind"], e["reason"]) for e in events if e["type"] == "Warning"}
            wanted = {(kind, "ModelFileMissing") for kind in ("StepAudioPool", "StepAudioDeployment")}
            return wanted <= warnings

        await eventually(warned, "pool and deployment warn of it", within_s=10)

        stage.kubelet.failing.clear()
        for name in await admin.names(resources.PODS, namespace):
            if name.startswith("nano-tts-"):
                await admin.delete(resources.PODS, namespace, name)
        await eventually(lambda: ready(admin, namespace, "nano"), "Ready once the pod starts")


async def test_what_the_server_refuses_is_said_and_not_hammered(stage: Stage) -> None:
    admin, namespace = stage.admin, stage.namespace
    operator = stage.start_operator(**LONG_LEASE)
    foreign = {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"namespace": namespace, "name": "nano-tts"},
        "spec": {"ports": [{"port": 1234}]},
    }
    before = await admin.call("POST", resources.SERVICES.path(namespace), foreign)
    await stage.deploy("nano")

    async with stage.gateways("nano"):
        said = await eventually(lambda: stalled(admin, resources.DEPLOYMENTS, namespace, "nano"), "Stalled")
        assert said["reason"] == "NameTaken"
        assert "nano-tts" in said["message"]
        after = await admin.get(resources.SERVICES, namespace, "nano-tts")
        assert after == before

        await asyncio.sleep(4)
        first = await operator.writes()
        await asyncio.sleep(6)
        assert await operator.writes() == first

        await admin.delete(resources.SERVICES, namespace, "nano-tts")
        await admin.patch(
            resources.DEPLOYMENTS, namespace, "nano", {"metadata": {"annotations": {"try": "now"}}}
        )
        await eventually(lambda: ready(admin, namespace, "nano"), "Ready once the name is free")


async def test_a_spec_that_cannot_be_is_refused_at_apply_with_its_field(stage: Stage) -> None:
    for spec, field in (
        ({"preset": "giant"}, "spec.preset"),
        ({"tts": {"replicas": -1}}, "spec.tts.replicas"),
        ({"tts": {"enabled": False}, "chat": {"enabled": False}}, "spec"),
        ({"chat": {"modelLength": 4}}, "modelLength"),
        ({"rollout": {"drainTimeout": "soon"}}, "spec.rollout.drainTimeout"),
    ):
        with pytest.raises(Refused) as refused:
            await stage.deploy("wrong", **spec)
        assert field in refused.value.message
    assert await stage.admin.all(resources.DEPLOYMENTS, stage.namespace) == []


async def test_an_edited_routing_object_gets_a_new_generation_and_the_gateways_follow(stage: Stage) -> None:
    admin, namespace = stage.admin, stage.namespace
    stage.start_operator(**LONG_LEASE)
    await stage.deploy("nano")
    async with stage.gateways("nano"):
        first = await eventually(lambda: ready(admin, namespace, "nano"), "Ready")
        stored = await admin.get(resources.CONFIG_MAPS, namespace, "nano-routing")
        routing = json.loads(stored["data"][names.ROUTING_KEY])
        routing["pools"]["tts"]["revisions"] = {"00000000": 100}
        await admin.patch(
            resources.CONFIG_MAPS,
            namespace,
            "nano-routing",
            {"data": {names.ROUTING_KEY: json.dumps(routing)}},
        )

        async def newer() -> bool:
            raw = await ready(admin, namespace, "nano")
            return bool(raw and raw["status"]["routingGeneration"] > first["status"]["routingGeneration"])

        await eventually(newer, "Ready again with a newer generation")
        stored = await admin.get(resources.CONFIG_MAPS, namespace, "nano-routing")
        assert "00000000" not in stored["data"][names.ROUTING_KEY]
