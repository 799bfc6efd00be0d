"""Bounds of one request: the size of its body, the bytes of all bodies together, its time, its client's stay.

The body is read here in full, so the layers inside never wait for the client; from then on the only thing
that the client can send is its leaving, which cancels the work, and with it the requests to the pods.
"""

import asyncio
import logging
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from stepaudio_runtime.errors import Overloaded
from stepaudio_runtime.gateway.errors import ApiError, DeadlineExceeded, error_response
from stepaudio_runtime.pieces import PIECE

log = logging.getLogger(__name__)

LAST_WORD_S = 1.0
"""For an answer that has begun, to end with an error of its own once its time is up."""


@dataclass(frozen=True)
class Bounds:
    """Sizes in bytes, times in seconds."""

    body: int
    all_bodies: int
    request_s: float
    body_s: float = 60.0


@dataclass(frozen=True)
class _Deadline:
    """When an answer is to be whole, by the event loop's clock, and the time that it has in all (s)."""

    at: float
    seconds: float


_DEADLINE = "stepaudio.deadline"
"""Where an ASGI scope has it."""


@asynccontextmanager
async def in_time(scope: Scope) -> AsyncIterator[None]:
    """A block of the answer to the request of `scope`. Raises DeadlineExceeded when its time is up."""
    deadline: _Deadline | None = scope.get(_DEADLINE)
    if deadline is None:
        yield
        return
    try:
        async with asyncio.timeout_at(deadline.at) as clock:
            yield
    except TimeoutError:
        if clock.expired():
            raise _late(deadline.seconds) from None
        raise


def _late(seconds: float) -> DeadlineExceeded:
    return DeadlineExceeded(f"the request took longer than {seconds:g} s")


class _ClientGone(Exception):  # noqa: N818 - not a fault
    """Nobody is left to answer."""


class Limits:
    """ASGI middleware that holds every request to `bounds`."""

    def __init__(self, app: ASGIApp, bounds: Bounds) -> None:
        self._app = app
        self._bounds = bounds
        self._held = 0  # bytes of bodies in memory

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        body = _Pieces()
        try:
            await self._read_in_time(scope, receive, body)
            await self._run(scope, receive, send, body)
        except _ClientGone:
            pass
        except (ApiError, Overloaded) as error:
            await error_response(error)(scope, receive, send)
        finally:
            self._held -= body.size

    async def _read_in_time(self, scope: Scope, receive: Receive, body: "_Pieces") -> None:
        seconds = self._bounds.body_s
        try:
            async with asyncio.timeout(seconds):
                await self._read(scope, receive, body)
        except TimeoutError:
            raise ApiError(408, f"the request's body did not arrive within {seconds:g} s") from None

    async def _read(self, scope: Scope, receive: Receive, body: "_Pieces") -> None:
        """The whole body into `body`, counted in `_held` as it grows."""
        limit = self._bounds.body
        too_large = ApiError(413, f"the request is larger than {limit:,} bytes", code="request_too_large")
        length = Headers(scope=scope).get("Content-Length", "")
        if length.isdigit() and int(length) > limit:
            raise too_large
        while True:
            message = await receive()
            if message["type"] == "http.disconnect":
                raise _ClientGone
            part = message.get("body", b"")
            body.add(part)
            self._held += len(part)
            if body.size > limit:
                raise too_large
            if self._held > self._bounds.all_bodies:
                raise Overloaded("too many large requests at a time")
            if not message.get("more_body"):
                return

    async def _run(self, scope: Scope, receive: Receive, send: Send, body: "_Pieces") -> None:
        """The application on a body that is here, until it is done, the client goes, or time is up."""
        gone = asyncio.Event()
        started = ended = False  # the answer
        whole = False  # the body

        async def replay() -> Message:
            """The body in pieces, for a form is taken apart on the event loop: others have their turn."""
            nonlocal whole
            if whole:
                await gone.wait()
                return {"type": "http.disconnect"}
            await asyncio.sleep(0)
            part, whole = body.take()
            return {"type": "http.request", "body": part, "more_body": not whole}

        async def send_noting(message: Message) -> None:
            nonlocal started, ended
            started = started or message["type"] == "http.response.start"
            ended = message["type"] == "http.response.body" and not message.get("more_body")
            await send(message)

        async def leave() -> None:
            while (await receive())["type"] != "http.disconnect":
                pass

        seconds = self._bounds.request_s
        deadline = _Deadline(asyncio.get_running_loop().time() + seconds, seconds)
        serving = asyncio.ensure_future(self._app({**scope, _DEADLINE: deadline}, replay, send_noting))
        leaving = asyncio.ensure_future(leave())
        try:
            both = {serving, leaving}
            done, _ = await asyncio.wait(both, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
            if not done and started:
                done, _ = await asyncio.wait(both, timeout=LAST_WORD_S, return_when=asyncio.FIRST_COMPLETED)
            if serving in done:
                _finish(serving, started=started, ended=ended)
                return
            gone.set()
        finally:
            for task in (serving, leaving):
                task.cancel()
            await asyncio.gather(serving, leaving, return_exceptions=True)
        if not done:
            error = _late(seconds)
            log.warning("%s", error)
            if not started:
                await error_response(error)(scope, receive, send)


class _Pieces:
    """A body between its client and the application; what the application has taken is held no longer."""

    def __init__(self) -> None:
        self.size = 0  # bytes, of what was taken too
        self._full: deque[bytes] = deque()
        self._last = bytearray()

    def add(self, part: bytes) -> None:
        """More of it; the client's own parts may be of one byte each."""
        self.size += len(part)
        taken = 0
        while taken < len(part):
            piece = part[taken : taken + PIECE - len(self._last)]
            taken += len(piece)
            self._last += piece
            if len(self._last) == PIECE:
                self._full.append(bytes(self._last))
                self._last.clear()

    def take(self) -> tuple[bytes, bool]:
        """The next piece, and whether it is the last."""
        if self._full:
            piece = self._full.popleft()
        else:
            piece = bytes(self._last)
            self._last.clear()
        return piece, not self._full and not self._last


def _finish(serving: "asyncio.Future[None]", *, started: bool, ended: bool) -> None:
    """Raise what the application raised, unless its answer has begun: then breaking off is the only word.

    An application may raise what it has answered in full, as Starlette does with what nobody foresaw.
    """
    error = serving.exception()
    if error is None or ended:
        return
    if not started:
        raise error
    log.error("an answer was broken off: %s", error, exc_info=error)
