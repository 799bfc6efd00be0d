"""The loop that makes all speech of a pod: the hops that are ready, most urgent first, a batch at a time.

One step runs in the worker's thread, so there is never more than one; everything else is bookkeeping on the
event loop. What a stream becomes depends on its codes and its seed alone, never on who shared its steps.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence

import numpy as np

from stepaudio_runtime.errors import Overloaded, StepAudioError
from stepaudio_runtime.service.faults import Faults
from stepaudio_runtime.service.worker import Worker
from stepaudio_runtime.tts.metrics import SpeechMetrics
from stepaudio_runtime.tts.playback import Ready, next_batch
from stepaudio_runtime.tts.utterance import Part, Utterance

log = logging.getLogger(__name__)


class Scheduler:
    """`bound` counts open utterances, `batch` streams in a step; `clock` is monotonic, in seconds.

    `on_progress` is called between the solver's steps, from the worker's thread.
    """

    def __init__(
        self,
        worker: Worker,
        *,
        bound: int,
        batch: int,
        clock: Callable[[], float],
        metrics: SpeechMetrics,
        on_progress: Callable[[], None] = lambda: None,
    ) -> None:
        self._worker = worker
        self._bound = bound
        self._batch = batch
        self._clock = clock
        self._metrics = metrics
        self._on_progress = on_progress
        self._utterances: dict[Utterance, None] = {}  # in order of arrival
        self._work = asyncio.Event()
        self._faults = Faults("the speech decoder")
        metrics.watch(self)

    # --- for requests -------------------------------------------------------------------------------

    def open(self) -> Utterance:
        """A new utterance; to be closed whatever happens. Raises Overloaded at the bound."""
        if len(self._utterances) >= self._bound:
            raise Overloaded(
                f"{len(self._utterances)} utterances are being spoken, the bound is {self._bound}"
            )
        utterance = Utterance(self._work.set, self._clock())
        self._utterances[utterance] = None
        return utterance

    def close(self, utterance: Utterance) -> None:
        """Forget it; a step in progress goes on without it, from its next of the solver's steps on."""
        if self._utterances.pop(utterance, utterance) is None:
            utterance.close()
            self._metrics.closed(utterance)

    @property
    def speaking(self) -> int:
        """Open utterances."""
        return len(self._utterances)

    @property
    def waiting(self) -> int:
        """Utterances with a hop that could be made now."""
        return sum(utterance.front() is not None for utterance in self._utterances)

    # --- the loop -----------------------------------------------------------------------------------

    async def run(self) -> None:
        """Make what is asked for until cancelled; raises EngineFailed where the decoder is beyond cure."""
        while True:
            batch = next_batch(self._ready(), self._clock(), self._batch)
            if batch:
                await self._step(batch)
            else:
                self._work.clear()
                await self._work.wait()

    def _ready(self) -> list[Ready[Utterance]]:
        fronts = ((utterance, utterance.front()) for utterance in self._utterances)
        return [Ready(u, part.decoder, u.playback.dry_at) for u, part in fronts if part is not None]

    async def _step(self, chosen: Sequence[Utterance]) -> None:
        """Make one hop of each of `chosen`, which are ready, and hand the samples out."""
        batch = [(utterance, part) for utterance in chosen if (part := _shown(utterance)) is not None]
        if not batch:
            return
        decoder, streams = batch[0][1].decoder, [part.stream for _, part in batch]

        def wanted(number: int) -> bool:  # asked in the worker's thread, between the solver's steps
            return not batch[number][0].closed

        started = self._clock()
        try:
            waves = await self._worker.run(lambda: decoder.advance(streams, self._on_progress, wanted))
        except Exception as error:
            for utterance, _ in batch:
                utterance.fail(error)
            if not isinstance(error, StepAudioError):
                log.exception("a step of %d streams failed", len(batch))
                self._faults.failed(error)
            return
        now = self._clock()
        self._metrics.stepped(len(batch))
        if any(isinstance(wave, np.ndarray) and wave.size for wave in waves):
            self._faults.sound()  # where all readers had gone, nothing was computed
        for (utterance, _), wave in zip(batch, waves, strict=True):
            if isinstance(wave, StepAudioError):
                utterance.fail(wave)
                continue
            if utterance.closed:
                continue
            first = utterance.playback.first_at is None
            utterance.working_s += now - started
            utterance.give(wave, now)
            if first and utterance.playback.first_at is not None:
                self._metrics.began(now - utterance.playback.opened_at)


def _shown(utterance: Utterance) -> Part | None:
    """The part at the front, its decoder shown what the next hop needs; None where it may not be."""
    part = utterance.front()
    if part is not None and part.hop is not None:
        try:
            part.hand_over(part.hop)
        except StepAudioError as error:  # codes that the flow does not know
            utterance.fail(error)
            return None
    return part
