"""The keyed queue: one entry a key, one run a key at a time, paced starts, backoff, no lost wake-up.

Times are passed in, so nothing here waits; one test runs the asyncio shell with several workers.
"""

import asyncio
import itertools
import time

from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from stepaudio_operator.queue import Limits, Schedule, WorkQueue

PLAIN = Limits(spacing_s=0.0, interval_s=0.0, burst=1, backoff_first_s=1.0, backoff_last_s=8.0)


def test_a_key_waits_once_and_at_the_earlier_time() -> None:
    schedule: Schedule[str] = Schedule(PLAIN)
    schedule.add("a", 0.0, after=5.0)
    schedule.add("a", 0.0, after=2.0)
    schedule.add("a", 0.0, after=9.0)
    assert (len(schedule), schedule.next_due(), schedule.take(1.9)) == (1, 2.0, None)
    assert schedule.take(2.0) == "a"
    assert (len(schedule), schedule.next_due()) == (0, None)


def test_keys_are_served_in_the_order_of_their_times() -> None:
    schedule: Schedule[str] = Schedule(PLAIN)
    for key, after in [("late", 3.0), ("first", 1.0), ("second", 2.0), ("tie", 2.0)]:
        schedule.add(key, 0.0, after)
    assert [schedule.take(5.0) for _ in range(5)] == ["first", "second", "tie", "late", None]


def test_what_is_added_while_a_key_runs_waits_until_it_is_done() -> None:
    schedule: Schedule[str] = Schedule(PLAIN)
    schedule.add("a", 0.0)
    assert schedule.take(0.0) == "a"
    schedule.add("a", 0.0)
    assert schedule.take(1.0) is None
    schedule.succeed("a", 1.0)
    assert schedule.take(1.0) == "a"


def test_failures_back_off_doubling_up_to_the_bound_and_success_resets() -> None:
    schedule: Schedule[str] = Schedule(PLAIN)
    schedule.add("a", 0.0)
    now, delays = 0.0, []
    for _ in range(6):
        assert schedule.take(now) == "a"
        delays.append(schedule.fail("a", now))
        now += delays[-1]
    assert delays == [1.0, 2.0, 4.0, 8.0, 8.0, 8.0]
    assert schedule.take(now) == "a"
    schedule.succeed("a", now)
    schedule.add("a", now)
    assert schedule.take(now) == "a"
    assert schedule.fail("a", now) == 1.0


def test_the_server_may_ask_for_a_longer_wait() -> None:
    schedule: Schedule[str] = Schedule(PLAIN)
    schedule.add("a", 0.0)
    schedule.take(0.0)
    assert schedule.fail("a", 0.0, retry_after=30.0) == 30.0
    assert schedule.next_due() == 30.0


def test_an_event_does_not_shorten_a_backoff() -> None:
    schedule: Schedule[str] = Schedule(PLAIN)
    schedule.add("a", 0.0)
    schedule.take(0.0)
    schedule.fail("a", 0.0)
    schedule.add("a", 0.1)
    assert schedule.take(0.9) is None
    assert schedule.take(1.0) == "a"


def test_a_change_of_what_is_asked_for_ends_a_backoff() -> None:
    schedule: Schedule[str] = Schedule(PLAIN)
    schedule.add("a", 0.0)
    schedule.take(0.0)
    schedule.fail("a", 0.0)
    assert schedule.take(0.2) is None
    schedule.add("a", 0.2, fresh=True)
    assert (schedule.failures("a"), schedule.take(0.2)) == (0, "a")
    assert schedule.fail("a", 0.2) == 1.0


def test_starts_of_one_key_are_spaced_and_others_do_not_wait_for_it() -> None:
    schedule: Schedule[str] = Schedule(Limits(spacing_s=0.2, interval_s=0.0, burst=1))
    schedule.add("a", 0.0)
    schedule.take(0.0)
    schedule.succeed("a", 0.01)
    schedule.add("a", 0.02)
    schedule.add("b", 0.02)
    assert [schedule.take(0.1), schedule.take(0.19), schedule.take(0.2)] == ["b", None, "a"]


def test_a_key_that_never_settles_is_slowed_to_its_interval_after_its_burst() -> None:
    schedule: Schedule[str] = Schedule(Limits(spacing_s=0.0, interval_s=10.0, burst=3))
    starts, now = [], 0.0
    schedule.add("a", now)
    while len(starts) < 6:
        due = schedule.next_due()
        assert due is not None
        now = max(now, due)
        assert schedule.take(now) == "a"
        starts.append(now)
        schedule.succeed("a", now, requeue_after=0.0)
    assert starts == [0.0, 0.0, 0.0, 10.0, 20.0, 30.0]


def test_a_forgotten_key_starts_afresh_and_keeps_a_wake_up_that_came_meanwhile() -> None:
    schedule: Schedule[str] = Schedule(PLAIN)
    schedule.add("a", 0.0)
    schedule.take(0.0)
    schedule.fail("a", 0.0)
    assert schedule.take(1.0) == "a"
    schedule.add("a", 1.0)
    schedule.forget("a")
    assert schedule.failures("a") == 0
    assert schedule.take(1.0) == "a"


class Model(RuleBasedStateMachine):
    """Any order of adds, runs, successes and failures: never two runs of one key, never a lost wake-up."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0
        self.limits = Limits(spacing_s=0.5, interval_s=2.0, burst=3, backoff_first_s=1.0, backoff_last_s=16.0)
        self.schedule: Schedule[int] = Schedule(self.limits)
        self.running: set[int] = set()
        self.owed: set[int] = set()  # keys someone asked for that have not started since
        self.starts: dict[int, list[float]] = {}

    @rule(key=st.integers(0, 4), after=st.floats(0, 20))
    def add(self, key: int, after: float) -> None:
        self.schedule.add(key, self.now, after)
        self.owed.add(key)

    @rule(step=st.floats(0.01, 10))
    def pass_time(self, step: float) -> None:
        self.now += step

    @rule()
    def take(self) -> None:
        key = self.schedule.take(self.now)
        if key is None:
            return
        assert key in self.owed
        assert key not in self.running
        self.running.add(key)
        self.owed.discard(key)
        self.starts.setdefault(key, []).append(self.now)

    @precondition(lambda self: self.running)
    @rule(data=st.data(), again=st.none() | st.floats(0, 5))
    def succeed(self, data: st.DataObject, again: float | None) -> None:
        key = data.draw(st.sampled_from(sorted(self.running)))
        self.running.remove(key)
        self.schedule.succeed(key, self.now, again)
        if again is not None:
            self.owed.add(key)

    @precondition(lambda self: self.running)
    @rule(data=st.data())
    def fail(self, data: st.DataObject) -> None:
        key = data.draw(st.sampled_from(sorted(self.running)))
        self.running.remove(key)
        assert self.schedule.fail(key, self.now) <= self.limits.backoff_last_s
        self.owed.add(key)

    @invariant()
    def every_wish_waits_exactly_once(self) -> None:
        assert len(self.schedule) == len(self.owed - self.running)
        assert self.schedule.running == len(self.running)

    @invariant()
    def starts_are_spaced(self) -> None:
        for starts in self.starts.values():
            assert all(b - a >= self.limits.spacing_s - 1e-9 for a, b in itertools.pairwise(starts))

    def teardown(self) -> None:
        for key in sorted(self.running):
            self.schedule.succeed(key, self.now)
        seen = set()
        while (due := self.schedule.next_due()) is not None:
            self.now = max(self.now, due)
            key = self.schedule.take(self.now)
            assert key is not None
            seen.add(key)
            self.schedule.succeed(key, self.now)
        assert seen == self.owed


TestModel = Model.TestCase
TestModel.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)


@given(st.lists(st.floats(0, 1000), min_size=200, max_size=400))
@settings(max_examples=20, deadline=None)
def test_adding_one_key_for_ever_does_not_grow_the_heap(delays: list[float]) -> None:
    schedule: Schedule[str] = Schedule(PLAIN)
    for delay in sorted(delays, reverse=True):
        schedule.add("a", 0.0, delay)
    assert len(schedule) == 1
    assert len(schedule._heap) <= 2 + 64


async def test_workers_share_the_keys_and_never_one_key_at_a_time() -> None:
    queue: WorkQueue[int] = WorkQueue(Limits(spacing_s=0.0, interval_s=0.0, burst=1), time.monotonic)
    active: set[int] = set()
    ran: dict[int, int] = {}

    async def work() -> None:
        while True:
            key = await queue.get()
            assert key not in active
            active.add(key)
            await asyncio.sleep(0.001)
            active.remove(key)
            ran[key] = ran.get(key, 0) + 1
            if ran[key] == 1:
                queue.fail(key, retry_after=0.0) if key % 7 == 0 else queue.succeed(key, requeue_after=0.001)
            else:
                queue.succeed(key)

    workers = [asyncio.create_task(work()) for _ in range(5)]
    for key in range(1, 31):
        queue.add(key)
        queue.add(key)
    async with asyncio.timeout(20):
        while len(queue) or queue.running:
            assert not any(worker.done() for worker in workers)
            await asyncio.sleep(0.005)
    for worker in workers:
        worker.cancel()
    await asyncio.gather(*workers, return_exceptions=True)
    assert ran == dict.fromkeys(range(1, 31), 2)
    assert queue.idle()
