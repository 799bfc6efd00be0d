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
_STARTS = frozenset({"http.response.start", "websocket.http.response.start", "websocket.accept"})
SWITCHED = 101
"""The status of an accepted WebSocket."""


class Envelope:
    """ASGI middleware: request id, key, log and time to first byte of everything under `/v1/`. The first byte
    of a WebSocket is in the log alone: it waits for what its client has yet to say.
    """

    def __init__(
        self, app: ASGIApp, state: PodState, keys: ApiKeys, metrics: GatewayMetrics, routes: frozenset[str]
    ) -> None:
        self._app = app
        self._state = state
        self._keys = keys
        self._metrics = metrics
        self._routes = routes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request, or one WebSocket, whose key is checked before the handshake is answered."""
        if scope["type"] not in ("http", "websocket") or not scope["path"].startswith("/v1/"):
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
            if message["type"] in _STARTS:
                status = message.get("status", SWITCHED)
                message["headers"] = list(message.get("headers", ()))
                sending = MutableHeaders(raw=message["headers"])
                sending[HEADER_REQUEST_ID] = identity
                if self._state.draining and scope["type"] == "http":
                    sending["Connection"] = "close"
            elif payload := _payload(message):
                if not first_byte:
                    first_byte = time.monotonic() - started
                    if scope["type"] == "http":
                        self._metrics.first_byte.labels(route).observe(first_byte)
                sent += len(payload)
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
                scope.get("method", "WebSocket"),
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


def _payload(message: Message) -> bytes:
    """What of an answer's body, or of a WebSocket's stream, a message holds."""
    if message["type"] == "websocket.send":
        return message.get("bytes") or (message.get("text") or "").encode()
    return message.get("body") or b""
