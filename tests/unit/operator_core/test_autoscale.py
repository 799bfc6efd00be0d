"""The autoscaler's decisions: within bounds whatever is seen, no change within a window, rest where the load
stays, zero only where nobody asks. What it remembers goes through a pool's status at every look.
"""

import math
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stepaudio_operator.autoscale import SLACK, Rules, Seen, decide, recommend
from stepaudio_operator.memory import Memory, Scaling
from stepaudio_operator.records import Work

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
RULES = Rules(minimum=1, maximum=6, in_flight=4, up_window_s=30, down_window_s=600)


def look(rules: Rules, held: Scaling | None, replicas: int, seen: Seen, now: datetime) -> Scaling:
    """One decision, stored and read again."""
    made = decide(rules, held, replicas, seen, now)
    stored = Memory.from_status(Memory(scaling=made).to_status()).scaling
    assert stored == made
    return stored


def busy(*in_flight: float, waiting: int | None = None, **delays: float) -> Seen:
    return Seen(tuple(Work(int(n), n, **delays) for n in in_flight), waiting)


@pytest.mark.parametrize(
    ("rules", "current", "seen", "asked", "why"),
    [
        (RULES, 1, busy(4.3), 1, "4.3 requests in flight, 4 for a replica"),
        (RULES, 1, busy(9), 3, "9.0 requests in flight, 4 for a replica"),
        (RULES, 1, busy(100), 6, "100.0 requests in flight, 4 for a replica"),
        (RULES, 4, busy(2, 2, 2, 2), 2, "8.0 requests in flight, 4 for a replica"),
        (RULES, 4, busy(0, 0, 0, 0), 1, "0.0 requests in flight, 4 for a replica"),
        # Of a spike that is over the mean still speaks against fewer, not for more.
        (RULES, 2, Seen((Work(0, 12.0), Work(0, 12.0))), 2, "24.0 requests in flight, 4 for a replica"),
        # Two of four load: as if they had their work already where fewer might be asked for.
        (
            RULES,
            4,
            busy(0, 0),
            2,
            "0.0 requests in flight, 4 for a replica; 2 do not serve yet or do not answer",
        ),
        (RULES, 4, Seen(), 4, "0.0 requests in flight, 4 for a replica; 4 do not serve yet or do not answer"),
        (
            replace(RULES, queue_s=0.5),
            2,
            busy(1, 1, queue_s=0.75),
            3,
            "requests wait 0.75 s, 0.5 s are allowed",
        ),
        (
            replace(RULES, queue_s=0.5),
            2,
            busy(1, 1, queue_s=40.0),
            4,
            "requests wait 40.00 s, 0.5 s are allowed",
        ),
        (
            replace(RULES, first_audio_s=1.5),
            1,
            busy(3, first_audio_s=2.5),
            2,
            "the first sound takes 2.50 s, 1.5 s are allowed",
        ),
        (RULES, 2, busy(1, 1, first_audio_s=90.0), 1, "2.0 requests in flight, 4 for a replica"),
        (replace(RULES, minimum=0), 0, Seen(waiting=0), 1, "a request waits for a pod"),
        (replace(RULES, minimum=0), 0, Seen(waiting=9), 3, "a request waits for a pod"),
        (replace(RULES, minimum=0), 0, Seen(), 0, "0.0 requests in flight, 4 for a replica"),
        (replace(RULES, minimum=0), 1, busy(0), 0, "0.0 requests in flight, 4 for a replica"),
        (replace(RULES, minimum=0), 1, Seen((Work(0, 0.001),)), 1, "0.0 requests in flight, 4 for a replica"),
    ],
)
def test_what_is_asked_for_and_why(rules: Rules, current: int, seen: Seen, asked: int, why: str) -> None:
    assert recommend(rules, current, seen) == (asked, why)


def test_the_windows_step_by_step() -> None:
    steps = [  # seconds, requests in flight -> replicas, towards
        (0, 3, 1, None),
        (15, 9, 1, 3),
        (30, 24, 1, 3),  # the least of what was asked for
        (45, 12, 3, None),
        (60, 4, 3, 1),
        (300, 8, 3, 2),  # the most of what was asked for
        (600, 12, 3, None),  # once enough for all: the window begins anew
        (615, 1, 3, 1),
        (1200, 1, 3, 1),
        (1215, 1, 1, None),
    ]
    held, seen = None, []
    for at, load, _, _ in steps:
        replicas = held.replicas if held else 1
        held = look(RULES, held, 1, busy(*[load / replicas] * replicas), NOW + timedelta(seconds=at))
        seen.append((at, load, held.replicas, held.towards))
    assert seen == steps


def test_other_bounds_hold_at_once() -> None:
    held = look(RULES, None, 9, busy(1), NOW)
    assert (held.replicas, held.reason) == (6, "6 of 1 to 6 to begin with")
    lower = look(replace(RULES, maximum=2), held, 6, busy(9), NOW + timedelta(seconds=1))
    assert lower.replicas == 2
    assert look(replace(RULES, minimum=5), lower, 2, busy(0), NOW + timedelta(seconds=2)).replicas == 5


delays = st.none() | st.floats(0, 100)
works = st.builds(Work, st.integers(0, 40), st.floats(0, 40), delays, delays)
sights = st.builds(
    Seen, st.lists(works, max_size=8).map(tuple), st.sampled_from([None, None, None, 0, 1, 30])
)


@st.composite
def any_rules(draw: st.DrawFn) -> Rules:
    minimum = draw(st.integers(0, 4))
    return Rules(
        minimum,
        draw(st.integers(max(minimum, 1), 8)),
        draw(st.integers(1, 10)),
        draw(st.none() | st.floats(0.01, 10)),
        draw(st.none() | st.floats(0.01, 10)),
        draw(st.integers(1, 120)),
        draw(st.integers(1, 900)),
    )


@given(
    rules=any_rules(),
    replicas=st.integers(0, 12),
    spells=st.lists(st.tuples(sights, st.integers(1, 30), st.integers(0, 40)), min_size=1, max_size=8),
)
@settings(max_examples=150, deadline=None)
def test_any_history_stays_in_bounds_and_within_the_windows(
    rules: Rules, replicas: int, spells: list[tuple[Seen, int, int]]
) -> None:
    """`spells`: what is seen, for how many looks, and the seconds between them."""
    held, now, asked_since, asked = None, NOW, NOW, list[int]()
    for sight, pause in [(sight, pause) for sight, count, pause in spells for _ in range(count)]:
        now += timedelta(seconds=pause)
        before = held
        held = look(rules, held, replicas, sight, now)
        assert rules.minimum <= held.replicas <= rules.maximum
        if before is None:
            continue
        if held.replicas == 0:
            assert not any(w.in_flight or w.lately for w in sight.work)
            assert sight.waiting is None
        # For how long, without a look that said otherwise, more (or fewer) have been asked for.
        now_asked = recommend(rules, before.replicas, sight)[0]
        if not asked or (asked[-1] > before.replicas) != (now_asked > before.replicas):
            asked_since, asked = now, []
        asked = [*asked, now_asked] if now_asked != before.replicas else []
        if held.replicas == before.replicas:
            continue
        up = held.replicas > before.replicas
        if before.replicas == 0:
            assert sight.waiting is not None or sight.work
        else:
            window = timedelta(seconds=rules.up_window_s if up else rules.down_window_s)
            assert now - asked_since >= window
            assert now - before.at >= window, "two changes within one window"
            assert held.replicas == (min if up else max)(asked)
        asked = []


@dataclass
class Pool:
    """Replicas that load for a while and then share what is in flight."""

    loading_s: int
    ages: list[int]

    def passes(self, seconds: int, replicas: int) -> None:
        self.ages = [age + seconds for age in self.ages][:replicas]
        self.ages += [0] * (replicas - len(self.ages))

    def sight(self, load: int) -> Seen:
        serving = sum(age >= self.loading_s for age in self.ages)
        if not serving:
            return Seen(waiting=load or None)
        shares = [load // serving + (n < load % serving) for n in range(serving)]
        return Seen(tuple(Work(share, share) for share in shares))


@given(
    rules=any_rules().map(lambda rules: replace(rules, queue_s=None, first_audio_s=None)),
    start=st.integers(0, 8),
    loading_s=st.integers(0, 1200),
    load=st.just(0) | st.integers(0, 60),
)
@settings(max_examples=60, deadline=None)
def test_under_a_load_that_stays_it_comes_to_rest_at_what_that_needs(
    rules: Rules, start: int, loading_s: int, load: int
) -> None:
    held, now = decide(rules, None, start, Seen(), NOW), NOW
    pool, changes = Pool(loading_s, [loading_s] * held.replicas), 0
    for _ in range(400):
        now += timedelta(minutes=1)
        before, held = held, decide(rules, held, start, pool.sight(load), now)
        pool.passes(60, held.replicas)
        changes += held.replicas != before.replicas
    needed = max(math.ceil(load / rules.in_flight - SLACK), int(load > 0))
    assert held.replicas == rules.bounded(needed)
    assert changes <= 2, "up for what waits, then to what is needed; never to and fro"
    assert held.at < now - timedelta(hours=2)
