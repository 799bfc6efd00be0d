"""The tokenizer pod: raw samples in, audio codes out, whole or as a stream.

`POST /v1/audio/tokens?rate=R&trim=0|1&gain=G` with little-endian float32 mono samples, and the WebSocket
`/v1/audio/tokens/stream`. The models run in one worker thread, for all requests and streams together; the
event loop only moves bytes.
"""

import asyncio
import math
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from prometheus_client import Gauge
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route as HttpRoute
from starlette.routing import WebSocketRoute
from starlette.types import ASGIApp
from starlette.websockets import WebSocket

from stepaudio_runtime.bodies import AudioTokens
from stepaudio_runtime.codec.layout import interleave
from stepaudio_runtime.contract import AUDIO_CODES, MAX_RATE, MIN_RATE, Route
from stepaudio_runtime.errors import (
    AudioError,
    InputError,
    OutputError,
    Overloaded,
    StepAudioError,
    Unavailable,
)
from stepaudio_runtime.health.answers import ERROR_HANDLERS, error_response
from stepaudio_runtime.health.canary import Canary, CanaryPlan, Ids, check_ids
from stepaudio_runtime.health.metrics import PodMetrics
from stepaudio_runtime.health.routes import Admission, health_routes
from stepaudio_runtime.health.state import PodState
from stepaudio_runtime.service.body import read_body
from stepaudio_runtime.service.disconnect import ClientGone, run_while_connected
from stepaudio_runtime.service.faults import end_of
from stepaudio_runtime.service.worker import Worker
from stepaudio_runtime.settings import TokenizerSettings
from stepaudio_runtime.tokenizer.batcher import Batcher
from stepaudio_runtime.tokenizer.connection import Connection
from stepaudio_runtime.tokenizer.dual import DualTokenizer, preprocess
from stepaudio_runtime.tokenizer.session import MAX_GAIN, MIN_GAIN, Bounds, checked
from stepaudio_runtime.tokenizer.windows import Windows

BYTES_PER_SAMPLE = 4
CANARY_RATE = 16_000  # Hz
CANARY_S = 1.2


class TokenizerService:
    """Loads the models by `load` (blocking) and runs them in one thread."""

    def __init__(
        self,
        state: PodState,
        load: Callable[[PodState], DualTokenizer],
        settings: TokenizerSettings,
        canary: CanaryPlan,
    ) -> None:
        self.state = state
        self.settings = settings
        self.failed: asyncio.Future[StepAudioError] = asyncio.get_running_loop().create_future()
        self.sessions = 0
        self._load = load
        self._worker = Worker("tokenizer", on_done=state.beat)
        self._batcher: Batcher | None = None
        self._tokenizer: DualTokenizer | None = None
        self._canary = Canary(state, self._ask, canary)
        self._asking: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Load, then encode a known sound."""
        self.state.load("loading the tokenizers")
        self._tokenizer = tokenizer = await self._worker.run(lambda: self._load(self.state))
        self.state.load("the canary is running")
        await self._canary.prove()
        self._asking = asyncio.create_task(self._canary.run(self.failed))
        self._batcher = Batcher(tokenizer, self._worker, max_audio_s=self.settings.max_held_audio_s)
        self._batcher.running.add_done_callback(self._ended)

    async def stop(self) -> None:
        """End the batching loop; the worker is a daemon thread."""
        if self._asking is not None:
            self._asking.cancel()
        if self._batcher is not None:
            await self._batcher.stop()

    def _ended(self, loop: asyncio.Task[None]) -> None:
        if not loop.cancelled() and not self.failed.done():
            self.failed.set_result(end_of(loop, "the loop that batches audio"))

    async def _ask(self) -> Ids:
        """The codes of a known sound."""
        tokenizer = self._tokenizer
        if tokenizer is None:
            raise Unavailable("the tokenizers are loading")
        tokens = await self._worker.run(lambda: tokenizer.encode(canary_wave(), CANARY_RATE))
        if not tokens.codes:
            raise OutputError("the canary gave no codes")
        return check_ids(tuple(tokens.codes), length=len(tokens.codes), vocabulary=AUDIO_CODES)

    @property
    def batcher(self) -> Batcher:
        """The loop; raises Unavailable before there is one."""
        if self._batcher is None:
            raise Unavailable("the tokenizers are loading")
        return self._batcher

    async def tokens(
        self, wave: NDArray[np.float32], rate: int, *, trim: bool = False, gain: float | None = None
    ) -> AudioTokens:
        """Codes of `wave`; raises AudioError where it is too short for one."""
        batcher = self.batcher
        tokenizer, seconds = batcher.tokenizer, len(wave) / rate
        found = await batcher.run(
            lambda: tokenizer.work(preprocess(wave, rate, trim_silence=trim, gain=gain)), urgent=False
        )
        codes = interleave(found.linguistic.ids.tolist(), found.semantic.ids.tolist())
        if not codes:
            raise AudioError(
                f"{seconds:.3f} s of audio are too short for a code", param="audio", code="audio_too_short"
            )
        return {
            "codes": codes,
            "linguistic": len(found.linguistic),
            "semantic": len(found.semantic),
            "duration_s": seconds,
        }

    async def stream(self, websocket: WebSocket) -> None:
        """Serve one stream; raises Overloaded, before it is accepted, where too many are open."""
        batcher, settings = self.batcher, self.settings
        if self.sessions >= settings.max_sessions:
            raise Overloaded(f"{self.sessions} streams are open here, the bound is {settings.max_sessions}")
        windows = Windows.seconds(settings.semantic_window_s, settings.semantic_hop_s)
        bounds = Bounds(settings.session_idle_s, settings.max_stream_s, windows)
        self.sessions += 1
        try:
            await websocket.accept()
            await Connection(websocket, batcher, bounds, at_client=self.state.at_client).serve()
        finally:
            self.sessions -= 1


def canary_wave() -> NDArray[np.float32]:
    """A sound with harmonics, a beat and a fade, so that no stage sees a constant."""
    t = np.arange(int(CANARY_S * CANARY_RATE)) / CANARY_RATE
    tone = sum(np.sin(2 * math.pi * 140 * k * t + k) / k for k in range(1, 9))
    return np.asarray(0.2 * tone * (1 + np.sin(2 * math.pi * 3 * t)), dtype=np.float32)


WORK = frozenset({Route.AUDIO_TOKENS, Route.AUDIO_TOKENS_STREAM})


def tokenizer_app(service: TokenizerService, metrics: PodMetrics | None = None) -> ASGIApp:
    """The application of a tokenizer pod; with the `metrics` of another pod, what that pod serves beside its
    own.
    """
    state = service.state
    metrics = metrics or PodMetrics(state)

    Gauge("stepaudio_tokenizer_streams", "Token streams open.", registry=metrics.registry).set_function(
        lambda: service.sessions
    )

    async def audio_tokens(request: Request) -> Response:
        rate, gain = _rate(request), _gain(request)
        trim = request.query_params.get("trim", "0") in ("1", "true")
        limit = math.ceil(service.settings.max_audio_s * rate) * BYTES_PER_SAMPLE
        length = request.headers.get("Content-Length", "")
        size = min(int(length), limit) if length.isdigit() and len(length) < 16 else limit
        try:
            with service.batcher.room(size / BYTES_PER_SAMPLE / rate):
                body = await read_body(request, limit, what="audio")
                wave = await asyncio.to_thread(samples, body)
                work = service.tokens(wave, rate, trim=trim, gain=gain)
                return JSONResponse(await run_while_connected(request.receive, work))
        except ClientGone:
            return Response(status_code=499)
        except InputError as error:
            if error.code != "too_large":
                raise
            raise AudioError(
                f"the audio is longer than {service.settings.max_audio_s:g} s",
                param="audio",
                code="audio_too_long",
            ) from error

    async def stream(websocket: WebSocket) -> None:
        try:
            await service.stream(websocket)
        except (Overloaded, Unavailable) as refusal:
            await error_response(refusal)(websocket.scope, websocket.receive, websocket.send)

    app = Starlette(
        routes=[
            *health_routes(state, metrics),
            HttpRoute(Route.AUDIO_TOKENS, audio_tokens, methods=["POST"]),
            WebSocketRoute(Route.AUDIO_TOKENS_STREAM, stream),
        ],
        exception_handlers=ERROR_HANDLERS,
    )
    return Admission(app, state, metrics, WORK)


def samples(body: bytes) -> NDArray[np.float32]:
    """Samples (N,) of a body; raises AudioError unless it is finite float32 and not empty."""
    if not body:
        raise AudioError("the audio is empty", param="audio", code="audio_empty")
    if len(body) % BYTES_PER_SAMPLE:
        raise AudioError(
            f"{len(body)} bytes are no whole float32 samples", param="audio", code="audio_invalid"
        )
    return checked(np.frombuffer(body, dtype="<f4").astype(np.float32))


def _rate(request: Request) -> int:
    text = request.query_params.get("rate", "")
    rate = int(text) if text.isascii() and text.isdigit() and len(text) < 9 else 0
    if not MIN_RATE <= rate <= MAX_RATE:
        raise AudioError(
            f"rate={text!r} is not a sampling rate from {MIN_RATE} to {MAX_RATE} Hz",
            param="rate",
            code="rate_invalid",
        )
    return rate


def _gain(request: Request) -> float | None:
    text = request.query_params.get("gain")
    if text is None:
        return None
    try:
        gain = float(text[:32])
    except ValueError:
        gain = math.nan
    if not MIN_GAIN <= gain <= MAX_GAIN:
        raise AudioError(
            f"gain={text[:32]!r} is not a number from {MIN_GAIN:g} to {MAX_GAIN:g}",
            param="gain",
            code="gain_invalid",
        )
    return gain
