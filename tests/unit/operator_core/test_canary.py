"""When a canary fails by what the gateways have seen of it; the verdict stands until it is stored."""

from dataclasses import replace

import pytest

from stepaudio_operator import names
from stepaudio_operator.canary import judge, judged, verdicts
from stepaudio_operator.records import (
    CanaryVerdict,
    Figures,
    PoolRecord,
    RoutedPool,
    Routing,
    Traffic,
    figures_of,
)
from stepaudio_operator.spec.rollout import Canary, CanaryStep

OLD, NEW = "0000000a", "0000000b"
RULES = Canary(steps=(CanaryStep(traffic=10, pause="1m"),))
BOUNDS = names.FIRST_BYTE_BOUNDS_S


def seen(requests: int, errors: int = 0, first_byte_s: float = 0.3) -> Figures:
    """Figures of requests that all had their first byte after the same time."""
    counts = [0] * (len(BOUNDS) + 1)
    counts[next(n for n, bound in enumerate((*BOUNDS, float("inf"))) if first_byte_s <= bound)] = requests
    return Figures(requests, errors, tuple(counts))


@pytest.mark.parametrize(
    ("tried", "before", "fails"),
    [
        (seen(19, 19), seen(500), False),  # too few requests to say anything
        (seen(20, 1), seen(500), False),  # 5 points above
        (seen(20, 2), seen(500), True),
        (seen(100, 15), seen(500, 50), False),  # both fail: 15% and 10%
        (seen(100, 16), seen(500, 50), True),
        (seen(20, 20), seen(0), True),
        (seen(50, first_byte_s=0.45), seen(500), False),  # within 50% more
        (seen(50, first_byte_s=0.5), seen(500), False),  # perhaps, perhaps not
        (seen(50, first_byte_s=0.7), seen(500), True),
        (seen(50, first_byte_s=0.1), seen(500), False),
        (seen(50, first_byte_s=500.0), seen(19), False),  # nothing to compare with
        (seen(50, first_byte_s=500.0), seen(20), True),
        (seen(50, first_byte_s=500.0), seen(50, first_byte_s=500.0), False),
    ],
)
def test_what_fails(tried: Figures, before: Figures, fails: bool) -> None:
    assert (judge(RULES, tried, before) is not None) == fails


def test_half_of_the_requests_decide_on_the_time() -> None:
    quick, slow = seen(51, first_byte_s=0.3), seen(49, first_byte_s=9.0)
    assert judge(RULES, quick + slow, seen(100)) is None
    assert judge(RULES, seen(49) + seen(51, first_byte_s=9.0), seen(100)) is not None


def pool(**facts: object) -> PoolRecord:
    record = PoolRecord.from_raw({"metadata": {"name": "prod-tts"}, "spec": {"component": "tts"}})
    return replace(record, wanted=NEW, good_revision=OLD, **facts)  # type: ignore[arg-type]


def routing(**weights: int) -> Routing:
    routed = {name.removeprefix("r"): weight for name, weight in weights.items()}
    return Routing(3, "a-1", True, None, {"tts": RoutedPool("prod-tts", 8000, routed)})


BOTH = routing(r0000000a=90, r0000000b=10)


def test_it_is_judged_while_requests_go_to_both() -> None:
    assert judged(pool(), BOTH) == (NEW, OLD)
    assert judged(pool(), routing(r0000000a=100, r0000000b=0)) is None
    assert judged(pool(), routing(r0000000b=100)) is None
    assert judged(pool(), replace(BOTH, serving=False)) is None
    assert judged(pool(), None) is None
    assert judged(pool(quarantined=(NEW,)), BOTH) is None


def test_it_is_judged_against_the_revision_that_it_shares_the_requests_with() -> None:
    shared = Traffic(NEW, 25, stable="0000000c")
    assert judged(pool(traffic=shared), routing(r0000000c=75, r0000000b=25)) == (NEW, "0000000c")
    assert judged(pool(traffic=shared), BOTH) is None
    leaving = Traffic(OLD, 100, stable=NEW)  # on the way back: the same two, seen from there
    assert judged(pool(traffic=leaving), BOTH) == (NEW, OLD)


def test_what_all_gateways_have_seen_counts_together() -> None:
    one = {"tts": {OLD: seen(200, 2), NEW: seen(10, 5)}}
    assert verdicts(RULES, {"tts": pool()}, BOTH, [one]) == {}
    message = f"50% of its 20 requests failed, 1% of those of revision {OLD}"
    assert verdicts(RULES, {"tts": pool()}, BOTH, [one, one]) == {"tts": CanaryVerdict(NEW, message)}


def test_a_verdict_stands_until_its_pool_has_stored_it() -> None:
    told = CanaryVerdict(NEW, "it failed")
    for where in (BOTH, routing(r0000000a=100), None):
        assert verdicts(RULES, {"tts": pool(canary_failed=told)}, where, []) == {"tts": told}
    stored = pool(canary_failed=told, quarantined=(NEW,))
    assert verdicts(RULES, {"tts": stored}, BOTH, []) == {}
    assert verdicts(RULES, {"tts": pool(canary_failed=CanaryVerdict("other", "x"))}, BOTH, []) == {}


def test_answers_of_gateways_are_read_or_left() -> None:
    counts = list(seen(3).first_byte)
    body = {"pools": {"tts": {NEW: {"requests": 3, "errors": 1, "firstByte": counts}}}}
    assert figures_of(body) == {"tts": {NEW: seen(3, 1)}}
    assert figures_of({"pools": {}}) == {}
    for wrong in (None, [], {}, {"pools": 3}, {"pools": {"tts": {NEW: {"requests": -1}}}}):
        assert figures_of(wrong) is None
    for key, value in (("requests", True), ("errors", "1"), ("firstByte", counts[1:]), ("firstByte", None)):
        spoilt = {**body["pools"]["tts"][NEW], key: value}
        assert figures_of({"pools": {"tts": {NEW: spoilt}}}) is None
