"""Asks pods for their `GET /status`, and gateways for their figures: bounded, and only while they are needed.

A reconcile says what it wants to know (`want`), again and again, level-based like everything else; a pod is
asked until it serves the routing generation that is waited for, then left alone, unless its figures, its
progress or its work are wanted: then again and again, as long as they are. A pod with GPUs that serves is
asked every few minutes. Only a change of an answer wakes whoever asked. Where pods cannot be reached (the
operator runs outside the cluster), the answer is `None` and the pauses grow; nothing else depends on it.

Gateways come first, and pods that load take at most half of the requests in flight: many that do not answer
must not keep a deployment from becoming Ready.
"""

import asyncio
import functools
import json
import logging
import operator
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import aiohttp

from stepaudio_operator import names
from stepaudio_operator.jobs import percent_step
from stepaudio_operator.kube.cache import Key
from stepaudio_operator.records import (
    FiguresOf,
    GpuReading,
    VoiceSaid,
    Work,
    figures_of,
    gpus_of,
    size,
    voice_of,
    waiting_of,
    work_of,
)
from stepaudio_operator.settings import PollSettings
from stepaudio_operator.voices import is_final

logger = logging.getLogger(__name__)

ANSWER_BYTES = 65_536
"""Of an answer, at most: a pod that says more, however it is said, counts as silent."""
ROUND_S = 0.01
"""Between two looks at what is due (s): thousands of pods that answer must not be looked through for each."""
GPU_STEPS = 40
"""Of a GPU's memory: a reading that is in another step than the one before is news."""


@dataclass(frozen=True, slots=True)
class Target:
    """A pod to ask, by its uid, until it serves `generation` (None: once), or for `figures` without end."""

    uid: str
    host: str
    port: int
    generation: int | None
    figures: bool = False
    progress: bool = False
    """Asked again and again: how far it is with its bytes or samples."""
    gpus: bool = False
    """Asked now and then, for ever: what its GPUs hold."""
    voice: tuple[str, str] | None = None
    """Of a gateway: asked until it says what has become of the voice of this uid, as of this digest."""
    work: bool = False
    """Asked again and again: what it has to do."""

    def __add__(self, other: "Target") -> "Target":
        """What two who ask the same pod want to know together; of two generations, the newer."""
        generations = [g for g in (self.generation, other.generation) if g is not None]
        return replace(
            self,
            generation=max(generations, default=None),
            figures=self.figures or other.figures,
            progress=self.progress or other.progress,
            gpus=self.gpus or other.gpus,
            voice=self.voice or other.voice,
            work=self.work or other.work,
        )


@dataclass(frozen=True, slots=True)
class Answer:
    """What a pod said last; all None where it did not answer."""

    phase: str | None = None
    in_flight: int | None = None
    routing_generation: int | None = None
    figures: FiguresOf | None = None
    """Of a gateway that was asked for them."""
    bytes_loaded: int | None = None
    bytes_total: int | None = None
    reason: str | None = None
    message: str | None = None
    eta_s: int | None = None
    """Seconds that are left of a download, where the pod knows."""
    gpus: tuple[GpuReading, ...] = ()
    voice: VoiceSaid | None = None
    """Of a gateway that was asked for it."""
    work: Work | None = None
    waiting: Mapping[str, int] | None = None
    """Of a gateway: pools that were asked for lately while no pod was ready, and the requests it holds."""
    samples_made: int | None = None
    samples_total: int | None = None

    @classmethod
    def from_json(cls, body: Any) -> "Answer":
        """Reads the answer of `/status`; what is missing or of another type is unknown."""
        if not isinstance(body, Mapping):
            return cls()

        def words(name: str) -> str | None:
            return value if isinstance(value := body.get(name), str) else None

        load, samples = (
            part if isinstance(part, Mapping) else {} for part in (body.get("load"), body.get("samples"))
        )
        return cls(
            words("phase"),
            size(body.get("inFlight")),
            size(body.get("routingGeneration")),
            bytes_loaded=size(load.get("bytesLoaded")),
            bytes_total=size(load.get("bytesTotal")),
            reason=words("reason"),
            message=words("message"),
            eta_s=size(load.get("etaSeconds")),
            gpus=gpus_of(body.get("gpus")),
            work=work_of(body),
            waiting=waiting_of(body),
            samples_made=size(samples.get("made")),
            samples_total=size(samples.get("total")),
        )

    def differs(self, other: "Answer | None") -> bool:
        """Whether something that a reconcile looks at has changed: a count in flight only at its end,
        bytes and samples in coarse steps.
        """
        if other is None:
            return True
        return self._shown() != other._shown()

    def _shown(self) -> tuple[Any, ...]:
        loaded = percent_step(self.bytes_loaded or 0, self.bytes_total or 0)
        made = percent_step(self.samples_made or 0, self.samples_total or 0)
        return (
            self.phase,
            self.routing_generation,
            self.in_flight == 0,
            self.figures,
            loaded,
            self.bytes_total,
            self.reason,
            self.voice,
            tuple(gpu.used * GPU_STEPS // gpu.total for gpu in self.gpus),
            frozenset(self.waiting or ()),
            made,
            self.samples_total,
        )


@dataclass(slots=True)
class _Question:
    target: Target
    due: float
    pause: float
    answer: Answer | None = None


class Poller:
    """Keeps the questions and their answers. `wake(key)` is called when an answer changes."""

    def __init__(
        self,
        settings: PollSettings,
        clock: Callable[[], float],
        wake: Callable[[Key], None],
        count: Callable[[str], None] = lambda outcome: None,
    ) -> None:
        self._settings = settings
        self._clock = clock
        self._wake = wake
        self._count = count
        self._questions: dict[str, _Question] = {}
        self._wanted: dict[str, dict[Key, Target]] = {}  # uid -> who asks what
        self._of_key: dict[Key, tuple[str, ...]] = {}
        self._changed = asyncio.Event()

    def want(self, key: Key, targets: list[Target]) -> None:
        """Replaces what is asked on behalf of `key`."""
        before = self._of_key.pop(key, ())
        for uid in before:
            self._wanted[uid].pop(key)
        for target in targets:
            self._wanted.setdefault(target.uid, {})[key] = target
        if targets:
            self._of_key[key] = tuple(target.uid for target in targets)
        for uid in {*before, *self._of_key.get(key, ())}:
            self._put_together(uid)

    def _put_together(self, uid: str) -> None:
        """One question for all who ask a pod: several deployments may wait for one download, a deployment and
        its pools for one gateway.
        """
        wanted = list(self._wanted[uid].values())
        if not wanted:
            del self._wanted[uid]
            self._questions.pop(uid, None)
            return
        target = functools.reduce(operator.add, wanted)
        question = self._questions.get(uid)
        if question is None or question.target != target:
            self._questions[uid] = self._ask_anew(target, question)
            self._changed.set()

    def _ask_anew(self, target: Target, before: _Question | None) -> _Question:
        now, first_s = self._clock(), self._settings.first_s
        if target.gpus and before is not None:
            # The pod has just begun to serve: what it would say of its GPUs now may be older than that.
            return _Question(
                target, now + self._settings.settle_s, first_s if target.work else self._settings.gpus_s
            )
        if target.gpus:  # it mostly has served for long, as when the operator starts
            return _Question(target, now, first_s if target.work else self._settings.settle_s)
        known = before.answer if before is not None else None
        return _Question(target, now, first_s, replace(known, figures=None) if known is not None else None)

    def answer(self, uid: str) -> Answer | None:
        """The last answer; None where the pod has not been asked yet."""
        question = self._questions.get(uid)
        return question.answer if question else None

    async def run(self) -> None:
        """Asks for ever."""
        timeout = aiohttp.ClientTimeout(total=self._settings.total_s, sock_connect=self._settings.connect_s)
        connector = aiohttp.TCPConnector(limit=self._settings.concurrency, force_close=True)
        # Compressed answers are not asked for: what a pod sends is what is read.
        plain = {"Accept-Encoding": "identity"}
        async with aiohttp.ClientSession(
            timeout=timeout, connector=connector, headers=plain, auto_decompress=False
        ) as session:
            running: dict[asyncio.Task[None], _Question] = {}
            try:
                while True:
                    self._changed.clear()
                    wait = self._start_due(session, running)
                    changed = asyncio.create_task(self._wait())
                    ended, _ = await asyncio.wait(
                        {changed, *running}, timeout=wait, return_when=asyncio.FIRST_COMPLETED
                    )
                    changed.cancel()
                    for task in ended - {changed}:
                        del running[task]
                        task.result()
                    await asyncio.sleep(ROUND_S)
            finally:
                for task in running:
                    task.cancel()

    async def _wait(self) -> None:
        await self._changed.wait()

    def _start_due(
        self, session: aiohttp.ClientSession, running: dict[asyncio.Task[None], _Question]
    ) -> float | None:
        """Asks what is due, as far as there is room. Returns the seconds until more is due, where that is not
        told by the end of something that runs.
        """
        now = self._clock()
        asked = {id(question) for question in running.values()}
        open_ = [q for q in self._questions.values() if id(q) not in asked and not _settled(q)]
        room = self._settings.concurrency - len(running)
        patient = max(self._settings.concurrency // 2, 1) - sum(_is_patient(q) for q in running.values())
        for question in sorted((q for q in open_ if q.due <= now), key=lambda q: (_is_patient(q), q.due)):
            if room <= 0 or (_is_patient(question) and patient <= 0):
                break
            room, patient = room - 1, patient - _is_patient(question)
            running[asyncio.create_task(self._ask(session, question))] = question
        return min((q.due - now for q in open_ if q.due > now), default=None)

    async def _ask(self, session: aiohttp.ClientSession, question: _Question) -> None:
        answer = await self._fetch(session, question.target)
        reachable = answer.phase is not None
        self._count("answered" if reachable else "unreachable")
        if self._questions.get(question.target.uid) is not question:
            return  # replaced or no longer wanted meanwhile
        longest = self._settings.last_s if reachable else self._settings.unreachable_s
        if question.target.gpus and not question.target.work:
            longest = self._settings.gpus_s
        question.due = self._clock() + min(question.pause, longest)
        question.pause = min(question.pause * 1.5, longest)
        before, question.answer = question.answer, answer
        if answer.differs(before):
            for key in list(self._wanted.get(question.target.uid, ())):
                self._wake(key)

    async def _fetch(self, session: aiohttp.ClientSession, target: Target) -> Answer:
        answer = Answer.from_json(await self._get(session, target, names.STATUS_PATH))
        if target.voice is not None and answer.phase is not None:
            said = await self._get(session, target, names.DECLARED_VOICES_PATH)
            return replace(answer, voice=voice_of(said, target.voice[0]))
        if not target.figures or answer.phase is None:
            return answer
        seen = await self._get(session, target, names.FIGURES_PATH)
        return replace(answer, figures=figures_of(seen))

    async def _get(self, session: aiohttp.ClientSession, target: Target, path: str) -> Any:
        """The JSON at `path`; None where there is none."""
        host = f"[{target.host}]" if ":" in target.host else target.host
        try:
            async with session.get(f"http://{host}:{target.port}{path}", allow_redirects=False) as response:
                body = bytearray()
                async for chunk in response.content.iter_any():
                    body += chunk
                    if response.status != 200 or len(body) > ANSWER_BYTES:
                        return None
                return json.loads(body)
        except (aiohttp.ClientError, TimeoutError, OSError, ValueError, RecursionError) as error:
            logger.debug("%s of %s: %r", path, target.host, error)
            return None


def _is_patient(question: _Question) -> bool:
    target = question.target
    return target.progress or target.gpus or (target.work and target.generation is None)


def _settled(question: _Question) -> bool:
    target = question.target
    if question.answer is None or target.figures or target.progress or target.gpus or target.work:
        return False
    if target.voice is not None:
        return is_final(target.voice[1], question.answer.voice)
    if target.generation is None:
        return question.answer.phase is not None
    return question.answer.routing_generation == target.generation
