"""Health routes and admission, as ASGI pieces that every pod's application is wrapped in.

Only POST requests and WebSockets are work: they pass admission, count as in flight until their last byte
and appear in the request metrics. Everything else (health, lists, files) is always answered.
"""

import time
from collections.abc import Awaitable, Callable

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route as HttpRoute
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from stepaudio_runtime.contract import Route
from stepaudio_runtime.errors import Overloaded, Unavailable
from stepaudio_runtime.health.answers import error_response
from stepaudio_runtime.health.metrics import PodMetrics
from stepaudio_runtime.health.state import PodState

METRICS_TYPE = "text/plain; version=0.0.4; charset=utf-8"

ExtraMetrics = Callable[[], Awaitable[bytes]]


def health_routes(
    state: PodState, metrics: PodMetrics, extra_metrics: ExtraMetrics | None = None
) -> list[HttpRoute]:
    """`/healthz`, `/readyz`, `/status` and `/metrics`; `extra_metrics` adds another exposition text."""

    async def healthz(_request: Request) -> Response:
        trouble = state.unhealthy()
        return JSONResponse(trouble, 503) if trouble else JSONResponse({"status": "ok"})

    async def readyz(_request: Request) -> Response:
        return JSONResponse({"status": "ok"}) if state.ready else JSONResponse(state.not_ready(), 503)

    async def status(_request: Request) -> Response:
        return JSONResponse(state.status())

    async def metrics_text(_request: Request) -> Response:
        text = metrics.text()
        if extra_metrics is not None:
            text += await extra_metrics()
        return Response(text, media_type=METRICS_TYPE)

    return [
        HttpRoute(Route.HEALTHZ, healthz),
        HttpRoute(Route.READYZ, readyz),
        HttpRoute(Route.STATUS, status),
        HttpRoute(Route.METRICS, metrics_text),
    ]


class Admission:
    """ASGI middleware: admits work by the pod's state and measures it.

    `paths` are the routes named in metrics; others are counted as `other`, so that a scanner cannot
    blow up the number of series.
    """

    def __init__(self, app: ASGIApp, state: PodState, metrics: PodMetrics, paths: frozenset[str]) -> None:
        self._app = app
        self._state = state
        self._metrics = metrics
        self._paths = paths

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection."""
        is_work = scope["type"] == "websocket" or (scope["type"] == "http" and scope["method"] == "POST")
        if not is_work:
            await self._app(scope, receive, send)
            return
        route = scope["path"] if scope["path"] in self._paths else "other"
        started = time.monotonic()
        status = 101 if scope["type"] == "websocket" else 499  # 499: the client went before an answer

        async def send_noting_status(message: Message) -> None:
            nonlocal status
            # A websocket that is refused before it is accepted is answered by HTTP too (ASGI's extension).
            if message["type"] in ("http.response.start", "websocket.http.response.start"):
                status = message["status"]
            with self._state.at_client():
                await send(message)

        whole = False

        async def receive_body() -> Message:
            nonlocal whole
            if whole or scope["type"] == "websocket":
                return await receive()
            with self._state.at_client():
                message = await receive()
            whole = not message.get("more_body", False)
            return message

        try:
            with self._state.admit():
                await self._app(scope, receive_body, send_noting_status)
        except (Overloaded, Unavailable) as refusal:
            await error_response(refusal)(scope, receive, send_noting_status)
        finally:
            self._metrics.requests.labels(route, str(status)).inc()
            self._metrics.seconds.labels(route).observe(time.monotonic() - started)
