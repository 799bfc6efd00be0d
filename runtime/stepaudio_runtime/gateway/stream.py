"""Answers that stream: the status goes out with the first piece, so whatever fails before it is a proper
error answer, and not a broken 200."""

import json
import logging
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import aclosing
from typing import Any

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from stepaudio_runtime.contract import HEADER_NOTES
from stepaudio_runtime.errors import StepAudioError
from stepaudio_runtime.gateway.errors import error_response
from stepaudio_runtime.gateway.limits import in_time

log = logging.getLogger(__name__)

DONE = b"data: [DONE]\n\n"


def sse(event: Mapping[str, Any]) -> bytes:
    """One server-sent event."""
    return b"data: " + json.dumps(event, ensure_ascii=False, separators=(",", ":")).encode() + b"\n\n"


def sse_error(error: Exception) -> bytes:
    """A fault in the middle of a stream of events, as OpenAI's clients expect it."""
    return b"data: " + bytes(error_response(error).body) + b"\n\n"


MAX_NOTES = 2_000
"""Characters of notes in a header."""


def note_headers(notes: Sequence[str]) -> dict[str, str]:
    """What of a request was ignored, as a header: a JSON list in ASCII."""
    return {HEADER_NOTES: json.dumps(list(notes))[:MAX_NOTES]} if notes else {}


class Stream(Response):
    """Sends the pieces of `source` as they come.

    `fault` writes an error into a stream that has begun, also out of time; without it the body breaks
    off, for no other sign is left that this is not the end.
    """

    def __init__(
        self,
        source: Callable[[], AsyncIterator[bytes]],
        media_type: str,
        fault: Callable[[Exception], bytes] | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        all_headers = {"Cache-Control": "no-cache", **(headers or {})}
        super().__init__(None, media_type=media_type, headers=all_headers)
        del self.headers["Content-Length"]
        self._source = source
        self._fault = fault

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send all of it."""
        begun = False
        async with aclosing(self._source()) as pieces:  # type: ignore[type-var]  # an async generator
            try:
                async with in_time(scope):
                    async for piece in pieces:
                        if not begun:
                            begun = True
                            await self._start(send)
                        await send({"type": "http.response.body", "body": piece, "more_body": True})
            except Exception as error:
                if not begun:
                    raise
                log.warning("a stream ended with an error: %r", error, exc_info=not _foreseen(error))
                if self._fault is None:
                    return
                await send({"type": "http.response.body", "body": self._fault(error), "more_body": True})
        if not begun:
            await self._start(send)
        await send({"type": "http.response.body", "body": b""})

    async def _start(self, send: Send) -> None:
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})


def _foreseen(error: Exception) -> bool:
    return isinstance(error, StepAudioError)
