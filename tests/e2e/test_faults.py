"""What goes wrong is said in words within seconds, by its own reason, and comes right without hands where no
person is needed. Everything fails at the same time, each in a deployment of its own.
"""

from collections.abc import Iterator

import pytest

from stepaudio_cluster.api import Provider
from tests.e2e.faults import ROWS, Stage, staged
from tests.e2e.nano import Nano, wait_until

pytestmark = pytest.mark.node

CHEAP = [name for name, row in ROWS.items() if row.cheap]
PASSING = {name: row.forgive for name, row in ROWS.items() if row.cheap and row.forgive}
PATIENCE_S = 90.0
"""The machine starts all of them at once; `make bench-faults` measures one after the other."""


@pytest.fixture(scope="module")
def failing(nano: Nano) -> Iterator[Stage]:
    if nano.cluster.provider is not Provider.OWN:
        pytest.skip("the hub and the volumes are this machine's: only its own cluster reaches them")
    with staged(nano) as stage:
        for name in CHEAP:
            stage.begin(name)
        yield stage


@pytest.mark.parametrize("name", CHEAP)
def test_a_fault_is_named(failing: Stage, name: str) -> None:
    row = ROWS[name]
    wait_until(lambda: failing.condition(name).get("reason") == row.reason, PATIENCE_S, row.reason)
    condition = failing.condition(name)
    assert condition["status"] == "False"
    assert row.names in condition["message"]
    assert "Traceback" not in condition["message"]


@pytest.fixture(scope="module")
def forgiven(failing: Stage) -> Stage:
    """All hubs come right at the same time, after every fault was named."""
    for name, forgive in PASSING.items():
        forgive(failing, name)
    return failing


@pytest.mark.parametrize("name", PASSING)
def test_what_needs_no_person_comes_right(forgiven: Stage, name: str) -> None:
    wait_until(lambda: forgiven.is_well(name), PATIENCE_S, "the models are there")
