"""Replicas on several nodes: groups are made, serve, are replaced and go like pods, and always as a whole.

The operator and the gateways are real, LeaderWorkerSet's controller is played (`nodes.Nodes`): it makes a
group's leader, then the others, and sends them away when the set is gone.
"""

from datetime import timedelta
from typing import Any

import pytest

from stepaudio_operator import names
from tests.unit.rollouts.api import Raw
from tests.unit.rollouts.clients import served_through
from tests.unit.rollouts.nodes import is_ready, stamp
from tests.unit.rollouts.test_worlds import broken, spec
from tests.unit.rollouts.world import NAMESPACE, World

POOL = (names.POOL_KIND, NAMESPACE, "prod-chat")


def grouped(nodes: int = 2, **more: Any) -> Raw:
    asked = spec(**more)
    chat = {"gpu": {"count": 2 * nodes, "nodes": nodes}} if nodes > 1 else {"gpu": {"count": 2}}
    change = [{"name": "CHANGE", "value": more["change"]}] if more.get("change") else []
    return {**asked, "chat": {**asked["chat"], **chat, "podTemplate": {"env": change}}}


def settled(room: dict[str, int] | None = None, **more: Any) -> World:
    world = World(grouped(**more), room or {}, broken)
    assert world.settle()
    return world


def groups(world: World) -> list[str]:
    return [s["metadata"]["name"] for s in world.api.of("LeaderWorkerSet")]


def pods(world: World) -> list[str]:
    return sorted(p["metadata"]["name"] for p in world.pods(names.CHAT))


def revision(world: World) -> str:
    return str(world.api.objects[POOL]["status"]["revision"])


def counts(world: World) -> tuple[int, int, int]:
    status = world.api.objects[POOL]["status"]
    return status["replicas"], status["readyReplicas"], status["updatedReplicas"]


def said(world: World) -> tuple[str, str]:
    (ready,) = (c for c in world.api.objects[POOL]["status"]["conditions"] if c["type"] == "Ready")
    return ready["reason"], ready["message"]


def test_a_replica_is_a_set_of_one_group_and_counts_once() -> None:
    world = settled(replicas=2)
    hash8 = revision(world)
    assert world.condition() == ("True", "Ready")
    assert groups(world) == [f"prod-chat-{hash8}-0", f"prod-chat-{hash8}-1"]
    assert pods(world) == [f"{g}-0{worker}" for g in groups(world) for worker in ("", "-1")]
    assert counts(world) == (2, 2, 2)
    cluster = world.operator.cluster
    assert [p.name for p in cluster.pods(NAMESPACE, "prod-chat")] == groups(world)
    assert [p.name for p in cluster.every_pod(NAMESPACE, "prod-chat")] == pods(world)  # for models on nodes
    calls = len(world.api.calls)
    world.restart_operator()
    assert world.settle()
    assert world.api.calls[calls:] == []


@pytest.mark.parametrize("strategy", ["Surge", "InPlace"])
def test_groups_are_replaced_within_the_budget_while_requests_go_on(strategy: str) -> None:
    world = settled(replicas=2, strategy=strategy)
    old = revision(world)
    world.edit(grouped(replicas=2, strategy=strategy, change="one"))
    served_through(world, 250)
    assert revision(world) != old
    assert groups(world) == [f"prod-chat-{revision(world)}-{slot}" for slot in (0, 1)]
    assert counts(world) == (2, 2, 2)


def test_pods_become_groups_and_groups_pods() -> None:
    world = settled(nodes=1, replicas=2)
    assert groups(world) == []
    world.edit(grouped(replicas=2))
    served_through(world, 250)
    assert len(groups(world)) == 2
    world.edit(grouped(nodes=1, replicas=2))
    served_through(world, 250)
    assert groups(world) == []
    assert len(pods(world)) == 2


def test_a_group_of_which_one_pod_is_taken_goes_as_a_whole_after_its_requests() -> None:
    world = settled(replicas=2)
    first = groups(world)[0]
    for uid in sorted(world.gateways):
        world.begin_request(uid)
    gone = world.now + timedelta(seconds=90)

    def evicted(raw: Raw) -> None:
        raw["metadata"]["deletionTimestamp"] = stamp(gone)

    world.api.change(("Pod", NAMESPACE, f"{first}-0-1"), evicted)
    served_through(world, 250)
    assert world.api.calls.count(f"delete LeaderWorkerSet {first}") == 1
    assert counts(world) == (2, 2, 2)


def test_half_a_group_holds_nothing_for_long() -> None:
    world = settled(room={names.CHAT: 3}, replicas=2)
    assert counts(world)[:2] == (2, 1)
    reason, message = said(world)
    assert reason == "WaitingForCapacity"
    assert message.startswith("a replica needs 2 GPUs on each of 2 nodes and no node has that free")
    taken = [call for call in world.api.calls if call.startswith("delete LeaderWorkerSet")]
    half, hours = f"delete LeaderWorkerSet prod-chat-{revision(world)}-1", 2
    assert set(taken) <= {half}
    begun = len(world.api.calls)
    until = world.now + timedelta(hours=hours)
    while world.now < until:
        world.round()
        world.pass_time(5)
    again = [call for call in world.api.calls[begun:] if call == half]
    assert hours * 8 <= len(again) <= hours * 10  # one in surgeTimeout and a minute
    world.nodes.room = {names.CHAT: 4}
    for pod in world.pods(names.CHAT):  # the scheduler tries again
        if not pod["spec"].get("nodeName"):
            world.api.change(("Pod", NAMESPACE, pod["metadata"]["name"]), lambda raw: raw.pop("status"))
    assert world.settle()
    assert counts(world) == (2, 2, 2)


def test_a_cluster_without_leader_worker_sets_is_told_what_is_missing() -> None:
    world = World(grouped(), {}, broken)
    world.api.unserved.add("LeaderWorkerSet")
    for _ in range(60):
        world.round()
        world.pass_time(1)
    assert said(world) == (
        "KindUnknown",
        "this cluster does not serve leaderworkersets of leaderworkerset.x-k8s.io/v1; a replica on several"
        " nodes needs LeaderWorkerSet: install it, or remove gpu.nodes",
    )
    assert world.condition("Stalled")[0] == "True"
    world.api.unserved.clear()
    assert world.settle()
    assert world.condition() == ("True", "Ready")


def test_cut_after_every_call_a_rollout_of_groups_ends_as_if_it_had_not_been() -> None:
    world = settled(replicas=2)
    uncut = world.twin({})
    uncut.edit(grouped(replicas=2, change="one"))
    assert uncut.settle()
    for number in range(1, len(uncut.api.calls) + 1):
        cut = world.twin({})
        cut.edit(grouped(replicas=2, change="one"))
        cut.api.cut_after = number
        assert cut.settle()
        assert (groups(cut), pods(cut), counts(cut)) == (groups(uncut), pods(uncut), counts(uncut)), number
        assert all(is_ready(pod) for pod in cut.pods(names.CHAT))
