"""What is added to the node affinity of a pod stands beside what its owner gave, of which null counts as
absent, and never goes into what the API server will refuse.
"""

import copy
from collections.abc import Callable
from typing import Any

import pytest

from stepaudio_operator.render import node_affinity

REQUIRED, PREFERRED = (f"{how}DuringSchedulingIgnoredDuringExecution" for how in ("required", "preferred"))
ON_L4 = {"key": "product", "operator": "In", "values": ["L4"]}
IS_N1 = {"matchFields": [{"key": "metadata.name", "operator": "In", "values": ["n1"]}]}
NOT_N1 = {"matchFields": [{"key": "metadata.name", "operator": "NotIn", "values": ["n1"]}]}
ADDED: dict[str, tuple[Callable[[dict[str, Any]], object], dict[str, Any]]] = {
    "choose": (
        lambda pod: node_affinity.choose(pod, [ON_L4]),
        {REQUIRED: {"nodeSelectorTerms": [{"matchExpressions": [ON_L4]}]}},
    ),
    "bind": (lambda pod: node_affinity.bind(pod, ["n1"]), {REQUIRED: {"nodeSelectorTerms": [IS_N1]}}),
    "prefer": (
        lambda pod: node_affinity.prefer(pod, ["n1"]),
        {PREFERRED: [{"weight": 100, "preference": IS_N1}]},
    ),
    "avoid": (
        lambda pod: node_affinity.avoid(pod, ["n1"]),
        {PREFERRED: [{"weight": 100, "preference": NOT_N1}]},
    ),
}


@pytest.mark.parametrize("how", ADDED)
@pytest.mark.parametrize(
    "own", [{}, {"affinity": None}, {"affinity": {"nodeAffinity": None}}, {REQUIRED: None}, {PREFERRED: None}]
)
def test_what_is_null_counts_as_absent(how: str, own: dict[str, Any]) -> None:
    add, added = ADDED[how]
    pod = copy.deepcopy(own if "affinity" in own or not own else {"affinity": {"nodeAffinity": own}})
    add(pod)
    found = {key: value for key, value in pod["affinity"]["nodeAffinity"].items() if value is not None}
    assert found == added


@pytest.mark.parametrize("how", ["prefer", "avoid"])
def test_what_the_owner_prefers_stays(how: str) -> None:
    add, added = ADDED[how]
    own = {"weight": 1, "preference": {"matchExpressions": [ON_L4]}}
    pod = {"affinity": {"nodeAffinity": {PREFERRED: [own]}, "podAffinity": {}}}
    add(pod)
    assert pod == {
        "affinity": {"nodeAffinity": {PREFERRED: [own, *added[PREFERRED]]}, "podAffinity": {}},
    }


@pytest.mark.parametrize("how", ADDED)
@pytest.mark.parametrize(
    "wrong", ["x", {"nodeAffinity": "x"}, {"nodeAffinity": {REQUIRED: "x", PREFERRED: "x"}}]
)
def test_what_the_api_server_refuses_reaches_it_as_it_is(how: str, wrong: Any) -> None:
    pod = {"affinity": copy.deepcopy(wrong)}
    ADDED[how][0](pod)
    assert pod == {"affinity": wrong}


def test_nothing_to_add_makes_no_affinity() -> None:
    pod: dict[str, Any] = {}
    node_affinity.choose(pod, [])
    node_affinity.prefer(pod, [])
    node_affinity.avoid(pod, [])
    assert pod == {}
