"""What stands around every request: its id, the time to its first byte, one log line, the check of its key,
and, where the gateway leaves, the word that its client should connect anew. Outermost of the ASGI layers.
"""

import contextvars
import logging
import re
import time
import uuid

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from stepaudio_runtime.contract import HEADER_REQUEST_ID
from stepaudio_runtime.gateway.errors import ApiError, error_response
from stepaudio_runtime.gateway.keys import ApiKeys
from stepaudio_runtime.gateway.metrics import GatewayMetrics
from stepaudio_runtime.health.state import PodState

log = logging.getLogger(__name__)

request_id: contextvars.ContextVar[str] = contextvars.ContextVar("request_id", default="-")
"""Id of the request that the present task serves; sent on to the pods and written into every log line."""

_ID = re.compile(r"[A-Za-z0-9._-]{1,128}")


class Envelope:
    """ASGI middleware: request id, key, log and time to first byte of everything under `/v1/`."""

    def __init__(
        self, app: ASGIApp, state: PodState, keys: ApiKeys, metrics: GatewayMetrics, routes: frozenset[str]
    ) -> None:
        self._app = app
        self._state = state
        self._keys = keys
        self._metrics = metrics
        self._routes = routes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] == "websocket":
            await self._stream(scope, receive, send)
            return
        if scope["type"] != "http" or not scope["path"].startswith("/v1/"):
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        asked = headers.get(HEADER_REQUEST_ID, "")
        identity = asked if _ID.fullmatch(asked) else f"req_{uuid.uuid4().hex}"
        token = request_id.set(identity)
        route = scope["path"] if scope["path"] in self._routes else "other"
        started = time.monotonic()
        status, first_byte, sent = 0, 0.0, 0

        async def send_noting(message: Message) -> None:
            nonlocal status, first_byte, sent
            if message["type"] == "http.response.start":
                status = message["status"]
                sending = MutableHeaders(raw=message["headers"])
                sending[HEADER_REQUEST_ID] = identity
                if self._state.draining:
                    sending["Connection"] = "close"
            elif message["type"] == "http.response.body" and message.get("body"):
                if not first_byte:
                    first_byte = time.monotonic() - started
                    self._metrics.first_byte.labels(route).observe(first_byte)
                sent += len(message["body"])
            await send(message)

        try:
            try:
                self._keys.check(headers.get("Authorization"))
            except ApiError as refusal:
                await error_response(refusal)(scope, receive, send_noting)
                return
            await self._app(scope, receive, send_noting)
        finally:
            log.info(
                "%s %s %s",
                scope["method"],
                scope["path"],
                status or "client gone",
                extra={
                    "status": status,
                    "route": route,
                    "seconds": round(time.monotonic() - started, 4),
                    "first_byte_s": round(first_byte, 4),
                    "bytes": sent,
                },
            )
            request_id.reset(token)

    async def _stream(self, scope: Scope, receive: Receive, send: Send) -> None:
        """A WebSocket: its key is checked before the handshake is answered."""
        identity = f"req_{uuid.uuid4().hex}"
        token = request_id.set(identity)
        started = time.monotonic()
        try:
            try:
                self._keys.check(Headers(scope=scope).get("Authorization"))
            except ApiError as refusal:
                await error_response(refusal)(scope, receive, send)
                return
            await self._app(scope, receive, send)
        finally:
            seconds = round(time.monotonic() - started, 4)
            log.info("WebSocket %s", scope["path"], extra={"seconds": seconds})
            request_id.reset(token)
