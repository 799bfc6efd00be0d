"""How far loads are reaches the statuses in coarse steps: at most ten writes a load and object, none
afterwards, and none by a pod that does not answer for a while or an operator that begins.
"""

from typing import Any

import pytest

from stepaudio_operator import names
from stepaudio_operator.polling import Answer
from tests.unit.rollouts.api import Raw
from tests.unit.rollouts.world import NAME, NAMESPACE, World

TOTAL = 263_900_000_000


@pytest.fixture
def world() -> World:
    """A deployment of which all serves but chat, whose one pod has begun to load."""
    world = World({"preset": "nano", "chat": {"replicas": 1}}, room={})
    world.nodes.loads = lambda pod: pod["metadata"]["labels"][names.LABEL_COMPONENT] == names.CHAT
    world.said[names.CHAT] = says(0, 0)
    assert world.settle()
    return world


def says(loaded: int, total: int = TOTAL) -> Answer:
    return Answer("Loading", 0, bytes_loaded=loaded, bytes_total=total)


def pool(world: World) -> Raw:
    return world.api.objects[(names.POOL_KIND, NAMESPACE, names.pool(NAME, names.CHAT))]["status"]


def message(status: Raw) -> str:
    (ready,) = (c["message"] for c in status["conditions"] if c["type"] == "Ready")
    return str(ready)


def test_progress_stands_in_the_pool_and_in_the_deployments_message(world: World) -> None:
    (pod,) = (p["metadata"]["name"] for p in world.pods(names.CHAT))
    assert "loading" not in pool(world)
    world.said[names.CHAT] = says(TOTAL // 2 - 1)
    assert world.settle()
    assert pool(world)["loading"] == [{"pod": pod, "percent": 40, "bytesTotal": TOTAL}]
    words = f"waits until {pod} can serve; {pod} has loaded 40% of 263.9GB"
    assert message(pool(world)) == words
    assert message(world.status()) == f"chat: {words}"
    assert world.condition() == ("False", "PodsNotReady")


def test_small_models_are_told_in_megabytes(world: World) -> None:
    (pod,) = (p["metadata"]["name"] for p in world.pods(names.CHAT))
    world.said[names.CHAT] = says(4_650_000, 9_297_360)
    assert world.settle()
    assert message(pool(world)) == f"waits until {pod} can serve; {pod} has loaded 50% of 9MB"


def test_a_load_makes_ten_writes_at_most(world: World) -> None:
    before = len(world.api.calls)
    for thousandth in range(1, 1001):
        world.said[names.CHAT] = says(TOTAL * thousandth // 1000)
        world.round()
    assert world.settle()
    written = world.api.calls[before:]
    assert sorted(set(written)) == [f"status StepAudioDeployment {NAME}", f"status StepAudioPool {NAME}-chat"]
    assert [written.count(call) for call in sorted(set(written))] == [10, 10]
    assert pool(world)["loading"][0]["percent"] == 100

    world.nodes.loads = lambda pod: False
    assert world.settle()
    assert "loading" not in pool(world)
    assert world.condition() == ("True", "Ready")
    calls = list(world.api.calls)
    world.restart_operator()
    assert world.settle()
    assert world.api.calls == calls


@pytest.mark.parametrize("silence", ["no answer", "another operator"])
def test_silence_is_no_news(world: World, silence: str) -> None:
    world.said[names.CHAT] = says(TOTAL // 2)
    assert world.settle()
    shown, calls = pool(world)["loading"], list(world.api.calls)
    world.said[names.CHAT] = Answer()
    if silence == "another operator":
        world.restart_operator()
    assert world.settle()
    assert world.api.calls == calls
    world.said[names.CHAT] = says(TOTAL // 2)
    assert world.settle()
    assert (pool(world)["loading"], world.api.calls) == (shown, calls)


def test_a_container_that_begins_anew_has_loaded_nothing(world: World) -> None:
    world.said[names.CHAT] = says(TOTAL // 2)
    assert world.settle()
    world.said[names.CHAT] = says(0, 0)
    assert world.settle()
    assert "loading" not in pool(world)
    assert "loaded" not in message(world.status())


def test_a_rollout_says_how_far_its_new_pods_are() -> None:
    world = World({"preset": "nano", "chat": {"replicas": 1}}, room={})
    assert world.settle()
    old = {p["metadata"]["uid"] for p in world.pods(names.CHAT)}

    def is_new(pod: Raw) -> bool:
        meta: dict[str, Any] = pod["metadata"]
        return meta["labels"][names.LABEL_COMPONENT] == names.CHAT and meta["uid"] not in old

    world.nodes.loads = is_new
    world.said[names.CHAT] = says(TOTAL * 7 // 10)
    world.edit({"preset": "nano", "chat": {"replicas": 1, "podTemplate": {"labels": {"a": "b"}}}})
    for _ in range(12):
        world.round()
    (new,) = (p["metadata"]["name"] for p in world.pods(names.CHAT) if is_new(p))
    assert message(world.status()).startswith("chat: pods are being replaced by revision ")
    assert message(world.status()).endswith(f"; {new} has loaded 70% of 263.9GB")
