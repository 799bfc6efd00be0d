"""Progress of long work: one line when a step begins, one with its time when it ends."""

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

_started = time.monotonic()
_table: list[tuple[str, float]] = []


@contextmanager
def step(what: str) -> Iterator[None]:
    """Says that `what` begins and, when it is done, how many seconds it took."""
    say(f"{what} ...")
    begun = time.monotonic()
    try:
        yield
    except BaseException:
        say(f"{what}: failed after {time.monotonic() - begun:.0f} s")
        raise
    seconds = time.monotonic() - begun
    _table.append((what, seconds))
    say(f"{what}: done in {seconds:.0f} s")


def say(message: str) -> None:
    """One line on stderr, with the time since the start of the program."""
    minutes, seconds = divmod(int(time.monotonic() - _started), 60)
    print(f"[{minutes:02d}:{seconds:02d}] {message}", file=sys.stderr, flush=True)


def table() -> str:
    """Where the time went: the steps of at least one second, longest first."""
    rows = sorted((row for row in _table if row[1] >= 1), key=lambda row: -row[1])
    return "\n".join(f"{seconds:7.0f} s  {what}" for what, seconds in rows)
