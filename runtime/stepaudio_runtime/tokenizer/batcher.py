"""The batching loop: what several requests and streams wait for goes through the models together.

    run() ... run()  ->  jobs  ->  [ drop those whose callers left | prepare | plan | step ]  ->  answers
                                     ^ one turn at a time, in the worker's only thread

The loop lives in the event loop and owns the list of jobs; a turn gets a copy of it and touches nothing but
the jobs. So there is no lock.
"""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

from stepaudio_runtime.errors import Overloaded, StepAudioError
from stepaudio_runtime.service.faults import Faults
from stepaudio_runtime.service.worker import Worker
from stepaudio_runtime.tokenizer.dual import DualTokenizer
from stepaudio_runtime.tokenizer.plan import LARGE_STEP_WINDOWS, plan_step
from stepaudio_runtime.tokenizer.work import Encoded, Progress, Work

log = logging.getLogger(__name__)

MAX_RETRY_AFTER_S = 60
PACE_WEIGHT = 0.1
"""Of the newest file in the average pace."""
GATHER_S = 0.005
"""How long the first job after a pause waits for others: streams that send at the same time share a step."""


@dataclass(eq=False)
class _Job:
    prepare: Callable[[], Work]
    urgent: bool
    answer: asyncio.Future[Encoded]
    work: Work | None = None
    progress: Progress | None = None
    fault: Exception | None = field(default=None)


class Batcher:
    """Runs work for many callers. `max_audio_s` bounds the seconds of audio of all files held at a time.

    `running` is the loop; it ends by itself, with EngineFailed, where the models are beyond cure.
    """

    def __init__(
        self,
        tokenizer: DualTokenizer,
        worker: Worker,
        *,
        max_audio_s: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.tokenizer = tokenizer
        self._worker = worker
        self._max_audio_s = max_audio_s
        self._clock = clock
        self._held_s = 0.0
        self._pace = 0.1  # seconds until a second of held audio was worked off, lately
        self._jobs: list[_Job] = []
        self._some = asyncio.Event()
        self._faults = Faults("the tokenizers")
        self.running = asyncio.create_task(self._run(), name="batching")

    @property
    def held_s(self) -> float:
        """Seconds of audio of the files that are held."""
        return self._held_s

    @property
    def jobs(self) -> int:
        """Jobs that wait or are in work."""
        return len(self._jobs)

    @contextmanager
    def room(self, seconds: float) -> Iterator[None]:
        """Hold a place for a file of `seconds` while the block runs; raises Overloaded without one."""
        if self._held_s and self._held_s + seconds > self._max_audio_s:
            wait_s = math.ceil(self._held_s * self._pace)
            raise Overloaded(
                f"{self._held_s:.0f} s of audio wait here, the bound is {self._max_audio_s:g} s",
                retry_after_s=max(1, min(wait_s, MAX_RETRY_AFTER_S)),
            )
        self._held_s += seconds
        held_s, started = self._held_s, self._clock()
        try:
            yield
            if held_s > 0:
                self._pace += PACE_WEIGHT * ((self._clock() - started) / held_s - self._pace)
        finally:
            self._held_s -= seconds

    async def run(self, prepare: Callable[[], Work], *, urgent: bool) -> Encoded:
        """Do what `prepare`, called in the worker's thread, says; its errors are raised here.

        Cancelled, it gives up its place. `urgent` work, that of streams, goes first.
        """
        job = _Job(prepare, urgent, asyncio.get_running_loop().create_future())
        self._jobs.append(job)
        self._some.set()
        return await job.answer

    async def stop(self) -> None:
        """End the loop; what waits is cancelled."""
        self.running.cancel()
        await asyncio.gather(self.running, return_exceptions=True)
        for job in self._jobs:
            job.answer.cancel()

    async def _run(self) -> None:
        while True:
            self._jobs = [job for job in self._jobs if not job.answer.done()]
            if not self._jobs:
                self._some.clear()
                await self._some.wait()
                await asyncio.sleep(GATHER_S)
            jobs = tuple(self._jobs)
            fault = None
            try:
                if await self._worker.run(lambda: self._turn(jobs)):  # noqa: B023 - awaited within the iteration
                    self._faults.sound()
            except Exception as error:  # whatever torch raises
                fault = error
                log.error("a batch of %d jobs failed", len(jobs), exc_info=error)
                for job in jobs:
                    job.fault = job.fault or error
            for job in jobs:
                _answer(job)
            if fault is not None and not isinstance(fault, StepAudioError):
                self._faults.failed(fault)

    def _turn(self, jobs: Sequence[_Job]) -> bool:
        """Prepare as many as a step may take, and take a step: true where it computed something. In the
        worker's thread.
        """
        ready: list[tuple[Progress, bool]] = []
        windows = 0
        for job in sorted(jobs, key=lambda job: not job.urgent):
            if windows >= LARGE_STEP_WINDOWS and not job.urgent:
                break
            if job.work is None and job.fault is None:
                _prepare(job)
            if job.work is not None and job.progress is None:
                job.progress = self.tokenizer.progress(job.work)
            if job.progress is not None:
                ready.append((job.progress, job.urgent))
                windows += job.progress.waiting(urgent=job.urgent).windows
        shares = plan_step([progress.waiting(urgent=urgent) for progress, urgent in ready])
        self.tokenizer.step([progress for progress, _ in ready], shares)
        return any(share.windows or share.pieces for share in shares)


def _prepare(job: _Job) -> None:
    try:
        job.work = job.prepare()
    except Exception as error:  # the caller's audio, and the caller's alone
        job.fault = error


def _answer(job: _Job) -> None:
    if job.answer.done():
        return
    if job.fault is not None:
        job.answer.set_exception(job.fault)
    elif job.progress is not None and job.progress.done:
        job.answer.set_result(job.progress.result())
