"""A load that stands still is ended, one that reads or reports goes on: with real child processes."""

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from stepaudio_runtime.health.load_watch import LoadStalled, child_activity, watch_load
from stepaudio_runtime.health.state import PodState

READS = "import time\nwhile True: open('/etc/hostname').read(); time.sleep(0.01)"
SPINS = "import time\nwhile True: pass"
GRANDCHILD = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {READS!r}])"


@pytest.fixture
def child(request: pytest.FixtureRequest) -> Iterator[subprocess.Popen[bytes]]:
    process = subprocess.Popen([sys.executable, "-c", request.param], start_new_session=True)
    yield process
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def state() -> PodState:
    made = PodState("chat")
    made.load("vLLM is loading the model")
    made.load_progress(10, 40)
    return made


async def stalls(of: PodState, timeout_s: float, wait_s: float) -> LoadStalled | None:
    watching = asyncio.create_task(watch_load(of, timeout_s, lambda: child_activity(os.getpid())))
    done, _ = await asyncio.wait({watching}, timeout=wait_s)
    watching.cancel()
    return watching.result() if done else None


def settled(pid: int) -> None:
    """Wait until the interpreters have started: their own loading is activity."""
    while b"-c" not in Path(f"/proc/{pid}/cmdline").read_bytes():
        time.sleep(0.01)
    time.sleep(1)


@pytest.mark.parametrize("child", [READS, GRANDCHILD], indirect=True)
async def test_a_process_that_reads_goes_on_and_ends_when_it_is_stopped(
    child: subprocess.Popen[bytes],
) -> None:
    settled(child.pid)
    assert await stalls(state(), 2, 3) is None
    for process in [child.pid, *(int(p) for p in children(child.pid))]:
        os.kill(process, signal.SIGSTOP)
    found = await stalls(state(), 1, 20)
    assert str(found) == (
        "nothing was read or reported for 1 s while vLLM is loading the model (10 of 40 bytes); the pod is"
        " started anew"
    )


@pytest.mark.parametrize("child", [SPINS], indirect=True)
async def test_a_process_that_only_spins_stands_still(child: subprocess.Popen[bytes]) -> None:
    settled(child.pid)
    assert await stalls(state(), 1, 20) is not None


async def test_what_the_pod_reports_is_progress() -> None:
    loading = state()

    async def report() -> None:
        for loaded in range(100):
            loading.load_progress(loaded, 100)
            await asyncio.sleep(0.05)

    reporting = asyncio.create_task(report())
    assert await stalls(loading, 1, 2.5) is None
    reporting.cancel()
    assert await stalls(loading, 0.2, 20) is not None


def children(pid: int) -> list[str]:
    return Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
