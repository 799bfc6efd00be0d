"""A decoder that is fast, exact and watchable, in the place of the real one."""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
from prometheus_client import CollectorRegistry

from stepaudio_runtime.errors import InputError, OutputError
from stepaudio_runtime.tts.hops import HopPlan
from stepaudio_runtime.tts.metrics import SpeechMetrics
from stepaudio_runtime.tts.scheduler import Scheduler

BROKEN = 5119  # a code of which the models make no numbers
SAMPLES = 529  # a code: near enough to 22,050 / 41.67
PLAN = HopPlan(first=5, growth=2.0, largest=20, context=0, look_ahead=3)


@dataclass(eq=False)
class FakeStream:
    """Keeps to what the real one demands of its callers."""

    plan: HopPlan
    codes: list[int] = field(default_factory=list)
    spoken: int = 0
    hops: int = 0
    last: bool = False

    def push(self, codes: Sequence[int], *, last: bool) -> None:
        if self.last:
            raise ValueError("codes after the last ones")
        if any(code < 0 for code in codes):
            raise InputError("a code that the flow does not know")
        self.codes += codes
        self.last = last

    @property
    def hop(self):
        return self.plan.next_hop(self.hops, self.spoken, len(self.codes), last=self.last)


@dataclass(eq=False)
class FakeDecoder:
    """A code N becomes 529 samples of N, 5,119 no number; `steps` records who shared each step."""

    fault: Callable[[], Exception | None] = lambda: None
    steps: list[list[FakeStream]] = field(default_factory=list)

    def open(self, _prompt, _seed: int, plan: HopPlan) -> FakeStream:
        return FakeStream(plan)

    def advance(
        self, streams: Sequence[FakeStream], on_step: Callable[[], None], wanted: Callable[[int], bool]
    ) -> list:
        self.steps.append(list(streams))
        hops = [stream.hop for stream in streams]
        assert all(hop is not None for hop in hops), "a stream is not ready for a hop"
        for _ in range(3):
            on_step()
        if (error := self.fault()) is not None:
            raise error
        waves = []
        for number, (stream, hop) in enumerate(zip(streams, hops, strict=True)):
            if not wanted(number):
                waves.append(np.zeros(0, np.float32))
                continue
            codes = stream.codes[hop.start : hop.stop]
            broken = OutputError("not finite") if BROKEN in codes else None
            waves.append(broken or np.repeat(np.float32(codes), SAMPLES))
            stream.spoken = hop.stop
            stream.hops += 1
        return waves


class InlineWorker:
    """Runs jobs in place, behind one turn of the event loop, as a thread would answer."""

    async def run(self, job):
        await asyncio.sleep(0)
        return job()


def new_scheduler(*, bound: int = 64, batch: int = 4, clock=lambda: 0.0) -> Scheduler:
    metrics = SpeechMetrics(CollectorRegistry())
    return Scheduler(InlineWorker(), bound=bound, batch=batch, clock=clock, metrics=metrics)
