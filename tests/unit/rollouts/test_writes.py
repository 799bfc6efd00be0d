"""How often the operator writes: a bound for a deployment on its way to Ready, and nothing once it is.

Counted are the calls that change something, Events and statuses included, leases apart.
"""

import pytest

from tests.unit.rollouts.api import Raw
from tests.unit.rollouts.world import World

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
