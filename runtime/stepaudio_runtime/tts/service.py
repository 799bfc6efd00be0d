"""The TTS pod: `POST /v1/speech` and `GET /v1/voices` in front of a Speaker."""

import asyncio
from collections.abc import Awaitable, Callable

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route as HttpRoute
from starlette.types import ASGIApp

from stepaudio_runtime.contract import (
    HEADER_CODES,
    HEADER_SAMPLE_RATE,
    SPEECH_RATE,
    TYPE_L16,
    Route,
    VoiceList,
)
from stepaudio_runtime.errors import StepAudioError, Unavailable
from stepaudio_runtime.health.answers import ERROR_HANDLERS
from stepaudio_runtime.health.metrics import PodMetrics
from stepaudio_runtime.health.routes import Admission, health_routes
from stepaudio_runtime.health.state import PodState
from stepaudio_runtime.service.body import json_object, read_body
from stepaudio_runtime.service.disconnect import ClientGone, run_while_connected
from stepaudio_runtime.service.engine import EngineFailed
from stepaudio_runtime.settings import TtsSettings
from stepaudio_runtime.tts.decoder import pcm16
from stepaudio_runtime.tts.request import parse_speech
from stepaudio_runtime.tts.speaker import Speaker

MAX_BODY_BYTES = 1 << 20
WATCH_S = 1.0  # between looks at the engine


class TtsService:
    """Loads a Speaker by `load` and ends with its engine."""

    def __init__(
        self, state: PodState, load: Callable[[PodState], Awaitable[Speaker]], settings: TtsSettings
    ) -> None:
        self.state = state
        self.settings = settings
        self.speaker: Speaker | None = None
        self.failed: asyncio.Future[StepAudioError] = asyncio.get_running_loop().create_future()
        self._load = load
        self._watch: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Load the models, then say something."""
        self.speaker = await self._load(self.state)
        self.state.load("the canary is running")
        await self.speaker.canary()
        self._watch = asyncio.create_task(self._watch_engine(self.speaker))

    async def stop(self) -> None:
        """End the engine."""
        if self._watch is not None:
            self._watch.cancel()
        if self.speaker is not None:
            self.speaker.lm.close()

    def loaded(self) -> Speaker:
        """The speaker; raises Unavailable before there is one."""
        if self.speaker is None:
            raise Unavailable("the models are loading")
        return self.speaker

    async def _watch_engine(self, speaker: Speaker) -> None:
        while not speaker.lm.dead:  # noqa: ASYNC110 - vLLM has no event for it
            await asyncio.sleep(WATCH_S)
        if not self.failed.done():
            self.failed.set_result(EngineFailed("vLLM's engine process has died; the pod's log has the rest"))


def tts_app(service: TtsService) -> ASGIApp:
    """The pod's application."""
    state = service.state
    metrics = PodMetrics(state)

    async def speech(request: Request) -> Response:
        speaker = service.loaded()
        try:
            body = json_object(await read_body(request, MAX_BODY_BYTES))
            asked = parse_speech(body, service.settings)
            spoken = await run_while_connected(request.receive, speaker.speak(asked))
        except ClientGone:
            return Response(status_code=499)
        headers = {HEADER_SAMPLE_RATE: str(SPEECH_RATE), HEADER_CODES: str(spoken.codes)}
        media_type = f"{TYPE_L16}; rate={SPEECH_RATE}; channels=1"
        return Response(pcm16(spoken.wave), headers=headers, media_type=media_type)

    async def voices(_request: Request) -> Response:
        answer: VoiceList = {"data": [{"id": name, "name": name} for name in service.loaded().voices.names]}
        return JSONResponse(answer)

    app = Starlette(
        routes=[
            *health_routes(state, metrics),
            HttpRoute(Route.SPEECH, speech, methods=["POST"]),
            HttpRoute(Route.VOICES, voices),
        ],
        exception_handlers=ERROR_HANDLERS,
    )
    return Admission(app, state, metrics, frozenset({Route.SPEECH}))
