"""What people say beside the spec: paused, restart, scale. No pod changes while paused, all do in a restart,
and a number of replicas that somebody sets is never taken back on old knowledge. What
the operator's own settings add to a spec is checked as what people say.
"""

import pytest

from stepaudio_operator import names
from stepaudio_operator.render.images import ImageDefaults
from tests.unit.rollouts.nodes import is_ready
from tests.unit.rollouts.test_worlds import broken, spec
from tests.unit.rollouts.world import DEPLOYMENT, NAMESPACE, World


@pytest.fixture
def world() -> World:
    world = World(spec(replicas=2), {}, broken)
    assert world.settle()
    return world


def uids(world: World) -> set[str]:
    return {pod["metadata"]["uid"] for pod in world.pods()}


def test_a_paused_deployment_changes_no_pod(world: World) -> None:
    world.edit({**spec(change="one", replicas=2), "paused": True})
    assert world.settle()
    before, calls = uids(world), len(world.api.calls)
    tts = {pod["metadata"]["uid"] for pod in world.pods(names.TTS)}
    lost = world.pods(names.TTS)[0]["metadata"]
    world.api.remove(("Pod", NAMESPACE, lost["name"]))
    assert world.settle()
    assert uids(world) == before - {lost["uid"]}
    assert world.condition("Stalled") == ("True", "Paused")

    # Nor under an operator that has just begun and hears of pools before it hears of their deployment.
    written = len(world.api.calls)
    world.restart_operator(late=True)
    for key in sorted(world.operator.due):
        world.run(key)
    assert world.settle()
    assert len(world.api.calls) == written
    assert not [call for call in world.api.calls[calls:] if not call.startswith(("status", "create Event"))]

    world.edit(spec(change="one", replicas=2))
    assert world.settle()
    assert world.condition() == ("True", "Ready")
    assert before - uids(world) == tts


def test_a_restart_replaces_every_pod_within_the_budget(world: World) -> None:
    before = uids(world)
    said = {names.ANNOTATION_RESTART: "monday"}
    world.api.change(DEPLOYMENT, lambda raw: raw["metadata"].update(annotations=said))
    fewest = dict.fromkeys(names.MODEL_COMPONENTS, 2)
    for _ in range(100):
        world.round()
        world.pass_time(1)
        for component, count in fewest.items():
            serving = [p for p in world.pods(component) if "deletionTimestamp" not in p["metadata"]]
            fewest[component] = min(count, sum(map(is_ready, serving)))
    assert world.settle()
    assert fewest == dict.fromkeys(names.MODEL_COMPONENTS, 2)
    assert not before & uids(world)
    assert len(uids(world)) == len(before)
    assert world.condition() == ("True", "Ready")


def test_a_number_that_an_autoscaler_sets_between_a_look_and_a_write_stays() -> None:
    world = World({"preset": "nano"}, {})
    assert world.settle()
    world.scale(names.TTS, 3)
    world.edit({"preset": "nano", "rollout": {"maxUnavailable": 2}})
    # The operator hears of the edit, which writes every pool, before it hears of the scaling.
    world.deliver(names.DEPLOYMENT_KIND)
    for key in sorted(world.operator.due):
        world.run(key)
    assert world.settle()
    assert len(world.pods(names.TTS)) == 3
    pools = {raw["spec"]["component"]: raw["spec"] for raw in world.api.of(names.POOL_KIND)}
    assert (pools["tts"]["replicas"], pools["tts"]["rollout"]) == (3, {"maxUnavailable": 2})


def test_an_image_that_cannot_be_is_said_of_the_deployment_that_would_get_it() -> None:
    world = World({"preset": "nano"}, {})
    world.images = ImageDefaults("1.0.0", "https://registry.example.com")
    world.restart_operator()
    assert world.settle()
    assert world.condition("Stalled") == ("True", "InvalidSpec")
    (stalled,) = (c for c in world.status()["conditions"] if c["type"] == "Stalled")
    assert stalled["message"].startswith("spec.runtime.registry: must match ")
    world.edit({"preset": "nano", "runtime": {"registry": "registry.example.com"}})
    assert world.settle()
    assert world.condition() == ("True", "Ready")
