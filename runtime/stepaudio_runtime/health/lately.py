"""What a pod had to do in the last minute: an autoscaler asks now and then, and misses nothing.

Sums are kept since the beginning, and marks of them about once a second; a mean over the last minute is by
the difference to the sums of a minute ago, read between two marks. No I/O; the clock is monotonic (s).
"""

import math
from collections import deque
from collections.abc import Callable
from dataclasses import astuple, dataclass, replace

from stepaudio_runtime.bodies import LatelyStatus

WINDOW_S = 60.0
MARK_EVERY_S = 1.0


@dataclass(frozen=True, slots=True)
class _Sums:
    """Since the beginning: the time itself, requests in flight times seconds, waits and first sounds."""

    at: float
    in_flight: float = 0.0
    queue_s: float = 0.0
    queued: int = 0
    first_audio_s: float = 0.0
    heard: int = 0


class Lately:
    """Told of every change; `status` is of the last minute. All methods belong to one thread."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._in_flight = 0
        self._sums = _Sums(clock())
        self._marks = deque([self._sums])

    def in_flight(self, count: int) -> None:
        """So many requests are in flight from now on."""
        self._go_on()
        self._in_flight = count

    def queued(self, seconds: float, requests: int = 1) -> None:
        """`requests` have waited `seconds` in all before work on them began."""
        now = self._go_on()
        self._sums = replace(now, queue_s=now.queue_s + seconds, queued=now.queued + requests)

    def first_audio(self, seconds: float) -> None:
        """A first sound came after `seconds`."""
        now = self._go_on()
        self._sums = replace(now, first_audio_s=now.first_audio_s + seconds, heard=now.heard + 1)

    def status(self) -> LatelyStatus:
        """`lately` of `GET /status`."""
        now = self._go_on()
        time, in_flight, queue_s, queued, first_audio_s, heard = (
            a - b for a, b in zip(astuple(now), self._a_minute_ago(now.at), strict=True)
        )
        return {
            "inFlight": _shown(in_flight / time if time else float(self._in_flight)),
            "queueSeconds": _shown(queue_s / queued) if queued else None,
            "firstAudioSeconds": _shown(first_audio_s / heard) if heard else None,
        }

    def _a_minute_ago(self, now: float) -> tuple[float, ...]:
        """The sums of that moment, or of the beginning."""
        start = now - WINDOW_S
        if self._marks[0].at >= start or len(self._marks) == 1:
            return astuple(self._marks[0])
        before, after = astuple(self._marks[0]), astuple(self._marks[1])
        share = (start - before[0]) / (after[0] - before[0])
        return tuple(a + (b - a) * share for a, b in zip(before, after, strict=True))

    def _go_on(self) -> _Sums:
        """The sums up to this moment."""
        before, now = self._sums, self._clock()
        busy = self._in_flight * (now - before.at)
        self._sums = replace(before, at=now, in_flight=before.in_flight + busy)
        if now - self._marks[-1].at >= MARK_EVERY_S:
            if before.at > self._marks[-1].at:
                self._marks.append(before)  # all that was told up to then
            self._marks.append(self._sums)
        while len(self._marks) > 1 and self._marks[1].at <= now - WINDOW_S:
            self._marks.popleft()
        return self._sums


def _shown(value: float) -> float:
    """Rounded up, so that little is not nothing."""
    return math.ceil(value * 1000) / 1000
