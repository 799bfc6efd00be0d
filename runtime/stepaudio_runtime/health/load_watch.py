"""Ends a load that stands still: a hung volume, a stopped process, a peer that never comes.

Progress is what the pod itself reports (bytes, messages) and what its child processes do: page faults and
bytes read, which a process that only waits, or only spins, does not have. Time on the processor does not
count: a collective operation whose peer is gone spins for ever.
"""

import asyncio
from collections.abc import Callable, Iterator
from pathlib import Path

from stepaudio_runtime.errors import StepAudioError
from stepaudio_runtime.health.state import PodState

LOOKS = 20  # in one timeout
PROC = Path("/proc")


class LoadStalled(StepAudioError):  # noqa: N818 - named as the condition's reason
    """Loading has stood still for too long: the pod ends, and is started anew."""

    reason = "LoadStalled"


async def watch_load(
    state: PodState, timeout_s: float, activity: Callable[[], tuple[int, ...]]
) -> LoadStalled:
    """Returns when neither `state` nor `activity` has shown anything new for `timeout_s` seconds."""
    seen, since = None, 0
    while True:
        now = (state.bytes_loaded, state.not_ready()["message"], activity())
        seen, since = (now, 0) if now != seen else (seen, since + 1)
        if since >= LOOKS:
            return LoadStalled(
                f"nothing was read or reported for {timeout_s:g} s while {now[1] or 'starting'}"
                f" ({state.bytes_loaded} of {state.bytes_total} bytes); the pod is started anew"
            )
        await asyncio.sleep(timeout_s / LOOKS)


def child_activity(pid: int, proc: Path = PROC) -> tuple[int, ...]:
    """Page faults and bytes read of every process below `pid`, summed; zeros where there is none."""
    minor = major = read = 0
    for child in _descendants(pid, proc):
        try:
            fields = (proc / str(child) / "stat").read_text().rpartition(")")[2].split()
            counters = (proc / str(child) / "io").read_text().split()
        except (OSError, ValueError):
            continue  # it has ended, or is somebody else's
        minor, major = minor + int(fields[7]), major + int(fields[9])
        read += int(counters[counters.index("rchar:") + 1])
    return minor, major, read


def _descendants(pid: int, proc: Path) -> Iterator[int]:
    parents: dict[int, list[int]] = {}
    for entry in proc.iterdir():
        if not entry.name.isdigit():
            continue
        try:
            parent = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
        except (OSError, ValueError, IndexError):
            continue
        parents.setdefault(parent, []).append(int(entry.name))
    row = [pid]
    while row:
        found = parents.get(row.pop(), [])
        yield from found
        row += found
