"""One request, one release: an ASGI layer that opens a request's path through the pools and closes it."""

from collections.abc import Callable
from contextvars import ContextVar

from starlette.types import ASGIApp, Receive, Scope, Send

from stepaudio_runtime.gateway.routing import Balancer, Path

current_path: ContextVar[Path | None] = ContextVar("current_path", default=None)
"""The path of the request that the present task serves."""


class OneRelease:
    """ASGI middleware: all that one request asks of pods goes to one release; `closed` is told of its end."""

    def __init__(self, app: ASGIApp, balancer: Balancer, closed: Callable[[], None]) -> None:
        self._app = app
        self._balancer = balancer
        self._closed = closed

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection."""
        try:
            with self._balancer.path() as path:
                token = current_path.set(path)
                try:
                    await self._app(scope, receive, send)
                finally:
                    current_path.reset(token)
        finally:
            self._closed()
