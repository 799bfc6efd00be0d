"""How far a download is: bytes, speed, and the seconds that are left. No I/O; the clock is injected."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable

WINDOW_S = 60.0
"""The speed is that of the last minute."""
_STEP_S = 1.0


def size(count: int) -> str:
    """`count` bytes in words: `265.00 GB`, `0.03 MB`."""
    return f"{count / 1e9:.2f} GB" if count >= 1e9 else f"{count / 1e6:.2f} MB"


class Progress:
    """Counts bytes; every thread may add."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._marks: deque[tuple[float, int]] = deque()
        self.total = 0
        """Bytes in all."""
        self.present = 0
        """Bytes that are there, those of earlier runs among them."""
        self.received = 0
        """Bytes that came over the network in this run, those that had to be thrown away among them."""
        self.last_byte = clock()
        """When the source gave its last byte, by `clock`."""

    def begin(self, total: int, present: int) -> None:
        """`total` bytes are wanted, of which `present` are there."""
        with self._lock:
            self.total, self.present = total, present
            self._marks.append((self._clock(), self.received))

    def add(self, count: int) -> None:
        """`count` bytes came and were written."""
        now = self._clock()
        with self._lock:
            self.present += count
            self.received += count
            self.last_byte = now
            if now - self._marks[-1][0] >= _STEP_S:
                self._marks.append((now, self.received))
                while now - self._marks[0][0] > WINDOW_S:
                    self._marks.popleft()

    def lose(self, count: int) -> None:
        """`count` bytes that were there are wrong and have to be fetched again."""
        with self._lock:
            self.present -= count

    def speed(self) -> float:
        """Bytes a second, of the last minute; 0 before anything is known."""
        with self._lock:
            if not self._marks:
                return 0.0
            since, before = self._marks[0]
            passed = self._clock() - since
            return (self.received - before) / passed if passed > 0 else 0.0

    def eta_s(self) -> float | None:
        """Seconds that are left at this speed; None where nothing moves."""
        speed = self.speed()
        return (self.total - self.present) / speed if speed > 0 else None

    def line(self) -> str:
        """For a log: `120.50 GB of 265.00 GB (45 %), 310.2 MB/s, 7 min 46 s left`."""
        share = 100 * self.present // self.total if self.total else 100
        eta = self.eta_s()
        left = "standing still" if eta is None else f"{int(eta) // 60} min {int(eta) % 60} s left"
        done = f"{size(self.present)} of {size(self.total)} ({share} %)"
        return f"{done}, {self.speed() / 1e6:.1f} MB/s, {left}"
