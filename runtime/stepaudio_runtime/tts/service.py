"""The TTS pod: `POST /v1/speech` and `GET /v1/voices` in front of a Speaker."""

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable, MutableMapping
from contextlib import aclosing
from typing import Any

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route as HttpRoute
from starlette.types import ASGIApp, Receive, Scope, Send

from stepaudio_runtime.audio.wave import to_pcm16
from stepaudio_runtime.bodies import VoiceList
from stepaudio_runtime.contract import HEADER_CREATED_VOICE, HEADER_SAMPLE_RATE, SPEECH_RATE, TYPE_L16, Route
from stepaudio_runtime.errors import OutputError, StepAudioError, Unavailable
from stepaudio_runtime.health.answers import ERROR_HANDLERS
from stepaudio_runtime.health.canary import Canary, CanaryPlan
from stepaudio_runtime.health.heartbeat import follow_steps
from stepaudio_runtime.health.metrics import PodMetrics
from stepaudio_runtime.health.routes import Admission, health_routes
from stepaudio_runtime.health.state import PodState
from stepaudio_runtime.service.body import json_object, read_body
from stepaudio_runtime.service.disconnect import ClientGone, run_while_connected
from stepaudio_runtime.service.engine import EngineFailed
from stepaudio_runtime.service.faults import end_of
from stepaudio_runtime.settings import TtsSettings
from stepaudio_runtime.tts.metrics import SpeechMetrics
from stepaudio_runtime.tts.request import Speech, parse_speech
from stepaudio_runtime.tts.speaker import Speaker

log = logging.getLogger(__name__)

MAX_BODY_BYTES = 1 << 20
WATCH_S = 1.0  # between looks at the engine
SEND_TIMEOUT_S = 60.0  # a client that takes nothing for so long is dropped

HEADERS = [
    (b"content-type", f"{TYPE_L16}; rate={SPEECH_RATE}; channels=1".encode()),
    (HEADER_SAMPLE_RATE.lower().encode(), str(SPEECH_RATE).encode()),
]
HEADERS_OF_CREATED = [*HEADERS, (HEADER_CREATED_VOICE.lower().encode(), b"1")]


class TtsService:
    """Loads a Speaker by `load` and ends with its engine."""

    def __init__(
        self,
        state: PodState,
        load: Callable[[SpeechMetrics], Awaitable[Speaker]],
        settings: TtsSettings,
        canary: CanaryPlan,
    ) -> None:
        self.state = state
        self.metrics = PodMetrics(state)
        self.settings = settings
        self.speaker: Speaker | None = None
        self.failed: asyncio.Future[StepAudioError] = asyncio.get_running_loop().create_future()
        self._load = load
        self._canary = Canary(state, lambda: self.loaded().canary(), canary)
        self._tasks: list[asyncio.Task[None]] = []

    async def start(self) -> None:
        """Load the models, then say something."""
        self.speaker = await self._load(SpeechMetrics(self.metrics.registry, self.state.lately))
        running = asyncio.create_task(self.speaker.scheduler.run())
        self._tasks.append(running)
        self.state.load("the canary is running")
        await self._canary.prove()
        steps = follow_steps(self.state, self._series, self.state.stall_timeout_s)
        for work in (self._watch_engine(self.speaker, running), steps, self._canary.run(self.failed)):
            self._tasks.append(asyncio.create_task(work))

    async def stop(self) -> None:
        """End the engine."""
        for task in self._tasks:
            task.cancel()
        if self.speaker is not None:
            self.speaker.lm.close()

    def loaded(self) -> Speaker:
        """The speaker; raises Unavailable before there is one."""
        if self.speaker is None:
            raise Unavailable("the models are loading")
        return self.speaker

    async def _series(self) -> bytes:
        return self.loaded().lm.series()

    async def _watch_engine(self, speaker: Speaker, running: asyncio.Task[None]) -> None:
        while not speaker.lm.dead and not running.done():
            await asyncio.wait({running}, timeout=WATCH_S)  # vLLM has no event for its own end
        if running.done():
            error = end_of(running, "the loop that makes speech")
        else:
            line = speaker.lm.heard.last_error()
            said = f": {line}" if line else ""
            error = EngineFailed(f"vLLM's engine process has died{said}; the pod's log has the rest")
        if not self.failed.done():
            self.failed.set_result(error)


class SpeechEndpoint:
    """ASGI endpoint of one utterance: the status goes out with its first samples, each hop as it is made."""

    def __init__(self, service: TtsService) -> None:
        self._service = service

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one POST."""
        speaker = self._service.loaded()
        with contextlib.suppress(ClientGone):
            body = json_object(await read_body(Request(scope, receive), MAX_BODY_BYTES))
            speech = parse_speech(body, self._service.settings)
            await run_while_connected(receive, self._answer(speaker, speech, send))

    async def _answer(self, speaker: Speaker, speech: Speech, send: Send) -> None:
        begun = False
        voice = await speaker.voice(speech)
        headers = HEADERS_OF_CREATED if voice.created else HEADERS
        async with aclosing(speaker.speak(speech, voice)) as waves:
            try:
                async for wave in waves:
                    if not begun:
                        begun = True
                        start = {"type": "http.response.start", "status": 200, "headers": headers}
                        await self._send(send, start)
                    body = {"type": "http.response.body", "body": to_pcm16(wave).tobytes(), "more_body": True}
                    await self._send(send, body)
            except StepAudioError as error:
                if not begun:
                    raise
                # The status is out: only a body that breaks off can tell that this is not the end.
                log.warning("an utterance broke off: %s", error)
                return
        if not begun:
            raise OutputError("there is no sound in what the models made")
        await self._send(send, {"type": "http.response.body", "body": b""})

    async def _send(self, send: Send, message: MutableMapping[str, Any]) -> None:
        """Send, and count it as a sign of life; a client that takes nothing for long is as good as gone."""
        try:
            async with asyncio.timeout(SEND_TIMEOUT_S):
                await send(message)
        except TimeoutError:
            log.info("a client took nothing for %g s and was dropped", SEND_TIMEOUT_S)
            raise ClientGone from None
        self._service.state.beat()


def tts_app(service: TtsService) -> ASGIApp:
    """The pod's application."""
    state = service.state

    async def engine_series() -> bytes:
        return service.speaker.lm.series() if service.speaker is not None else b""

    async def voices(_request: Request) -> Response:
        names = service.loaded().voices.built_in.names
        answer: VoiceList = {"data": [{"id": name, "name": name} for name in names]}
        return JSONResponse(answer)

    app = Starlette(
        routes=[
            *health_routes(state, service.metrics, engine_series),
            HttpRoute(Route.SPEECH, SpeechEndpoint(service), methods=["POST"]),
            HttpRoute(Route.VOICES, voices),
        ],
        exception_handlers=ERROR_HANDLERS,
    )
    return Admission(app, state, service.metrics, frozenset({Route.SPEECH}))
