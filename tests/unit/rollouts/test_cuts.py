"""The operator's process ends after any single call to the API server, and another goes on: for all calls.

Rollouts, a rollback, changes of release and a scale-down are recorded once, then cut after each call.
`world.World` checks its rules at every move; in the end all is as if nothing had happened. The API server is
the one in memory (`api.Api`), where a whole run takes a fraction of a second, so that every call can be had.
"""

from collections.abc import Callable

import pytest

from stepaudio_operator import names
from tests.unit.rollouts.api import Raw
from tests.unit.rollouts.test_worlds import broken, spec
from tests.unit.rollouts.world import NAMESPACE, World

CHANGES: dict[str, tuple[Callable[[World], None], dict[str, int]]] = {
    "surge": (lambda world: world.edit(spec(change="one", replicas=2)), {}),
    "in place": (lambda world: world.edit(spec(change="one", replicas=2, strategy="InPlace")), {"tts": 2}),
    "at once": (lambda world: world.edit(spec(change="one", replicas=2, strategy="Recreate")), {}),
    "rollback": (lambda world: world.edit(spec(change="broken", replicas=2)), {}),
    "release": (lambda world: world.edit(spec("b", replicas=2)), {}),
    "outage": (lambda world: world.edit(spec("b", "2.0.0", replicas=2)), {}),
    "failed release": (lambda world: world.edit(spec("b", change="broken", replicas=2)), {}),
    "scale-down": (lambda world: world.edit(spec(replicas=1)), {}),
}


@pytest.fixture(scope="module")
def settled() -> World:
    world = World(spec(replicas=2), {}, broken)
    assert world.settle()
    return world


@pytest.mark.parametrize("name", CHANGES)
def test_cut_after_every_call_it_ends_as_if_it_had_not_been(settled: World, name: str) -> None:
    change, room = CHANGES[name]
    uncut = settled.twin(room)
    change(uncut)
    assert uncut.settle()
    calls = len(uncut.api.calls)
    assert calls > 5
    expected = _end(uncut)
    for number in range(1, calls + 1):
        world = settled.twin(room)
        change(world)
        world.api.cut_after = number
        assert world.settle(), f"no end after a cut at call {number}"
        # Cuts may change the order of calls, and with it their number: the last ones may not be reached.
        assert world.crashes == 1 or number > calls - 3, number
        assert _end(world) == expected, f"another end after a cut at call {number}"


def _end(world: World) -> Raw:
    """What is there in the end: objects by name, what pools remember, what is routed; no times."""
    kinds = ("ControllerRevision", names.POOL_KIND, "Service", "PodDisruptionBudget")
    pools = {p["metadata"]["name"]: p for p in world.api.of(names.POOL_KIND)}
    routing = world.routing()
    assert routing is not None
    return {
        "objects": sorted(name for kind, _, name in world.api.objects if kind in kinds),
        "pods": sorted(p["metadata"]["name"] for c in names.MODEL_COMPONENTS for p in world.pods(c)),
        "gateways": [p["metadata"]["labels"][names.LABEL_REVISION] for p in world.pods(names.GATEWAY)],
        "good": {name: p["status"]["goodRevision"] for name, p in pools.items()},
        "quarantined": {
            name: [(e["revision"], e["reason"]) for e in p["status"].get("quarantined", ())]
            for name, p in pools.items()
        },
        "rollouts": [name for name, p in pools.items() if "rollout" in p["status"]],
        "annotations": {name: set(p["metadata"].get("annotations") or {}) for name, p in pools.items()},
        "routing": {k: v for k, v in routing.items() if k != "generation"},
        "ready": world.condition(),
        "namespaces": {namespace for _, namespace, _ in world.api.objects} - {NAMESPACE},
    }
