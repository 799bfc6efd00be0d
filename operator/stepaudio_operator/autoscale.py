"""How many replicas a pool should have, from what its pods say of their work: pure, the clock is given.

1. Each measure asks for a number, the largest counts: requests in flight by what one replica is meant for;
   where the spec gives bounds, the time that requests wait and the first sound's delay, each by the replicas
   that serve times how far it is above or below its bound (at most twice as many at once).
2. A tenth of a replica's work is put up with. More are asked for by what is in flight at the moment; fewer
   only where the last minute's mean allows it too, so that single short requests keep a pool awake.
3. A replica that does not serve yet, or did not answer, counts as idle where more might be asked for, and as
   fully busy where fewer might: what loads for minutes is not taken away before it had something to do.
4. More replicas come when more were asked for at every look for `up_window_s`, and then the least of what was
   asked for; fewer when fewer were asked for at every look for `down_window_s`, and then the most. After
   every change the windows begin anew.
5. No pool leaves `minimum` and `maximum`; where it is outside of them, it is brought in at once.
6. A pool at 0 has one replica at once where somebody asks for it (`Seen.waiting`).

What is decided stands in the pool's status before `spec.replicas` is changed; the planner does the rest, so a
pod that goes drains as always.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from stepaudio_operator.memory import Scaling
from stepaudio_operator.presets import PRESETS
from stepaudio_operator.records import Work
from stepaudio_operator.spec.fields import seconds
from stepaudio_operator.spec.pool import PoolSpec

SLACK = 0.1
"""Of a replica's work: what is beyond the target by less asks for no further replica."""
AT_ONCE = 2.0
"""By how much a bound that is broken multiplies the replicas at most: delays say little of how many help."""


@dataclass(frozen=True)
class Rules:
    """What the spec asks for, and the preset where it says nothing. A bound that is None is not looked at."""

    minimum: int
    maximum: int
    in_flight: int
    """Requests in flight that a replica is meant for."""
    queue_s: float | None = None
    first_audio_s: float | None = None
    up_window_s: int = 30
    down_window_s: int = 600

    @classmethod
    def of(cls, spec: PoolSpec) -> Rules | None:
        """The rules of a pool; None where the operator does not decide its replicas."""
        asked = spec.autoscaling
        if asked is None:
            return None
        return cls(
            minimum=asked.min,
            maximum=asked.max,
            in_flight=asked.in_flight or PRESETS[spec.preset].pools[spec.component].in_flight,
            queue_s=_in_seconds(asked.queue_milliseconds),
            first_audio_s=_in_seconds(asked.first_audio_milliseconds),
            up_window_s=seconds(asked.up_window),
            down_window_s=seconds(asked.down_window),
        )

    def bounded(self, replicas: int) -> int:
        """The number nearest to `replicas` that is allowed."""
        return min(max(replicas, self.minimum), self.maximum)


@dataclass(frozen=True)
class Seen:
    """The pool's work as far as it is known."""

    work: tuple[Work, ...] = ()
    """Of the replicas that serve and answered."""
    waiting: int | None = None
    """Requests that gateways hold because no pod is ready; None where nobody has asked for one lately."""


def decide(rules: Rules, held: Scaling | None, replicas: int, seen: Seen, now: datetime) -> Scaling:
    """What the pool should remember: the replicas that it should have, and what it leans to.

    `held` is what it remembers, `replicas` what it has where that is nothing yet.
    """
    now = now.replace(microsecond=0)  # as it is stored
    current = held.replicas if held is not None else replicas
    if held is None or rules.bounded(current) != current:
        bounded = rules.bounded(current)
        return Scaling(bounded, f"{bounded} of {rules.minimum} to {rules.maximum} to begin with", now)
    asked, why = recommend(rules, current, seen)
    if asked == current:
        return replace(held, towards=None, since=None)
    if current == 0:
        return Scaling(asked, why, now)
    more = asked > current
    if held.towards is None or held.since is None or (held.towards > current) != more:
        towards, since = asked, now
    else:
        towards, since = (min if more else max)(asked, held.towards), held.since
    window = rules.up_window_s if more else rules.down_window_s
    if now < since + timedelta(seconds=window):
        return replace(held, towards=towards, since=since)
    if towards != asked:
        why += f"; {towards} at {'least' if more else 'most'} in the last {window} s"
    return Scaling(towards, why, now)


def recommend(rules: Rules, current: int, seen: Seen) -> tuple[int, str]:
    """The replicas that are asked for at this moment, and why in words."""
    high, why = _asked(rules, seen, [float(work.in_flight) for work in seen.work])
    if (more := rules.bounded(high)) > current:
        return more, why
    low, why = _asked(rules, seen, [max(work.in_flight, work.lately) for work in seen.work])
    silent = max(current - len(seen.work), 0)
    if silent:
        why += f"; {silent} do not serve yet or do not answer"
    # Of more replicas there was no question: what is asked for lies at or below what there is.
    return rules.bounded(min(low + silent, current)), why


def _asked(rules: Rules, seen: Seen, in_flight: Iterable[float]) -> tuple[int, str]:
    load = sum(in_flight) + (seen.waiting or 0)
    needs = load > 0 or seen.waiting is not None
    found = max(math.ceil(load / rules.in_flight - SLACK), int(needs))
    why = f"{load:.1f} requests in flight, {rules.in_flight} for a replica"
    if not seen.work and seen.waiting is not None:
        why = "a request waits for a pod"
    delays = (
        ("requests wait", rules.queue_s, [work.queue_s for work in seen.work]),
        ("the first sound takes", rules.first_audio_s, [work.first_audio_s for work in seen.work]),
    )
    for what, bound, said in delays:
        known = [value for value in said if value is not None]
        if bound is None or not known:
            continue
        mean = sum(known) / len(known)
        asked = max(math.ceil(len(seen.work) * min(mean / bound, AT_ONCE) - SLACK), 1)
        if asked > found:
            found, why = asked, f"{what} {mean:.2f} s, {bound:g} s are allowed"
    return found, why


def _in_seconds(milliseconds: int | None) -> float | None:
    return None if milliseconds is None else milliseconds / 1000
