"""The keyed work queue that wakes reconciles.

Two parts. `Schedule` is the state, without I/O and without a clock of its own: every method takes `now`
(seconds, monotonic). `WorkQueue` is the thin asyncio shell that sleeps until the next key is due.

Rules of the schedule
- A key waits at most once: adding it again only moves it to the earlier of the two times.
- A key runs at most once at a time: what is added while it runs waits until it is done.
- Two starts of one key are at least `spacing_s` apart (bursts of events become one run) and, beyond a burst,
  no more than one per `interval_s` (an object that never settles cannot starve the others).
- A failed key comes back after an exponential backoff, or later where the server asked for more; a success
  forgets its failures. A wake-up does not shorten a backoff: a broken object is retried at the backoff's
  pace however much goes on around it; only a `fresh` one does, when what is asked for has changed.
- Keys that are due are served in the order of their times, first come first served.

Bounded: one entry a key, so never more than there are objects; stale heap entries are swept.
"""

import asyncio
import heapq
import itertools
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from typing import Generic, TypeVar

K = TypeVar("K", bound=Hashable)


@dataclass(frozen=True, slots=True)
class Limits:
    """Pace of one key."""

    spacing_s: float = 0.05
    """Seconds between two starts of one key, at least."""
    interval_s: float = 0.5
    """Seconds per start that a busy key earns, once its burst is spent."""
    burst: int = 40
    """Starts a rested key may make before `interval_s` binds."""
    backoff_first_s: float = 0.5
    """Seconds until the first retry after a failure; doubles with every further failure."""
    backoff_last_s: float = 120.0
    """Seconds between retries, at most."""


@dataclass(slots=True)
class _Pace:
    """What is remembered about one key between its runs."""

    not_before: float = 0.0
    failures: int = 0
    backoff_until: float = 0.0
    spent_until: float = 0.0  # the theoretical arrival time of the generic cell rate algorithm


class Schedule(Generic[K]):
    """Which key runs when. Pure: times go in and come out, in seconds of one monotonic clock."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._due: dict[K, float] = {}
        self._again: dict[K, float] = {}
        self._running: set[K] = set()
        self._pace: dict[K, _Pace] = {}
        self._heap: list[tuple[float, int, K]] = []
        self._sequence = itertools.count()

    def __len__(self) -> int:
        """How many keys wait (running ones not counted)."""
        return len(self._due)

    @property
    def running(self) -> int:
        """How many keys run."""
        return len(self._running)

    def ready(self, now: float) -> int:
        """How many waiting keys are due at `now`."""
        return sum(1 for due in self._due.values() if due <= now)

    def add(self, key: K, now: float, after: float = 0.0, *, fresh: bool = False) -> None:
        """Ask for a run of `key` at `now + after` at the earliest. `fresh` forgets its failures."""
        wanted = now + after
        pace = self._pace.get(key)
        if fresh and pace is not None:
            pace.failures, pace.backoff_until = 0, 0.0
        if key in self._running:
            self._again[key] = min(wanted, self._again.get(key, wanted))
            return
        self._wait(key, wanted)

    def take(self, now: float) -> K | None:
        """The key that is due longest, now counted as running; None where none is due."""
        while self._heap:
            due, _, key = self._heap[0]
            if self._due.get(key) != due:
                heapq.heappop(self._heap)  # superseded by an earlier time
                continue
            if due > now:
                return None
            heapq.heappop(self._heap)
            del self._due[key]
            self._running.add(key)
            pace = self._pace.setdefault(key, _Pace())
            pace.not_before = now + self._limits.spacing_s
            pace.spent_until = max(pace.spent_until, now) + self._limits.interval_s
            return key
        return None

    def next_due(self) -> float | None:
        """When the next key becomes due; None where nothing waits."""
        while self._heap and self._due.get(self._heap[0][2]) != self._heap[0][0]:
            heapq.heappop(self._heap)
        return self._heap[0][0] if self._heap else None

    def succeed(self, key: K, now: float, requeue_after: float | None = None) -> None:
        """The run of `key` ended well; it comes back after `requeue_after` seconds where given."""
        pace = self._finish(key)
        pace.failures = 0
        pace.backoff_until = 0.0
        if requeue_after is not None:
            self._wait(key, now + requeue_after)
        self._resume(key)

    def fail(self, key: K, now: float, retry_after: float | None = None) -> float:
        """The run of `key` failed. Returns the seconds until its retry (`retry_after` is a lower bound)."""
        pace = self._finish(key)
        delay = min(self._limits.backoff_first_s * 2.0 ** min(pace.failures, 32), self._limits.backoff_last_s)
        delay = max(delay, retry_after or 0.0)
        pace.failures += 1
        pace.backoff_until = now + delay
        self._wait(key, now + delay)
        self._resume(key)
        return delay

    def forget(self, key: K) -> None:
        """The object is gone: nothing about it is kept, unless something asked for it meanwhile."""
        self._finish(key)
        self._pace.pop(key, None)
        self._resume(key)

    def failures(self, key: K) -> int:
        """Failures in a row of `key`."""
        pace = self._pace.get(key)
        return pace.failures if pace else 0

    def _finish(self, key: K) -> _Pace:
        self._running.remove(key)
        return self._pace.setdefault(key, _Pace())

    def _resume(self, key: K) -> None:
        wanted = self._again.pop(key, None)
        if wanted is not None:
            self._wait(key, wanted)

    def _wait(self, key: K, wanted: float) -> None:
        pace = self._pace.get(key)
        if pace is not None:
            allowance = (self._limits.burst - 1) * self._limits.interval_s
            wanted = max(wanted, pace.not_before, pace.backoff_until, pace.spent_until - allowance)
        current = self._due.get(key)
        if current is not None and current <= wanted:
            return
        self._due[key] = wanted
        heapq.heappush(self._heap, (wanted, next(self._sequence), key))
        if len(self._heap) > 2 * len(self._due) + 64:
            self._heap = [entry for entry in self._heap if self._due.get(entry[2]) == entry[0]]
            heapq.heapify(self._heap)


class WorkQueue(Generic[K]):
    """`Schedule` on an event loop: `get` waits until a key is due. Used from one loop only."""

    def __init__(self, limits: Limits, clock: Callable[[], float]) -> None:
        self._schedule: Schedule[K] = Schedule(limits)
        self._clock = clock
        self._changed = asyncio.Event()

    def __len__(self) -> int:
        """How many keys wait."""
        return len(self._schedule)

    @property
    def running(self) -> int:
        """How many keys run."""
        return self._schedule.running

    def ready(self) -> int:
        """How many keys are due and wait for a worker."""
        return self._schedule.ready(self._clock())

    def idle(self) -> bool:
        """Nothing runs and nothing is due now (a later requeue may wait)."""
        return self.running == 0 and self.ready() == 0

    def add(self, key: K, after: float = 0.0, *, fresh: bool = False) -> None:
        """Ask for a run of `key`, `after` seconds from now at the earliest. `fresh` forgets its failures."""
        self._schedule.add(key, self._clock(), after, fresh=fresh)
        self._changed.set()

    async def get(self) -> K:
        """The next key that is due. Every `get` is answered by one `succeed`, `fail` or `forget`."""
        while True:
            self._changed.clear()
            now = self._clock()
            key = self._schedule.take(now)
            if key is not None:
                self._changed.set()  # another waiter may find the next one
                return key
            due = self._schedule.next_due()
            try:
                async with asyncio.timeout(None if due is None else max(due - now, 0.0)):
                    await self._changed.wait()
            except TimeoutError:
                continue

    def succeed(self, key: K, requeue_after: float | None = None) -> None:
        """See `Schedule.succeed`."""
        self._schedule.succeed(key, self._clock(), requeue_after)
        self._changed.set()

    def fail(self, key: K, retry_after: float | None = None) -> float:
        """See `Schedule.fail`."""
        delay = self._schedule.fail(key, self._clock(), retry_after)
        self._changed.set()
        return delay

    def forget(self, key: K) -> None:
        """See `Schedule.forget`."""
        self._schedule.forget(key)
        self._changed.set()

    def failures(self, key: K) -> int:
        """Failures in a row of `key`."""
        return self._schedule.failures(key)
