"""How often the operator writes: a bound for a deployment on its way to Ready, and nothing once it is.

Counted are the calls that change something, Events and statuses included, leases apart.
"""

from collections import Counter

import pytest

from stepaudio_operator import names
from stepaudio_operator.kube.cache import Key
from tests.unit.rollouts.api import Raw
from tests.unit.rollouts.world import DEPLOYMENT, NAME, NAMESPACE, World

OFF: Raw = {"enabled": False}
FIRST_POOL, FURTHER_POOL = 12, 8
"""Writes at most: of one pool with its deployment, and of every pool beyond it."""


@pytest.mark.parametrize(
    ("parts", "pools"),
    [
        ({"chat": OFF, "tokenizer": OFF, "gateway": OFF}, 1),
        ({"chat": OFF, "gateway": OFF}, 2),
        ({}, 4),
    ],
)
def test_writes_until_ready_and_none_after_it_nor_after_a_restart(parts: Raw, pools: int) -> None:
    world = World({"preset": "nano", **parts}, room={})
    assert world.settle()
    assert world.condition()[0] == "True"
    calls = list(world.api.calls)
    assert len(calls) <= FIRST_POOL + (pools - 1) * FURTHER_POOL, calls
    # Written once each: nothing but a status is written to the same object again.
    changed = [call for call in calls if not call.startswith("status ")]
    assert len(changed) == len(set(changed)), changed

    world.restart_operator()
    assert world.settle()
    assert world.api.calls == calls


class Counted(World):
    """Counts the reconciles of every object."""

    def __init__(self, spec: Raw) -> None:
        self.runs: Counter[Key] = Counter()
        super().__init__(spec, room={})

    def run(self, key: Key) -> None:
        self.runs[key] += 1
        super().run(key)


def test_after_a_restart_pools_are_looked_at_once_and_the_deployment_again_when_gateways_answer() -> None:
    world = Counted({"preset": "nano"})
    assert world.settle()
    world.runs.clear()
    world.restart_operator()
    assert world.settle()
    pools = {Key(names.POOL_KIND, NAMESPACE, names.pool(NAME, c)): 1 for c in names.COMPONENTS}
    assert world.runs == {**pools, Key(*DEPLOYMENT): 2}


def test_an_edit_that_moves_no_pod_is_written_once_and_ready_all_the_while() -> None:
    world = World({"preset": "nano"}, room={})
    assert world.settle()
    changed = len(world.api.calls)
    world.edit({"preset": "nano", "rollout": {"maxUnavailable": 2}})
    said = set()
    for _ in range(20):
        world.round()
        world.pass_time(1)
        said.add(world.condition())
    assert world.settle()
    assert said == {("True", "Ready")}
    calls = world.api.calls[changed:]
    assert len(calls) == len(set(calls)) == 3 * len(names.COMPONENTS) + 1, calls
    assert world.status()["observedGeneration"] == 2


def test_a_pool_that_does_not_take_up_its_spec_is_told_of_in_time() -> None:
    world = World({"preset": "nano"}, room={})
    assert world.settle()
    world.edit({"preset": "nano", "rollout": {"maxUnavailable": 2}})
    for _ in range(20):  # as if the reconciles of pools failed
        world.deliver(names.DEPLOYMENT_KIND)
        for key in sorted(world.operator.due):
            if key.kind == names.DEPLOYMENT_KIND:
                world.run(key)
        world.pass_time(1)
    assert world.condition() == ("False", "Reconciling")
    assert world.settle()
    assert world.condition() == ("True", "Ready")
