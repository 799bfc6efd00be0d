"""Changes of a running deployment, by every strategy, back again, and over the border of a release.

The API server and the operator's process are real, pods and gateways are played. A watch of pods, pools and
the routing object is read beside each change: what the operator did, in the order in which it was stored.
"""

import asyncio
import itertools
import json
import time
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from stepaudio_operator import names
from stepaudio_operator.kube import resources
from tests.integration.operator.conftest import Stage
from tests.integration.operator.pools import Pools, revision_of
from tests.integration.operator.record import Record, recording
from tests.integration.operator.world import LONG_LEASE, Raw, Refused, condition, eventually, ready

pytestmark = pytest.mark.api


def wish(change: str, **rollout: Any) -> Raw:
    """A deployment with two TTS pods; `change` changes them."""
    env = [{"name": "CHANGE", "value": change}]
    return {"tts": {"replicas": 2, "podTemplate": {"env": env}}, "rollout": rollout}


async def test_every_strategy_ends_exact_and_within_its_budget(stage: Stage) -> None:
    admin, pools = stage.admin, Pools(stage)
    stage.start_operator(**LONG_LEASE)
    await stage.deploy("nano", **wish("0", strategy="Surge"))
    async with stage.gateways("nano"):
        await pools.is_ready()
        others = await pools.pods("chat") | await pools.pods("tokenizer") | await pools.pods("gateway")

        async def change(number: str, **rollout: Any) -> Record:
            before, start = await pools.pods("tts"), await pools.all_pods()
            async with recording(admin, stage.namespace) as record:
                await stage.deploy("nano", **wish(number, **rollout))

                async def replaced() -> bool:
                    now = await pools.pods("tts")
                    whole = condition(await pools.pool("tts"), "Ready").get("status") == "True"
                    return len(now) == 2 and not set(now.values()) & set(before.values()) and whole

                await eventually(replaced, f"the pods of change {number}")
                await pools.is_ready()
            revision = revision_of(await pools.pods("tts"))
            assert revision != revision_of(before)
            await pools.at("tts", revision, 2)
            fewest[number] = record.fewest_serving("tts", start)
            return record

        fewest: dict[str, int] = {}
        await change("surge", strategy="Surge")
        await change("in place", strategy="InPlace")
        await change("all at once", strategy="Recreate")
        stage.kubelet.room["tts"] = 2
        record = await change("no room", strategy="Auto", surgeTimeout="1s")
        assert fewest == {"surge": 2, "in place": 1, "all at once": 0, "no room": 1}
        phases = [raw["status"].get("rollout", {}).get("phase") for _, _, raw in record.of("StepAudioPool")]
        assert [p for n, p in enumerate(phases) if p and p not in phases[:n]] == ["Surge", "InPlace"]
        # The other pools' pods have never been touched.
        assert others == (
            await pools.pods("chat") | await pools.pods("tokenizer") | await pools.pods("gateway")
        )


async def test_a_bad_revision_goes_back_by_itself_and_a_revert_keeps_what_serves(stage: Stage) -> None:
    admin, pools = stage.admin, Pools(stage)
    stage.start_operator(**LONG_LEASE)
    await stage.deploy("nano", **wish("good"))
    async with stage.gateways("nano"):
        await pools.is_ready()
        good = await pools.pods("tts")

        # A revert in the middle of a rollout: the newcomer goes, nobody else.
        stage.kubelet.hold = lambda pod: pod["metadata"]["name"] not in good and "tts" in str(pod["metadata"])
        await stage.deploy("nano", **wish("slow"))

        async def three() -> bool:
            return len(await pools.pods("tts")) == 3

        await eventually(three, "a newcomer that loads")
        await stage.deploy("nano", **wish("good"))

        async def as_before() -> bool:
            return await pools.pods("tts") == good

        await eventually(as_before, "only the newcomer goes")
        await pools.is_ready()
        stage.kubelet.hold = lambda pod: False

        # A revision that cannot run is quarantined, in the status before in deed, and the good one serves on.
        words = "ModelFileMissing: Step-Audio-TTS-3B/hift.pt is missing; load it again"
        stage.kubelet.failing["tts"] = (names.EXIT_CONFIGURATION, words)
        stage.kubelet.fails = lambda pod: "bad" in str(pod["spec"]["containers"][0]["env"])
        start = await pools.all_pods()
        async with recording(admin, stage.namespace) as record:
            await stage.deploy("nano", **wish("bad"))

            async def back() -> bool:
                raw = await admin.get(resources.DEPLOYMENTS, stage.namespace, "nano")
                held = condition(raw, "Stalled").get("reason") == "RevisionQuarantined"
                return held and await pools.pods("tts") == good

            await eventually(back, "quarantined and back")
        assert record.fewest_serving("tts", start) == 2
        tts = [(at, raw) for at, _, raw in record.of("StepAudioPool") if raw["spec"]["component"] == "tts"]
        stored = min(at for at, raw in tts if raw["status"].get("quarantined"))
        ended = [at for at, what, raw in record.of("Pod") if what == "DELETED"]
        assert ended
        assert min(ended) > stored
        held = (await pools.pool("tts"))["status"]["quarantined"]
        assert [(entry["reason"], words[18:] in entry["message"]) for entry in held] == [
            ("ModelFileMissing", True)
        ]
        events = await admin.all(resources.EVENTS, stage.namespace)
        assert ("nano-tts", "RevisionQuarantined") in {
            (e["regarding"]["name"], e["reason"]) for e in events if e["type"] == "Warning"
        }

        # Once its cause is gone, `retry` of the deployment tries it again.
        stage.kubelet.failing.clear()
        await pools.annotate(retry="1")
        await pools.is_ready()
        tried = revision_of(await pools.pods("tts"))
        assert tried != revision_of(good)
        await pools.at("tts", tried, 2)
        assert "quarantined" not in (await pools.pool("tts"))["status"]


async def test_a_canary_waits_to_be_seen_takes_over_by_its_steps_and_a_bad_one_goes_back(
    stage: Stage,
) -> None:
    pools = Pools(stage)
    stage.start_operator(**LONG_LEASE)
    steps = [{"traffic": 25, "pause": "1s"}, {"traffic": 50, "pause": "1s"}]

    async def change(to: str) -> None:
        await stage.deploy("nano", **wish(to, strategy="Canary", canary={"steps": steps}))

    def says(reason: str) -> Callable[[], Awaitable[bool]]:
        async def so() -> bool:
            return condition(await pools.pool("tts"), "Ready").get("reason") == reason

        return so

    async with stage.gateways("nano") as gateways:
        await change("first")
        await pools.is_ready()
        first = revision_of(await pools.pods("tts"))

        gateways.errors = None
        async with recording(stage.admin, stage.namespace) as record:
            await change("second")
            await eventually(says("CanaryUnseen"), "no gateway can be asked: the step does not pass")
            gateways.errors = lambda revision: 1
            await pools.is_ready()
        second = revision_of(await pools.pods("tts"))
        await pools.at("tts", second, 2)
        shares = [r["pools"]["tts"]["revisions"].get(second, 0) for r in _routings(record)]
        # By its steps, then by how many pods are ready of it.
        assert [share for share, _ in itertools.groupby(shares)][:2] == [25, 50]
        assert shares[-1] == 100
        assert {first, second} == {r for s in _routings(record) for r in s["pools"]["tts"]["revisions"]}

        serving = await pools.pods("tts")
        gateways.errors = lambda revision: 0 if revision == second else 40
        await change("third")
        await eventually(says("RevisionQuarantined"), "it fails")

        async def back() -> bool:
            return await pools.pods("tts") == serving

        await eventually(back, "and the pods are those that served before")
        (held,) = (await pools.pool("tts"))["status"]["quarantined"]
        assert held["reason"] == "CanaryFailed"
        assert held["message"] == f"40% of its 100 requests failed, 0% of those of revision {second}"
        routed = await stage.admin.get(resources.CONFIG_MAPS, stage.namespace, "nano-routing")
        assert json.loads(routed["data"][names.ROUTING_KEY])["pools"]["tts"]["revisions"] == {second: 100}


async def test_paused_pools_change_no_pod_and_a_restart_replaces_all(stage: Stage) -> None:
    admin, pools = stage.admin, Pools(stage)
    first = stage.start_operator("one", **LONG_LEASE)
    await stage.deploy("nano", **wish("one"))
    async with stage.gateways("nano"):
        await pools.is_ready()
        before = await pools.pods("tts")
        lost = min(before)
        await stage.deploy("nano", **wish("one"), paused=True)

        async def paused() -> bool:
            raw = await ready(admin, stage.namespace, "nano")
            return raw is not None and condition(raw, "Ready")["reason"] == "Paused"

        await eventually(paused, "paused")
        await admin.delete(resources.PODS, stage.namespace, lost)

        async def says_so() -> bool:
            return condition(await pools.pool("tts"), "Stalled").get("reason") == "Paused"

        await eventually(says_so, "the pool says what is left undone")
        # Also an operator that has just begun, and may see a pool before its deployment.
        assert first.stop() == 0
        second = stage.start_operator("two", **LONG_LEASE)
        await eventually(second.leads, "the second leads")
        await asyncio.sleep(4)
        assert await pools.pods("tts") == {name: uid for name, uid in before.items() if name != lost}
        assert await second.writes() == {}
        await stage.deploy("nano", **wish("one"), paused=False)
        await pools.is_ready()
        await pools.at("tts", revision_of(before), 2)

        start, old = await pools.all_pods(), {p["metadata"]["uid"] for p in await pools.all_pods()}
        async with recording(admin, stage.namespace) as record:
            await pools.annotate(restart="now")

            async def restarted() -> bool:
                now = await pools.all_pods()
                return not old & {p["metadata"]["uid"] for p in now} and len(now) == len(old)

            await eventually(restarted, "every pod is another")
            await pools.is_ready()
        for component, count in (("chat", 1), ("tts", 2), ("tokenizer", 1), ("gateway", 1)):
            assert record.fewest_serving(component, start) == count
        assert revision_of(await pools.pods("tts")) != revision_of(before)


async def test_over_the_border_traffic_moves_as_a_whole_and_old_pods_wait_for_the_gateways(
    stage: Stage,
) -> None:
    admin, pools = stage.admin, Pools(stage)
    stage.start_operator(**LONG_LEASE)

    def folder(path: str, **rollout: Any) -> Raw:
        models = {"source": {"pvc": {"claimName": "models", "subPath": path}}}
        return {"models": models, "rollout": rollout, "runtime": {"version": "1.0.0"}}

    async def routing() -> Raw:
        stored = await admin.get(resources.CONFIG_MAPS, stage.namespace, "nano-routing")
        return json.loads(stored["data"][names.ROUTING_KEY])

    async def model_pods() -> dict[str, str]:
        return {k: v for c in names.MODEL_COMPONENTS for k, v in (await pools.pods(c)).items()}

    await stage.deploy("nano", **folder("first"))
    async with stage.gateways("nano") as gateways:
        await pools.is_ready()
        old, before = await model_pods(), await routing()
        gateways.behind = True
        async with recording(admin, stage.namespace) as record:
            await stage.deploy("nano", **folder("second"))

            async def moved() -> bool:
                return (await routing())["release"] != before["release"]

            await eventually(moved, "the routing object names the new release")
            await asyncio.sleep(2)
            assert set(old.values()) <= set((await model_pods()).values()), "nobody has acknowledged yet"
            gateways.behind = False
            await pools.is_ready()
        assert len(await model_pods()) == 3
        _one_release_each(record, await admin.all(resources.REVISIONS, stage.namespace))
        assert all(r["serving"] for r in _routings(record))

        # Without room for a second set it is a declared outage, and it ends.
        stage.kubelet.room |= dict.fromkeys(names.MODEL_COMPONENTS, 1)
        async with recording(admin, stage.namespace) as record:
            await stage.deploy("nano", **folder("third", surgeTimeout="1s"))

            async def third() -> bool:
                now = await routing()
                return now["serving"] and now["release"] not in (before["release"], seen)

            seen = (await routing())["release"]
            await eventually(third, "the third release serves")
            await pools.is_ready()
        told = [(r["serving"], r["retryAfterSeconds"]) for r in _routings(record)]
        assert told == [(False, 90), (True, None)]
        _one_release_each(record, await admin.all(resources.REVISIONS, stage.namespace))


def _routings(record: Record) -> list[Raw]:
    return [json.loads(raw["data"][names.ROUTING_KEY]) for _, _, raw in record.of("ConfigMap")]


def _one_release_each(record: Record, revisions: list[Raw]) -> None:
    """Every routing object that was stored names pods of one release only, of every pool."""
    releases = {
        r["metadata"]["labels"][names.LABEL_REVISION]: r["metadata"]["annotations"][names.ANNOTATION_RELEASE]
        for r in revisions
    }
    assert _routings(record)
    for stored in _routings(record):
        assert set(stored["pools"]) == set(names.MODEL_COMPONENTS)
        named = {releases[r] for pool in stored["pools"].values() for r in pool["revisions"]}
        assert named == {stored["release"]}


async def test_no_budget_keeps_a_node_from_being_drained(stage: Stage) -> None:
    admin, pools = stage.admin, Pools(stage)
    stage.start_operator(**LONG_LEASE)
    await stage.deploy("nano", **wish("one"))
    async with stage.gateways("nano"):
        await pools.is_ready()

        async def evict(pod: str) -> int:
            body = {
                "apiVersion": "policy/v1",
                "kind": "Eviction",
                "metadata": {"name": pod, "namespace": stage.namespace},
            }
            try:
                await admin.call("POST", resources.PODS.path(stage.namespace, pod, "eviction"), body)
            except Refused as refused:
                return refused.code
            return 201

        # A single replica goes at once, and comes again elsewhere.
        (chat,) = await pools.pods("chat")

        async def evicted(pod: str, budget: str) -> bool:
            if await evict(pod) == 201:
                return True
            # In a young cluster the controller of budgets learns of our kinds late; having failed it looks
            # again after minutes, but at once where a budget changes.
            touched = {"metadata": {"annotations": {"touched": str(time.monotonic())}}}
            await admin.patch(resources.DISRUPTION_BUDGETS, stage.namespace, budget, touched)
            return False

        what = "the only chat pod may be evicted"
        await eventually(lambda: evicted(chat, "nano-chat"), what, within_s=240, every_s=1)
        await pools.is_ready()
        # Of two, one at a time: the second when the first is back.
        stage.kubelet.hold = lambda pod: True
        first, second = sorted(await pools.pods("tts"))
        what = "the first of two may be evicted"
        await eventually(lambda: evicted(first, "nano-tts"), what, within_s=240, every_s=1)
        assert await evict(second) == 429
        stage.kubelet.hold = lambda pod: False

        what = "the second may go when the first is back"
        await eventually(lambda: evicted(second, "nano-tts"), what, within_s=240, every_s=1)
        await pools.is_ready()
