"""A ResourceQuota of the namespace is full: that is said with its cure, nothing that serves is touched for
it, and a rollout by `Auto` goes in place once it has waited for room as long as it may.
"""

from stepaudio_operator import names
from stepaudio_operator.errors import ClusterError, Forbidden
from tests.unit.rollouts.api import Raw
from tests.unit.rollouts.nodes import is_ready
from tests.unit.rollouts.world import World

OFF: Raw = {"enabled": False}
MESSAGE = 'pods "x" is forbidden: exceeded quota: gpus, requested: pods=1, used: pods=2, limited: pods=2'


def speech(length: int, **rollout: str) -> Raw:
    part = {"replicas": 2, "maxModelLen": length}
    return {"preset": "nano", "chat": OFF, "tokenizer": OFF, "gateway": OFF, "tts": part, "rollout": rollout}


def bounded(spec: Raw, pods: int) -> World:
    """A world whose namespace has room for so many pods, those that leave included."""
    world = World(spec, room={})

    def refuse(body: Raw) -> ClusterError | None:
        full = body["kind"] == "Pod" and len(world.pods(names.TTS)) >= pods
        return Forbidden(MESSAGE, status=403, reason="Forbidden") if full else None

    world.api.refuse = refuse
    return world


def revisions(world: World) -> set[str]:
    return {pod["metadata"]["labels"][names.LABEL_REVISION] for pod in world.pods(names.TTS)}


def pass_on(world: World, seconds: int) -> int:
    """So much time passes. Returns the fewest pods that served meanwhile."""
    fewest = 99
    for _ in range(seconds):
        world.pass_time(1)
        world.round()
        fewest = min(fewest, sum(map(is_ready, world.pods(names.TTS))))
    return fewest


def test_auto_goes_in_place_when_the_quota_has_had_no_room_for_long_enough() -> None:
    world = bounded(speech(512), 2)
    assert world.settle()
    (old,) = revisions(world)
    world.edit(speech(1024, surgeTimeout="60s"))
    assert (pass_on(world, 50), revisions(world)) == (2, {old})
    said = {c["type"]: c for c in world.status()["conditions"]}["Stalled"]
    assert said["reason"] == "QuotaExceeded"
    assert said["message"] == f"tts: {MESSAGE}: raise that ResourceQuota, or ask for less"
    assert pass_on(world, 300) == 1
    assert world.condition() == ("True", "Ready")
    assert old not in revisions(world)


def test_surge_waits_and_goes_on_when_there_is_room() -> None:
    world = bounded(speech(512), 2)
    assert world.settle()
    (old,) = revisions(world)
    world.edit(speech(1024, strategy="Surge"))
    assert (pass_on(world, 600), revisions(world)) == (2, {old})
    world.api.refuse = lambda body: None
    assert pass_on(world, 60) == 2
    assert world.condition() == ("True", "Ready")
    assert old not in revisions(world)


def test_a_quota_that_is_full_costs_no_write_again_and_again() -> None:
    world = bounded(speech(512), 1)
    pass_on(world, 60)
    assert world.condition("Stalled") == ("True", "QuotaExceeded")
    calls = len(world.api.calls)
    pass_on(world, 60)
    assert len(world.api.calls) == calls
