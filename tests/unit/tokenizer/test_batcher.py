"""The batching loop on real (small) models: shared steps, equal answers, bounds, faults and leaving."""

import asyncio
import threading
from dataclasses import dataclass, field

import numpy as np
import pytest

from stepaudio_runtime.errors import AudioError, Overloaded
from stepaudio_runtime.service.faults import end_of
from stepaudio_runtime.service.worker import Worker
from stepaudio_runtime.tokenizer.batcher import Batcher
from stepaudio_runtime.tokenizer.dual import preprocess


def noise(samples, seed=0):
    return np.random.default_rng(seed).normal(0, 0.1, samples).astype(np.float32)


@dataclass
class Watched:
    """A tokenizer whose steps are noted, and held until `go` is set."""

    tokenizer: object
    go: threading.Event = field(default_factory=threading.Event)
    steps: list[int] = field(default_factory=list)  # pieces of work with a share in each step
    fault: Exception | None = None
    loop: asyncio.AbstractEventLoop = field(default_factory=asyncio.get_running_loop)
    stepping: asyncio.Event = field(default_factory=asyncio.Event)

    def __getattr__(self, name):
        return getattr(self.tokenizer, name)

    def step(self, progress, shares):
        self.steps.append(sum(1 for share in shares if share.windows or share.pieces))
        self.loop.call_soon_threadsafe(self.stepping.set)
        assert self.go.wait(20)
        if self.fault is not None and self.steps[-1]:
            raise self.fault
        self.tokenizer.step(progress, shares)


@pytest.fixture
async def watched(dual):
    found = Watched(dual)
    found.go.set()
    return found


@pytest.fixture
async def batcher(watched):
    batcher = Batcher(watched, Worker("test"), max_audio_s=10)
    yield batcher
    watched.go.set()
    await batcher.stop()


def file(dual, wave):
    return lambda: dual.work(preprocess(wave, 16_000))


async def test_what_arrives_together_goes_through_the_models_together(dual, batcher, watched):
    waves = [noise(size, size) for size in (16_000, 900, 40_000, 7_777)]
    found = await asyncio.gather(*(batcher.run(file(dual, wave), urgent=False) for wave in waves))
    assert watched.steps == [4]
    for together, wave in zip(found, waves, strict=True):
        alone = dual.encode(wave, 16_000)
        np.testing.assert_array_equal(together.linguistic.ids, alone.linguistic.ids)
        np.testing.assert_array_equal(together.semantic.ids, alone.semantic.ids)
    assert batcher.jobs == 0


async def test_a_long_file_does_not_keep_a_stream_waiting_for_its_end(dual, batcher, watched):
    done = []

    async def run(name, samples, urgent):
        await batcher.run(file(dual, noise(samples)), urgent=urgent)
        done.append(name)

    watched.go.clear()
    long = asyncio.create_task(run("file", 16_000 * 120, False))
    await watched.stepping.wait()
    stream = asyncio.create_task(run("stream", 3_840, True))
    await asyncio.sleep(0.01)
    watched.go.set()
    await asyncio.gather(long, stream)
    assert done == ["stream", "file"]


async def test_one_callers_bad_audio_is_that_callers_alone(dual, batcher):
    bad = np.full(2_000, np.nan, np.float32)
    first, second = await asyncio.gather(
        batcher.run(file(dual, bad), urgent=False),
        batcher.run(file(dual, noise(4_000)), urgent=False),
        return_exceptions=True,
    )
    assert isinstance(first, AudioError)
    assert len(second.linguistic) == len(dual.encode(noise(4_000), 16_000).linguistic)


async def test_a_fault_of_the_models_is_told_to_all_and_the_loop_goes_on(dual, batcher, watched):
    watched.fault = RuntimeError("out of memory")
    jobs = [batcher.run(file(dual, noise(4_000)), urgent=False) for _ in range(3)]
    assert [str(e) for e in await asyncio.gather(*jobs, return_exceptions=True)] == ["out of memory"] * 3
    watched.fault = None
    assert len((await batcher.run(file(dual, noise(4_000)), urgent=False)).linguistic) > 0


async def test_three_faults_of_the_models_in_a_row_end_the_loop_whatever_callers_sent(dual, batcher, watched):
    watched.fault = RuntimeError("CUDA error: device-side assert triggered")

    async def fails(prepare) -> None:
        with pytest.raises((RuntimeError, ValueError, AudioError)):
            await batcher.run(prepare, urgent=False)

    def mistaken():
        raise ValueError("a caller's")

    for _ in range(2):
        await fails(file(dual, noise(4_000)))
    watched.fault = None
    await batcher.run(file(dual, noise(4_000)), urgent=False)
    watched.fault = RuntimeError("CUDA error: device-side assert triggered")
    for _ in range(2):
        await fails(file(dual, noise(4_000)))
    for _ in range(3):  # no step of the models, neither good nor bad
        await fails(mistaken)
        await batcher.run(lambda: dual.work(noise(10)), urgent=False)
    assert not batcher.running.done()
    await fails(file(dual, noise(4_000)))
    await asyncio.wait({batcher.running}, timeout=20)
    assert repr(end_of(batcher.running, "")) == (
        "EngineFailed('3 steps of the tokenizers in a row failed, the last of RuntimeError: CUDA error:"
        " device-side assert triggered')"
    )


async def test_who_leaves_frees_the_place(dual, batcher, watched):
    watched.go.clear()
    waiting = [asyncio.create_task(batcher.run(file(dual, noise(32_000)), urgent=False)) for _ in range(3)]
    await watched.stepping.wait()
    late = asyncio.create_task(batcher.run(file(dual, noise(32_000)), urgent=False))
    await asyncio.sleep(0)
    for task in (waiting[1], late):
        task.cancel()
    watched.go.set()
    results = await asyncio.gather(*waiting, late, return_exceptions=True)
    assert [isinstance(each, asyncio.CancelledError) for each in results] == [False, True, False, True]
    await batcher.run(file(dual, noise(1_000)), urgent=False)
    assert batcher.jobs == 0
    assert watched.steps[-1] == 1


async def test_audio_beyond_the_bound_is_refused_until_there_is_room(batcher):
    with batcher.room(6):
        with pytest.raises(Overloaded) as refused, batcher.room(5):
            pass
        assert 1 <= refused.value.retry_after_s <= 60
        with batcher.room(4):
            assert batcher.held_s == 10
    assert batcher.held_s == 0
    with batcher.room(100):  # alone, even a file above the bound
        pass


async def test_retry_after_follows_the_pace():
    times = iter([0.0, 100.0, 200.0, 300.0, 400.0, 500.0])
    batcher = Batcher(None, Worker("test"), max_audio_s=10, clock=lambda: next(times))
    for _ in range(2):  # 10 s of audio took 100 s, twice
        with batcher.room(10):
            pass
    with batcher.room(10):
        with pytest.raises(Overloaded) as refused, batcher.room(1):
            pass
    assert refused.value.retry_after_s == 20  # the pace went from 0.1 to about 2 s a second
    await batcher.stop()
