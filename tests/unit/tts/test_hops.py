"""The plan of a stream: hops cover every code once, in order, whenever the codes come; and what they cost."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stepaudio_runtime.tts.hops import Hop, HopPlan, PromptMode

plans = st.builds(
    HopPlan,
    first=st.integers(1, 60),
    growth=st.floats(1, 4),
    largest=st.integers(60, 300),
    context=st.integers(0, 100),
    look_ahead=st.integers(0, 40),
    prompt=st.sampled_from(PromptMode),
)


def hops_of(plan: HopPlan, arrivals: list[int]) -> list[Hop]:
    """The hops when so many codes come at a time, the last ones marked as such."""
    hops: list[Hop] = []
    known = 0
    for i, more in enumerate(arrivals):
        known += more
        while hop := plan.next_hop(
            len(hops), hops[-1].stop if hops else 0, known, last=i == len(arrivals) - 1
        ):
            hops.append(hop)
    return hops


@given(plan=plans, arrivals=st.lists(st.integers(0, 90), min_size=1, max_size=20))
def test_hops_depend_on_the_codes_alone(plan: HopPlan, arrivals: list[int]) -> None:
    total = sum(arrivals)
    hops = hops_of(plan, arrivals)
    assert hops == hops_of(plan, [total])
    assert [hop.index for hop in hops] == list(range(len(hops)))
    assert [hop.start for hop in hops] == [0, *[hop.stop for hop in hops[:-1]]][: len(hops)]
    assert (hops[-1].stop if hops else 0) == total
    assert all(hop.start < hop.stop <= hop.seen <= total for hop in hops)
    assert all(hop.seen - hop.stop == plan.look_ahead for hop in hops[:-1])


def test_sizes_grow_to_the_largest() -> None:
    plan = HopPlan(first=20, growth=1.5, largest=50)
    assert [plan.size(i) for i in range(5)] == [20, 30, 45, 50, 50]


def test_one_hop_waits_for_the_end() -> None:
    assert HopPlan.whole().next_hop(0, 0, 10_000, last=False) is None
    assert HopPlan.whole().next_hop(0, 0, 10_000, last=True) == Hop(0, 0, 10_000, 10_000)


@pytest.mark.parametrize(
    ("mode", "seen"),
    [
        (PromptMode.WHOLE, [125, 125, 125]),
        (PromptMode.FIRST, [125, 15, 0]),
        (PromptMode.ROLLING, [50, 15, 0]),
    ],
)
def test_what_is_seen_of_the_prompt(mode: PromptMode, seen: list[int]) -> None:
    plan = HopPlan(first=35, context=50, look_ahead=0, prompt=mode)
    hops = [Hop(0, 0, 35, 35), Hop(1, 35, 105, 105), Hop(2, 105, 245, 245)]
    assert [plan.prompt_codes(hop, 125) for hop in hops] == seen
    assert [plan.context_start(hop) for hop in hops] == [0, 0, 55]


def test_the_default_plan_costs_at_most_1_6_times_offline() -> None:
    plan, codes, prompt = HopPlan(), 417, 125
    assert plan.cost(hops_of(plan, [codes]), prompt) <= 1.6
    assert HopPlan.whole().cost([Hop(0, 0, codes, codes)], prompt) == 1


@pytest.mark.parametrize(
    "wrong", [{"first": 0}, {"largest": 3}, {"growth": 0.5}, {"context": -1}, {"look_ahead": -1}]
)
def test_plans_that_cannot_be(wrong: dict[str, int]) -> None:
    with pytest.raises(ValueError, match=r"hop|context"):
        HopPlan(**wrong)
