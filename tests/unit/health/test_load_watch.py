"""A load that stands still is ended, one that reads or reports goes on: with real child processes."""

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path

import pytest

from stepaudio_runtime.health.load_watch import LoadStalled, pod_activity, watch_load
from stepaudio_runtime.health.state import PodState

Activity = Callable[[], tuple[int, ...]]

READS = "import time\nwhile True: open('/etc/hostname').read(); time.sleep(0.01)"
SPINS = "import time\nwhile True: pass"
RUNS = "import subprocess, sys; subprocess.run([sys.executable, '-c', sys.argv[1]])"
GRANDCHILD = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {READS!r}])"


@pytest.fixture
def pod(request: pytest.FixtureRequest) -> Iterator[int]:
    """A process with the given program as its child: what else this test run has started is not below it."""
    process = subprocess.Popen([sys.executable, "-c", RUNS, request.param], start_new_session=True)
    yield process.pid
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def state() -> PodState:
    made = PodState("chat")
    made.load("vLLM is loading the model")
    made.load_progress(10, 40)
    return made


async def stalls(of: PodState, activity: Activity, timeout_s: float, wait_s: float) -> LoadStalled | None:
    watching = asyncio.create_task(watch_load(of, timeout_s, activity))
    done, _ = await asyncio.wait({watching}, timeout=wait_s)
    watching.cancel()
    return watching.result() if done else None


def below(pid: int) -> Activity:
    return lambda: pod_activity(pid)


def settled(pid: int) -> None:
    """Wait until the interpreters have started: their own loading is activity."""
    while not children(pid):
        time.sleep(0.01)
    time.sleep(1)


@pytest.mark.parametrize("pod", [READS, GRANDCHILD], indirect=True)
async def test_a_process_that_reads_goes_on_and_ends_when_it_is_stopped(pod: int) -> None:
    settled(pod)
    assert await stalls(state(), below(pod), 2, 3) is None
    for process in [found for child in children(pod) for found in [child, *children(child)]]:
        os.kill(process, signal.SIGSTOP)
    found = await stalls(state(), below(pod), 1, 20)
    assert str(found) == (
        "nothing was read or reported for 1 s while vLLM is loading the model (10 of 40 bytes); the pod is"
        " started anew"
    )


def test_of_the_pods_own_process_what_comes_from_a_volume_counts_and_its_health_answers_do_not(
    tmp_path: Path,
) -> None:
    def process(pid: int, parent: int, stat: str, io: str) -> None:
        (tmp_path / str(pid)).mkdir(exist_ok=True)
        (tmp_path / str(pid) / "stat").write_text(
            f"{pid} (py (x) thon) S {parent} 1 1 0 -1 4194304 {stat} 7 7"
        )
        (tmp_path / str(pid) / "io").write_text(io)

    process(
        50, 1, "100 0 3 0", "rchar: 900\nwchar: 5\nsyscr: 1\nsyscw: 1\nread_bytes: 4096\nwrite_bytes: 0\n"
    )
    process(51, 50, "20 0 2 0", "rchar: 70\nread_bytes: 0\n")
    process(52, 51, "1 0 1 0", "rchar: 7\nread_bytes: 0\n")
    assert pod_activity(50, tmp_path) == (3, 4096, 21, 3, 77)
    process(50, 1, "150 0 3 0", "rchar: 990\nread_bytes: 4096\n")  # it was asked how it is
    assert pod_activity(50, tmp_path) == (3, 4096, 21, 3, 77)
    process(50, 1, "150 0 4 0", "rchar: 990\nread_bytes: 8192\n")
    assert pod_activity(50, tmp_path) == (4, 8192, 21, 3, 77)


@pytest.mark.parametrize("pod", [SPINS], indirect=True)
async def test_a_process_that_only_spins_stands_still(pod: int) -> None:
    settled(pod)
    assert await stalls(state(), below(pod), 1, 20) is not None


async def test_what_the_pod_reports_is_progress() -> None:
    loading = state()

    async def report() -> None:
        for loaded in range(100):
            loading.load_progress(loaded, 100)
            await asyncio.sleep(0.05)

    def nothing() -> tuple[int, ...]:
        return ()

    reporting = asyncio.create_task(report())
    assert await stalls(loading, nothing, 1, 2.5) is None
    reporting.cancel()
    assert await stalls(loading, nothing, 0.2, 20) is not None


async def test_what_the_children_do_is_progress() -> None:
    steps = count()
    assert await stalls(state(), lambda: (next(steps),), 0.5, 1.5) is None


def children(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
