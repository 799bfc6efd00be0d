"""How often the operator writes: a bound for a deployment on its way to Ready, and nothing once it is.

Counted are the calls that change something, Events and statuses included, leases apart.
"""

import pytest

from tests.unit.rollouts.api import Raw
from tests.unit.rollouts.world import World

OFF: Raw = {"enabled": False}
FIRST_POOL, FURTHER_POOL, FOR_GATEWAYS = 12, 8, 4
"""Writes at most: of one pool with its deployment, of every pool beyond it, and beside its pool for a gateway
(its ServiceAccount, Role and RoleBinding, and the routing object).
"""


@pytest.mark.parametrize(
    ("parts", "pools"),
    [
        ({"chat": OFF, "tokenizer": OFF, "gateway": OFF}, 1),
        ({"chat": OFF, "tokenizer": OFF}, 2),
        ({}, 4),
    ],
)
def test_writes_until_ready_and_none_after_it_nor_after_a_restart(parts: Raw, pools: int) -> None:
    world = World({"preset": "nano", **parts}, room={})
    assert world.settle()
    assert world.condition()[0] == "True"
    calls = list(world.api.calls)
    gateway = FOR_GATEWAYS if parts.get("gateway") is not OFF else 0
    assert len(calls) <= FIRST_POOL + (pools - 1) * FURTHER_POOL + gateway, calls
    # Written once each: nothing but a status is written to the same object again.
    changed = [call for call in calls if not call.startswith("status ")]
    pool_specs = [call for call in changed if call.startswith("apply StepAudioPool ")]
    assert len(pool_specs) <= 2 * pools  # the preset's number of replicas is given under a manager of its own
    others = [call for call in changed if call not in pool_specs]
    assert len(others) == len(set(others)), others

    world.restart_operator()
    assert world.settle()
    assert world.api.calls == calls
