"""The tokenizer pod: raw samples in, audio codes out.

`POST /v1/audio/tokens?rate=R&trim=0|1` with little-endian float32 mono samples. The models run in one worker
thread; the event loop only moves bytes.
"""

import asyncio
import math
from collections.abc import Callable
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route as HttpRoute
from starlette.types import ASGIApp

from stepaudio_runtime.contract import AUDIO_CODES, MAX_RATE, MIN_RATE, AudioTokens, Route
from stepaudio_runtime.errors import AudioError, InputError, OutputError, StepAudioError, Unavailable
from stepaudio_runtime.health.answers import ERROR_HANDLERS
from stepaudio_runtime.health.metrics import PodMetrics
from stepaudio_runtime.health.routes import Admission, health_routes
from stepaudio_runtime.health.state import PodState
from stepaudio_runtime.service.body import read_body
from stepaudio_runtime.service.disconnect import ClientGone, run_while_connected
from stepaudio_runtime.service.worker import Worker
from stepaudio_runtime.settings import TokenizerSettings

BYTES_PER_SAMPLE = 4
CANARY_RATE = 16_000  # Hz
CANARY_S = 1.2


class Encoder(Protocol):
    """The two tokenizers as one function: wave (N,) float32 at `rate` Hz to codes, blocking."""

    def __call__(self, wave: NDArray[np.float32], rate: int, *, trim: bool) -> AudioTokens:
        """Codes of one utterance."""


class TokenizerService:
    """Loads the models by `load` (blocking, returns the encoder) and runs them in one thread."""

    def __init__(
        self, state: PodState, load: Callable[[PodState], Encoder], settings: TokenizerSettings
    ) -> None:
        self.state = state
        self.settings = settings
        self.failed: asyncio.Future[StepAudioError] = asyncio.get_running_loop().create_future()
        self._load = load
        self._worker = Worker("tokenizer", bound=state.max_in_flight, on_done=state.beat)
        self._encode: Encoder | None = None

    async def start(self) -> None:
        """Load, then encode a known sound."""
        self.state.load("loading the tokenizers")
        encode = await self._worker.run(lambda: self._load(self.state))
        self.state.load("the canary is running")
        tokens = await self._worker.run(lambda: encode(canary_wave(), CANARY_RATE, trim=False))
        codes = tokens["codes"]
        if not codes or not all(0 <= code < AUDIO_CODES for code in codes):
            raise OutputError(f"the canary gave {len(codes)} codes, not all of them audio codes")
        self._encode = encode

    async def stop(self) -> None:
        """Nothing to end: the worker is a daemon thread."""

    async def tokens(self, wave: NDArray[np.float32], rate: int, *, trim: bool) -> AudioTokens:
        """Codes of `wave`; raises Overloaded where too many wait."""
        encode = self._encode
        if encode is None:
            raise Unavailable("the tokenizers are loading")
        tokens = await self._worker.run(lambda: encode(wave, rate, trim=trim))
        if not tokens["codes"]:
            raise AudioError(
                f"{tokens['duration_s']:.3f} s of audio are too short for a code",
                param="audio",
                code="audio_too_short",
            )
        return tokens


def canary_wave() -> NDArray[np.float32]:
    """A sound with harmonics, a beat and a fade, so that no stage sees a constant."""
    t = np.arange(int(CANARY_S * CANARY_RATE)) / CANARY_RATE
    tone = sum(np.sin(2 * math.pi * 140 * k * t + k) / k for k in range(1, 9))
    return np.asarray(0.2 * tone * (1 + np.sin(2 * math.pi * 3 * t)), dtype=np.float32)


def tokenizer_app(service: TokenizerService) -> ASGIApp:
    """The pod's application."""
    state = service.state
    metrics = PodMetrics(state)

    async def audio_tokens(request: Request) -> Response:
        rate = _rate(request)
        trim = request.query_params.get("trim", "0") in ("1", "true")
        max_samples = math.ceil(service.settings.max_audio_s * rate)
        try:
            body = await read_body(request, max_samples * BYTES_PER_SAMPLE, what="audio")
            wave = samples(body)
            work = service.tokens(wave, rate, trim=trim)
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

    app = Starlette(
        routes=[
            *health_routes(state, metrics),
            HttpRoute(Route.AUDIO_TOKENS, audio_tokens, methods=["POST"]),
        ],
        exception_handlers=ERROR_HANDLERS,
    )
    return Admission(app, state, metrics, frozenset({Route.AUDIO_TOKENS}))


def samples(body: bytes) -> NDArray[np.float32]:
    """Samples (N,) of a body; raises AudioError unless it is finite float32 and not empty."""
    if not body:
        raise AudioError("the audio is empty", param="audio", code="audio_empty")
    if len(body) % BYTES_PER_SAMPLE:
        raise AudioError(
            f"{len(body)} bytes are no whole float32 samples", param="audio", code="audio_invalid"
        )
    wave = np.frombuffer(body, dtype="<f4").astype(np.float32)
    if not np.isfinite(wave).all():
        raise AudioError("the audio has samples that are not finite", param="audio", code="audio_invalid")
    return wave


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
