"""The compute thread: order, results, errors, its bound, and jobs whose caller has gone."""

import asyncio
import threading

import pytest

from stepaudio_runtime.errors import Overloaded
from stepaudio_runtime.service.worker import Worker


async def test_results_and_errors_come_back_and_a_job_that_succeeds_is_a_sign_of_life():
    beats: list[int] = []
    worker = Worker("test", on_done=lambda: beats.append(1))
    assert await worker.run(lambda: 7) == 7
    with pytest.raises(ZeroDivisionError):
        await worker.run(lambda: 1 // 0)
    assert await worker.run(threading.get_ident) != threading.get_ident()
    assert len(beats) == 2


async def test_jobs_beyond_the_bound_are_refused_and_abandoned_ones_skipped():
    worker = Worker("test", bound=2)
    running, release, ran = threading.Event(), threading.Event(), []

    def hold() -> str:
        running.set()
        assert release.wait(30)
        return "held"

    first = asyncio.create_task(worker.run(hold))
    assert await asyncio.to_thread(running.wait, 30)
    second = asyncio.create_task(worker.run(lambda: ran.append("second")))
    await asyncio.sleep(0)
    with pytest.raises(Overloaded, match="2 jobs"):
        await worker.run(lambda: ran.append("third"))
    second.cancel()
    await asyncio.gather(second, return_exceptions=True)
    release.set()
    assert await first == "held"
    assert await worker.run(lambda: ran.append("fourth")) is None
    assert ran == ["fourth"]
