"""Child processes: relayed output, the line that explains an end, orderly and forced stops."""

import asyncio
import os
import sys

from stepaudio_runtime.service.child import Child
from stepaudio_runtime.service.engine import cpu_threads


async def start(script: str) -> Child:
    return await Child.start([sys.executable, "-u", "-c", script], os.environ, "vllm")


async def test_output_is_relayed_and_the_error_line_found(capfd):
    script = (
        "import sys; print('loading\\r50%\\r100%'); print('ValueError: no such layer', file=sys.stderr);"
        "print('RuntimeError: it failed. See root cause above.'); print('bye'); sys.exit(3)"
    )
    child = await start(script)
    assert await child.wait() == 3
    assert child.last_error() == "ValueError: no such layer"
    shown = capfd.readouterr().out.splitlines()
    assert shown == [
        "vllm | loading",
        "vllm | 50%",
        "vllm | 100%",
        "vllm | ValueError: no such layer",
        "vllm | RuntimeError: it failed. See root cause above.",
        "vllm | bye",
    ]


async def test_without_an_error_the_last_line_stands_for_the_end():
    child = await start("print('a'); print('b' * 1000)")
    assert await child.wait() == 0
    assert child.last_error() == "b" * 300


async def test_stop_asks_first(capfd):
    script = (
        "import signal, sys, time\n"
        "signal.signal(signal.SIGTERM, lambda *_: (print('asked'), sys.exit(0)))\n"
        "print('up'); time.sleep(600)"
    )
    child = await start(script)
    await until_shown(child, "up")
    await child.stop(30)
    assert await child.wait() == 0


async def test_stop_insists_when_not_heard():
    child = await start(
        "import signal, time; signal.signal(15, signal.SIG_IGN); print('up'); time.sleep(600)"
    )
    await until_shown(child, "up")
    await child.stop(0.2)
    assert await child.wait() == -9


async def until_shown(child: Child, line: str) -> None:
    while child.last_error() != line:  # noqa: ASYNC110 - output has no event
        await asyncio.sleep(0.01)


def test_threads_follow_the_cgroup_quota(tmp_path):
    cores = len(os.sched_getaffinity(0))
    quota = tmp_path / "cpu.max"
    quota.write_text("50000 100000\n")
    assert cpu_threads(0, quota) == 1
    quota.write_text("max 100000\n")
    assert cpu_threads(0, quota) == cores
    assert cpu_threads(0, tmp_path / "absent") == cores
    assert cpu_threads(5, quota) == 5
