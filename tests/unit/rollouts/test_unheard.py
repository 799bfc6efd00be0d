"""A rollout begun while no node is heard takes no pod and no request away; it goes on when they are."""

from collections import Counter

from stepaudio_operator import names
from tests.unit.rollouts.test_worlds import spec
from tests.unit.rollouts.world import STAGES, World


def served(world: World) -> Counter[str]:
    """What becomes of one request to every gateway."""
    world.told = Counter()
    for uid in sorted(world.gateways):
        world.begin_request(uid)
        for _ in range(len(STAGES) + 1):
            for request in list(world.requests):
                world.request_moves(request)
    return world.told


def test_what_serves_is_kept_and_asked_until_nodes_are_heard() -> None:
    world = World(spec(), room={})
    assert world.settle()
    before = [pod["metadata"]["uid"] for pod in world.pods()]
    world.nodes.fall_silent()
    world.edit(spec(change="one", strategy="Surge"))
    for _ in range(60):
        world.round()
        world.pass_time(1)
        assert served(world) == {"served": 1}
    kept = [pod for pod in world.pods() if pod["metadata"]["uid"] in before]
    assert [pod for pod in kept if "deletionTimestamp" in pod["metadata"]] == []
    assert len(kept) == len(before)
    assert world.condition()[1] == "NodeNotReady"

    world.nodes.speak_again()
    assert world.settle()
    assert world.condition() == ("True", "Ready")
    gone = set(before) - {pod["metadata"]["uid"] for pod in world.pods()}
    assert len(gone) == 1
    assert served(world) == {"served": 1}
    (pod,) = world.pods(names.TTS)
    assert "one" in str(pod["spec"]["containers"][0]["env"])
