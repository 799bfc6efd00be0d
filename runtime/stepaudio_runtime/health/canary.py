"""The canary: a known question to the model, at the start and again whenever the pod has nothing to do.

The first good answer of a revision on a device is recorded in the pod's own folder, which outlives its
container's restarts; later answers have to begin like it. Only the first half is compared: on a GPU the last
bits differ with what else is in the batch, and a language model goes its own way from a near tie on.

A busy pod proves itself by its work (`heartbeat.py`) and is never made unready by its canary: the question is
asked only while nothing is in flight, and an answer is not judged where something came meanwhile.
"""

import asyncio
import json
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path

from stepaudio_runtime.errors import OutputError, StepAudioError
from stepaudio_runtime.health.state import PodState

log = logging.getLogger(__name__)

FAILURES = 3  # in a row, for the pod to end

Ids = tuple[int, ...]


class CanaryFailed(StepAudioError):  # noqa: N818 - named as the condition's reason
    """The model answers a known question wrongly, or not at all: the pod ends."""

    reason = "CanaryFailed"


class Record:
    """The first good answer, in `file`."""

    def __init__(self, file: Path) -> None:
        self._file = file

    def check(self, ids: Ids) -> None:
        """Keep `ids` where nothing is kept yet; raises CanaryFailed where they begin otherwise."""
        try:
            kept = tuple(json.loads(self._file.read_text()))
        except (OSError, ValueError, TypeError):
            self._file.parent.mkdir(parents=True, exist_ok=True)
            self._file.write_text(json.dumps(ids))
            return
        half = (len(kept) + 1) // 2
        if ids[:half] != kept[:half]:
            raise CanaryFailed(
                f"the canary's answer begins {list(ids[:half])}, the first good one began {list(kept[:half])}"
            )


@dataclass(frozen=True)
class CanaryPlan:
    """Where the first good answer is kept, how often (s) it is asked for, and how long (s) it may take."""

    record: Record
    interval_s: float
    timeout_s: float
    retry_s: float = 5.0  # after a failure


class Canary:
    """Asks. `ask` raises StepAudioError where the answer cannot be right whatever was recorded."""

    def __init__(self, state: PodState, ask: Callable[[], Awaitable[Ids]], plan: CanaryPlan) -> None:
        self._state = state
        self._ask = ask
        self._plan = plan

    async def prove(self) -> None:
        """Ask once, however long it takes; raises StepAudioError."""
        self._plan.record.check(await self._ask())

    async def run(self, failed: "asyncio.Future[StepAudioError]") -> None:
        """Ask again and again; sets `failed` and returns when the pod should end."""
        failures = 0
        while True:
            await asyncio.sleep(self._plan.retry_s if failures else self._plan.interval_s)
            served = self._state.admitted
            if self._state.in_flight or self._state.draining:
                continue
            try:
                async with asyncio.timeout(self._plan.timeout_s):
                    await self.prove()
            except Exception as error:  # of the models in this process too: torch has a tree of its own
                if self._state.admitted != served:
                    continue  # something came meanwhile
                failures += 1
                what = self._words(error)
                unforeseen = None if isinstance(error, StepAudioError | TimeoutError) else error
                log.warning("canary %d of %d failed: %s", failures, FAILURES, what, exc_info=unforeseen)
                self._state.load(what, reason=CanaryFailed.reason)
                if failures == FAILURES and not failed.done():
                    failed.set_result(error if isinstance(error, StepAudioError) else CanaryFailed(what))
                    return
            else:
                if failures:
                    self._state.become_ready()
                failures = 0

    def _words(self, error: Exception) -> str:
        if isinstance(error, StepAudioError):
            return str(error)
        if isinstance(error, TimeoutError):
            return str(error) or f"no answer in {self._plan.timeout_s:g} s"
        return f"{type(error).__name__}: {error}"


def check_ids(ids: Ids, *, length: int, vocabulary: int) -> Ids:
    """`ids`; raises OutputError unless they are `length` ids of the vocabulary."""
    if len(ids) != length or not all(0 <= id_ < vocabulary for id_ in ids):
        raise OutputError(f"the canary was answered with the ids {list(ids[:16])}")
    return ids
