"""The gateway's application, put together from its parts; clients and clock are given."""

import time
from collections.abc import Awaitable, Callable, Mapping

import httpx
from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse, Response
from pydantic import BaseModel
from starlette.exceptions import HTTPException
from starlette.routing import Route as HttpRoute
from starlette.types import ASGIApp

from stepaudio_runtime.contract import Component, Route
from stepaudio_runtime.errors import StepAudioError
from stepaudio_runtime.gateway.catalogue import Catalogue
from stepaudio_runtime.gateway.chat_route import ChatRoute
from stepaudio_runtime.gateway.declared_voices import DeclaredVoices
from stepaudio_runtime.gateway.engine import Engine
from stepaudio_runtime.gateway.envelope import Envelope
from stepaudio_runtime.gateway.errors import handle_error
from stepaudio_runtime.gateway.figures import Figures
from stepaudio_runtime.gateway.keys import ApiKeys
from stepaudio_runtime.gateway.limits import Bounds, Limits
from stepaudio_runtime.gateway.media import Media
from stepaudio_runtime.gateway.metrics import GatewayMetrics
from stepaudio_runtime.gateway.own_word import says_ready
from stepaudio_runtime.gateway.paths import OneRelease
from stepaudio_runtime.gateway.routing import Balancer, Endpoint, Routing
from stepaudio_runtime.gateway.schemas import (
    ChatRequest,
    SpeechBody,
    TokensForm,
    TranscriptionForm,
    VoiceForm,
)
from stepaudio_runtime.gateway.settings import GatewaySettings
from stepaudio_runtime.gateway.speech_route import SpeechRoute
from stepaudio_runtime.gateway.speech_stream_route import SpeechStreamRoute, StreamBounds
from stepaudio_runtime.gateway.tokens_route import TokensRoute
from stepaudio_runtime.gateway.transcriber import Transcriber
from stepaudio_runtime.gateway.transcription_route import TranscriptionRoute
from stepaudio_runtime.gateway.upstream import Upstreams
from stepaudio_runtime.gateway.voice_maker import VoiceMaker
from stepaudio_runtime.gateway.voices_route import VoicesRoute
from stepaudio_runtime.gateway.web_page import page_routes
from stepaudio_runtime.health.metrics import PodMetrics
from stepaudio_runtime.health.routes import Admission, health_routes
from stepaudio_runtime.health.state import PodState
from stepaudio_runtime.voices.store import open_store

JSON, FORM = "application/json", "multipart/form-data"
ROUTES = frozenset(
    {
        Route.CHAT_COMPLETIONS,
        Route.AUDIO_SPEECH,
        Route.AUDIO_SPEECH_STREAM,
        Route.AUDIO_TOKENS,
        Route.AUDIO_TRANSCRIPTIONS,
        Route.MODELS,
        Route.VOICES,
    }
)
"""Routes that are named in metrics."""


_Serve = Callable[[Request], Awaitable[Response]]


class Gateway:
    """One gateway's parts. `app` serves; `routing_changed` is told about every change of the routing."""

    def __init__(
        self,
        settings: GatewaySettings,
        state: PodState,
        client: httpx.AsyncClient,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.settings = settings
        self.state = state
        self.balancer = Balancer()
        self.keys = ApiKeys(settings.api_keys_dir)
        self._pod_metrics = PodMetrics(state)
        self._metrics = GatewayMetrics(self._pod_metrics)
        self._client = client
        self.media = Media(
            max_audio_s=settings.max_audio_s, max_bytes=settings.max_body, threads=settings.decode_threads
        )
        self._figures = Figures()
        self._upstreams = Upstreams(client, self.balancer, self._metrics, self._figures, clock=clock)
        state.waiting = lambda: self.balancer.waiting(now=clock())
        self.engine = Engine(self._upstreams, self.media, self._metrics, watermark=settings.watermark)
        self.store = open_store(settings.voices_url) if settings.voices_url else None
        self.catalogue = Catalogue(
            self.balancer,
            self.engine,
            int(time.time()),
            model_aliases=settings.model_aliases,
            voice_aliases=settings.voice_aliases,
            store=self.store,
        )
        transcriber = Transcriber(
            self.engine, prompt=settings.transcription_prompt, max_new_tokens=settings.max_new_tokens
        )
        maker = VoiceMaker(self.media, self.catalogue, transcriber, now=time.time)
        self.declared = DeclaredVoices(self.store, maker) if self.store is not None else None
        self.app = self._layers(self._application(transcriber, maker))

    def routing_changed(self, routing: Routing, endpoints: Mapping[str, tuple[Endpoint, ...]]) -> None:
        """Serve by this routing from now on."""
        self.balancer.update(routing, endpoints)
        self._upstreams.routing_changed()
        self._figures.keep(
            {
                (p, r)
                for p, route in routing.pools.items()
                for r, weight in route.revisions.items()
                if weight > 0
            }
        )
        self._tell_generation()
        self._metrics.generation.set(routing.generation)
        for pool in Component:
            if pool is not Component.GATEWAY:
                self._metrics.endpoints.labels(pool).set(len(self.balancer.candidates(pool)))

    async def pod_says_ready(self, endpoint: Endpoint) -> bool:
        """What a pod says of itself."""
        return await says_ready(self._client, endpoint)

    def _tell_generation(self) -> None:
        """What the operator waits for: nothing older than this is on its way here."""
        self.state.routing_generation = self.balancer.generation

    async def close(self) -> None:
        """Close connections and threads."""
        await self.keys.stop()
        await self._client.aclose()
        self.media.close()

    def _layers(self, app: ASGIApp) -> ASGIApp:
        """From the outside: id, key and log; admission and drain; bounds; one release; the routes."""
        settings = self.settings
        bounds = Bounds(settings.max_body, settings.body_budget, settings.request_timeout_s)
        admitted = Admission(
            Limits(OneRelease(app, self.balancer, self._tell_generation), bounds),
            self.state,
            self._pod_metrics,
            ROUTES,
        )
        return Envelope(admitted, self.state, self.keys, self._metrics, ROUTES)

    async def _show_figures(self, _request: Request) -> Response:
        return JSONResponse(self._figures.as_json())

    async def _show_declared(self, _request: Request) -> Response:
        return JSONResponse(self.declared.as_json() if self.declared is not None else {"voices": {}})

    def _application(self, transcriber: Transcriber, maker: VoiceMaker) -> FastAPI:
        settings, engine, media, catalogue = self.settings, self.engine, self.media, self.catalogue
        app = FastAPI(
            title="Step-Audio",
            docs_url=None,  # its page would be fetched from elsewhere
            redoc_url=None,
            routes=[
                *health_routes(self.state, self._pod_metrics),
                HttpRoute(Route.FIGURES, self._show_figures),
                HttpRoute(Route.DECLARED_VOICES, self._show_declared),
                *(page_routes() if settings.page else ()),
            ],
            exception_handlers={
                StepAudioError: handle_error,
                HTTPException: handle_error,
                Exception: handle_error,
            },
        )
        voices = VoicesRoute(self.store, catalogue, maker, max_voices=settings.max_voices)
        reading = settings.controls
        chat = ChatRoute(engine, media, catalogue, max_new_tokens=settings.max_new_tokens, reading=reading)
        speech = SpeechRoute(engine, media, catalogue, max_chars=settings.max_input_chars, reading=reading)
        posts: tuple[tuple[str, _Serve, str, type[BaseModel]], ...] = (
            (Route.CHAT_COMPLETIONS, chat.__call__, JSON, ChatRequest),
            (Route.AUDIO_SPEECH, speech.__call__, JSON, SpeechBody),
            (Route.AUDIO_TOKENS, TokensRoute(engine, media, catalogue).__call__, FORM, TokensForm),
            (
                Route.AUDIO_TRANSCRIPTIONS,
                TranscriptionRoute(transcriber, media, catalogue).__call__,
                FORM,
                TranscriptionForm,
            ),
            (Route.VOICES, voices.create, FORM, VoiceForm),
        )
        for path, serve, media_type, schema in posts:
            name = path.removeprefix("/v1/").replace("/", "_")
            app.add_api_route(
                path, serve, methods=["POST"], name=name, openapi_extra=_body(media_type, schema)
            )
        bounds = StreamBounds(settings.max_input_chars, settings.stream_idle_s, settings.request_timeout_s)
        app.add_api_websocket_route(
            Route.AUDIO_SPEECH_STREAM,
            SpeechStreamRoute(engine, media, catalogue, bounds=bounds, reading=reading),
        )

        @app.get(Route.MODELS)
        async def models() -> Response:
            return JSONResponse({"object": "list", "data": catalogue.models()})

        @app.get(Route.MODELS + "/{model:path}")
        async def model(model: str) -> Response:
            return JSONResponse(catalogue.model(model))

        @app.get(Route.VOICES)
        async def list_voices() -> Response:
            return JSONResponse({"object": "list", "data": await catalogue.voices()})

        @app.get(Route.VOICES + "/{name}")
        async def show_voice(name: str) -> Response:
            return await voices.show(name)

        @app.delete(Route.VOICES + "/{name}")
        async def delete_voice(name: str) -> Response:
            return await voices.delete(name)

        return app


def _body(media_type: str, schema: type[BaseModel]) -> dict[str, object]:
    """The body of a route that reads it itself, for /openapi.json."""
    return {
        "requestBody": {"required": True, "content": {media_type: {"schema": schema.model_json_schema()}}}
    }
