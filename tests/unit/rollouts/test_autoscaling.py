"""The autoscaler in the operator's whole code: who owns `replicas`, up and down by the load, down by draining
alone, to sleep and awake again by a request at a gateway; cut after any call it ends as if not cut.
"""

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from stepaudio_operator import names
from tests.unit.rollouts.api import Raw
from tests.unit.rollouts.nodes import is_ready
from tests.unit.rollouts.world import NAMESPACE, World

OFF: Raw = {"enabled": False}
SPEECH: Raw = {"preset": "nano", "chat": OFF, "tokenizer": OFF}
POOL = (names.POOL_KIND, NAMESPACE, "prod-tts")


def speech(**tts: object) -> Raw:
    return {**SPEECH, "tts": tts}


def begun(**tts: object) -> World:
    world = World(speech(**tts), room={})
    pass_on(world, 30)
    assert world.condition()[0] == "True", world.condition()
    return world


def pass_on(world: World, seconds: int) -> None:
    """So much time passes, in steps that nobody sleeps through."""
    for _ in range(0, seconds, 5):
        world.pass_time(5)
        for _ in range(4):
            world.round()


def ask(world: World, count: int) -> None:
    """So many requests begin, and are in the hands of TTS pods where there are any."""
    uid = next(iter(world.gateways))
    for _ in range(count):
        world.begin_request(uid)
    for request in list(world.requests):
        if not request.met:
            world.request_moves(request)


def end(world: World, count: int) -> None:
    for request in list(world.requests)[:count]:
        world.request_moves(request)


def pool(world: World) -> tuple[int, int, list[str]]:
    """Replicas that the pool is to have, ready pods, and who holds the field."""
    raw = world.api.objects[POOL]
    managers = [
        entry["manager"]
        for entry in raw["metadata"]["managedFields"]
        if "f:replicas" in entry["fieldsV1"].get("f:spec", {})
    ]
    return raw["spec"]["replicas"], sum(map(is_ready, world.pods(names.TTS))), managers


@pytest.fixture(autouse=True)
def only_speech(monkeypatch: pytest.MonkeyPatch) -> None:
    """A request meets TTS pods alone."""
    monkeypatch.setattr("tests.unit.rollouts.world.STAGES", (names.TTS,))


def test_up_with_the_load_and_down_without_cutting_a_request() -> None:
    world = begun(autoscaling={"min": 1, "max": 4, "inFlight": 2})
    assert pool(world) == (1, 1, [names.FIELD_MANAGER])
    ask(world, 7)
    pass_on(world, 20)
    assert pool(world)[0] == 1, "not within the window"
    pass_on(world, 40)
    assert pool(world) == (4, 4, [names.AUTOSCALER_FIELD_MANAGER])
    state = world.api.objects[POOL]["status"]["autoscaling"]
    assert (state["replicas"], state["reason"]) == (4, "7.0 requests in flight, 2 for a replica")
    end(world, 7)
    ask(world, 8)  # two for each of the four
    at_slot = {slot: [r for r in world.requests if r.met[0][0].endswith(f"-{slot}")] for slot in range(4)}
    for request in [*at_slot[0], *at_slot[1], at_slot[2][0]]:
        world.request_moves(request)
    pass_on(world, 500)
    assert pool(world)[0] == 4
    pass_on(world, 150)
    # The two with work go, take nothing on, and are there until it is done.
    leaving = {p["metadata"]["name"] for p in world.pods(names.TTS) if "deletionTimestamp" in p["metadata"]}
    assert (pool(world)[0], leaving) == (2, {name for r in world.requests for name, _ in r.met})
    assert len(leaving) == 2
    while world.requests:
        end(world, 1)
    assert world.told == {"served": 15}
    pass_on(world, 30)
    assert len(world.pods(names.TTS)) == 2
    pass_on(world, 1300)
    assert pool(world) == (1, 1, [names.AUTOSCALER_FIELD_MANAGER])


def test_who_owns_replicas_where_the_operator_scales() -> None:
    world = begun(replicas=3, autoscaling={"min": 1, "max": 4})
    assert pool(world) == (3, 3, [names.FIELD_MANAGER])  # to begin with
    world.scale(names.TTS, 9)
    pass_on(world, 20)
    assert pool(world) == (3, 3, [names.AUTOSCALER_FIELD_MANAGER])  # put back
    world.edit(speech(replicas=3, autoscaling={"min": 1, "max": 2}))
    pass_on(world, 20)
    assert pool(world) == (2, 2, [names.AUTOSCALER_FIELD_MANAGER])
    # A number without autoscaling is the deployment's again; neither leaves what there is to whoever scales.
    world.edit(speech(replicas=4))
    assert world.settle()
    assert pool(world) == (4, 4, [names.FIELD_MANAGER])
    assert "autoscaling" not in world.api.objects[POOL]["status"]
    world.edit(speech(autoscaling={"min": 1, "max": 8}))
    pass_on(world, 20)
    assert pool(world) == (4, 4, [names.FIELD_MANAGER])
    world.edit(speech())
    assert world.settle()
    assert pool(world) == (4, 4, [names.FIELD_MANAGER])
    world.scale(names.TTS, 1)
    assert world.settle()
    assert pool(world) == (1, 1, [])


def test_a_pool_sleeps_and_a_request_wakes_it() -> None:
    world = begun(autoscaling={"min": 0, "max": 3, "hold": "1m"})
    pass_on(world, 640)
    assert pool(world)[:2] == (0, 0)
    raw = world.api.objects[POOL]["status"]
    assert {c["type"]: c["reason"] for c in raw["conditions"]}["Ready"] == "Asleep"
    assert world.condition() == ("True", "Ready")
    routing = world.routing()
    assert routing is not None
    assert routing["pools"]["tts"]["wake"] == {"holdSeconds": 60, "retryAfterSeconds": 90}
    calls = list(world.api.calls)
    pass_on(world, 600)
    assert world.api.calls == calls, "a pool that sleeps costs no write"
    ask(world, 1)
    assert world.told == {"unavailable": 1}
    pass_on(world, 20)
    assert pool(world)[:2] == (1, 1)
    ask(world, 1)
    end(world, 1)
    assert world.told == {"unavailable": 1, "served": 1}
    pass_on(world, 660)
    assert pool(world)[:2] == (0, 0)


def test_a_number_of_zero_in_the_deployment_stays_zero() -> None:
    world = World(speech(replicas=0), room={})
    assert world.settle()
    ask(world, 1)
    assert world.settle()
    assert (pool(world)[:2], world.told) == ((0, 0), {"unavailable": 1})


def test_a_pool_that_stays_as_it_is_costs_no_write() -> None:
    world = begun(autoscaling={"min": 1, "max": 3})
    pass_on(world, 60)
    calls = list(world.api.calls)
    ask(world, 2)
    pass_on(world, 600)
    world.restart_operator()
    pass_on(world, 60)
    assert world.api.calls == calls


@given(
    cuts=st.lists(st.integers(1, 12), max_size=6), loads=st.lists(st.integers(0, 9), min_size=1, max_size=4)
)
@settings(max_examples=8, deadline=None, suppress_health_check=list(HealthCheck), phases=[Phase.generate])
def test_any_load_and_any_cut_stay_in_bounds_and_end_where_they_should(
    cuts: list[int], loads: list[int]
) -> None:
    world = begun(autoscaling={"min": 0, "max": 3, "inFlight": 3})
    left = list(cuts)  # what is reported of a failure is what was given
    for load in [*loads, *loads[-1:] * 2]:
        if left:
            world.api.cut_after = left.pop()
        for _ in range(12):  # within a pod's drain timeout they are done
            there = {pod["metadata"]["name"] for pod in world.pods(names.TTS)}
            assert {name for request in world.requests for name, _ in request.met} <= there, "one was cut"
            while world.requests:
                end(world, 1)
            ask(world, load)
            pass_on(world, 60)
            assert 0 <= pool(world)[0] <= 3
    assert pool(world)[:2] == (-(-loads[-1] // 3),) * 2
    assert "cut" not in world.told
