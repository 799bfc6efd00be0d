"""Ends a load that stands still: a hung volume, a stopped process, a peer that never comes.

Progress is what the pod itself reports (bytes, messages) and what its processes do: page faults and bytes
read, which a process that only waits, or only spins, does not have. Time on the processor does not count: a
collective operation whose peer is gone spins for ever. Of the pod's own process, which answers the kubelet
all the while, only what comes from a volume counts.
"""

import asyncio
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

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


def pod_activity(pid: int, proc: Path = PROC) -> tuple[int, ...]:
    """What the processes of a pod have done so far, in numbers that grow: of `pid` itself major page faults
    and bytes from volumes; of every process below it, summed, minor and major page faults and bytes read.
    """
    own = _counters(pid, proc)
    minor = major = read = 0
    for child in _descendants(pid, proc):
        found = _counters(child, proc)
        minor, major, read = minor + found.minor, major + found.major, read + found.read
    return own.major, own.from_volumes, minor, major, read


class _Counters(NamedTuple):
    """Page faults without and with a volume, bytes by any call that reads, bytes that came from a volume."""

    minor: int = 0
    major: int = 0
    read: int = 0
    from_volumes: int = 0


def _counters(pid: int, proc: Path) -> _Counters:
    try:
        fields = (proc / str(pid) / "stat").read_text().rpartition(")")[2].split()
        counters = (proc / str(pid) / "io").read_text().split()
    except (OSError, ValueError):
        return _Counters()  # it has ended, or is somebody else's

    def counter(name: str) -> int:
        return int(counters[counters.index(f"{name}:") + 1])

    return _Counters(int(fields[7]), int(fields[9]), counter("rchar"), counter("read_bytes"))


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
