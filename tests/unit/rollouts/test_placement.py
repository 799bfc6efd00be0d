"""A tokenizer that moves into the TTS pods, and out of them again, hears every request meanwhile."""

from typing import Any

import pytest

from stepaudio_operator import names
from tests.unit.rollouts.api import Raw
from tests.unit.rollouts.clients import served_through
from tests.unit.rollouts.nodes import is_ready
from tests.unit.rollouts.test_worlds import broken, spec
from tests.unit.rollouts.world import NAMESPACE, STAGES, World

POOL = (names.POOL_KIND, NAMESPACE, "prod-tokenizer")
SERVICE = ("Service", NAMESPACE, "prod-tokenizer")
OWN, WITH_TTS = "prod-tokenizer", "prod-tts"


def placed(within: bool, **more: Any) -> Raw:
    tokenizer = {"placement": "WithTTS"} if within else {"replicas": more.get("replicas", 1)}
    return {**spec(**more), "tokenizer": tokenizer}


def heard_by(world: World) -> str:
    routing = world.routing()
    assert routing is not None
    return str(routing["pools"]["tokenizer"]["service"])


def serving(world: World) -> bool:
    routing = world.routing()
    assert routing is not None
    return bool(routing["serving"])


def settled(within: bool, **more: Any) -> World:
    world = World(placed(within, **more), {}, broken)
    assert world.settle()
    assert world.condition() == ("True", "Ready")
    return world


def test_from_the_beginning_there_is_no_pool_for_it() -> None:
    world = settled(True)
    assert heard_by(world) == WITH_TTS
    assert POOL not in world.api.objects
    assert SERVICE not in world.api.objects
    routing = world.routing()
    assert routing is not None
    assert routing["pools"]["tokenizer"] == routing["pools"]["tts"]


# One pod that is replaced in its place is away for a while, as was asked.
@pytest.mark.parametrize(("replicas", "strategy"), [(1, "Auto"), (2, "Auto"), (2, "InPlace")])
def test_it_moves_in_without_a_request_that_is_not_heard(replicas: int, strategy: str) -> None:
    world = settled(False, replicas=replicas, strategy=strategy)
    world.edit(placed(True, replicas=replicas, strategy=strategy))
    served_through(world, 200)
    assert heard_by(world) == WITH_TTS
    assert POOL not in world.api.objects
    assert SERVICE not in world.api.objects
    assert world.condition() == ("True", "Ready")


@pytest.mark.parametrize("replicas", [1, 2])
def test_it_moves_out_without_a_request_that_is_not_heard(replicas: int) -> None:
    world = settled(True, replicas=replicas)
    world.edit(placed(False, replicas=replicas))
    served_through(world, 200)
    assert heard_by(world) == OWN
    assert POOL in world.api.objects
    assert world.condition() == ("True", "Ready")


def test_the_pods_that_hear_stay_while_the_others_find_no_room() -> None:
    world = settled(True)
    world.nodes.room = {"tokenizer": 0}
    world.edit(placed(False))
    served_through(world, 200)
    assert heard_by(world) == WITH_TTS
    world.nodes.room = {}
    world.edit(placed(False))
    served_through(world, 200)
    assert heard_by(world) == OWN
    assert len(world.pods(names.TTS)) == 1


def test_the_pods_that_hear_stay_though_speech_is_switched_off() -> None:
    world = settled(True)
    world.edit({**placed(False), "tts": {"enabled": False}})
    for _ in range(100):
        world.round()
        world.pass_time(1)
        hears = [p for p in world.pods() if p["metadata"]["labels"][names.LABEL_POOL] == heard_by(world)]
        assert any(is_ready(p) and "deletionTimestamp" not in p["metadata"] for p in hears)
    assert world.settle()
    assert world.condition() == ("True", "Ready")
    assert heard_by(world) == OWN
    assert (names.POOL_KIND, NAMESPACE, "prod-tts") not in world.api.objects


def test_a_revision_that_fails_leaves_the_pool_as_it_was() -> None:
    world = settled(False)
    world.edit(placed(True, change="broken"))
    served_through(world, 200)
    assert world.condition() == ("False", "RevisionQuarantined")
    assert heard_by(world) == OWN
    assert POOL in world.api.objects


def test_another_release_moves_it_too() -> None:
    world = settled(False)
    world.edit(placed(True, folder="b"))
    served_through(world, 200)
    assert heard_by(world) == WITH_TTS
    assert POOL not in world.api.objects
    assert world.condition() == ("True", "Ready")


def all_that_is_routed_serves(world: World) -> bool:
    """Whether each revision that gateways are told of has a pod that is ready, and a request is answered."""
    routing = world.routing()
    assert routing is not None
    ready = {
        (p["metadata"]["labels"][names.LABEL_POOL], p["metadata"]["labels"][names.LABEL_REVISION])
        for p in world.pods()
        if is_ready(p)
    }
    told = {(place["service"], r) for place in routing["pools"].values() for r in place["revisions"]}
    world.told.clear()
    for uid in sorted(world.gateways):
        world.begin_request(uid)
    assert world.settle()
    return routing["serving"] and told <= ready and set(world.told) == {"served"}


def revisions(world: World, component: str) -> set[str]:
    """What its pods are of."""
    return {p["metadata"]["labels"][names.LABEL_REVISION] for p in world.pods(component)}


def test_a_pool_that_stays_after_all_does_what_it_was_asked_before_and_is_routed_as_it_is() -> None:
    world = settled(False)
    world.nodes.room = dict.fromkeys(STAGES, 1)
    before = revisions(world, names.TOKENIZER)
    world.edit(placed(False, wire="1.1.0"))
    world.round()
    world.edit(placed(True, folder="broken"))
    assert world.settle()
    assert world.condition() == ("False", "ReleaseFailed")
    assert heard_by(world) == OWN
    assert revisions(world, names.TOKENIZER) != before
    assert all_that_is_routed_serves(world)


@pytest.mark.parametrize("room", [1, 2])
def test_a_pool_that_was_asked_for_another_release_stays_with_the_one_that_is_served(room: int) -> None:
    world = settled(False)
    world.nodes.room = dict.fromkeys(STAGES, room)
    before = revisions(world, names.TOKENIZER)
    world.edit(placed(False, folder="b"))
    for _ in range(3):
        world.round()
    world.edit(placed(True, folder="broken"))
    assert world.settle()
    assert heard_by(world) == OWN
    assert revisions(world, names.TOKENIZER) == before
    assert all_that_is_routed_serves(world)


def test_a_pool_that_has_left_the_release_in_an_outage_comes_back_to_it() -> None:
    world = settled(False)
    world.nodes.room = dict.fromkeys(STAGES, 1)
    before = revisions(world, names.TOKENIZER)
    world.edit(placed(False, folder="b", strategy="InPlace"))
    while revisions(world, names.TOKENIZER) == before:
        world.round()
        world.pass_time(1)
    assert not serving(world)
    world.edit(placed(True, folder="broken"))
    assert world.settle()
    assert heard_by(world) == OWN
    assert revisions(world, names.TOKENIZER) == before
    assert all_that_is_routed_serves(world)


def test_an_outage_on_the_way_out_ends_where_it_began_if_the_release_fails() -> None:
    world = settled(True)
    world.nodes.room = dict.fromkeys(STAGES, 1)
    world.edit(placed(False, folder="broken", strategy="InPlace"))
    assert world.settle()
    assert heard_by(world) == WITH_TTS
    assert all_that_is_routed_serves(world)


def test_a_routing_object_that_is_deleted_meanwhile_names_the_pool_that_hears() -> None:
    world = settled(False)
    world.nodes.room = {names.TTS: 0}
    world.edit(placed(True, strategy="Surge"))
    for _ in range(20):
        world.round()
    world.api.remove(("ConfigMap", NAMESPACE, names.routing("prod")))
    for _ in range(20):
        world.round()
    assert heard_by(world) == OWN
    assert POOL in world.api.objects


def test_its_pool_stays_while_models_of_another_preset_are_downloaded() -> None:
    world = settled(False)
    source = {"source": {"huggingFace": {}}, "cache": {"size": "400Gi"}}
    world.edit({"preset": "step-audio", "models": source, "tokenizer": {"placement": "WithTTS"}})
    assert world.settle()
    assert heard_by(world) == OWN
    assert all_that_is_routed_serves(world)
