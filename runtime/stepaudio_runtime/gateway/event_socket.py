"""The client's end of a WebSocket on which events are JSON objects and audio is bytes: bounded messages in,
bounded patience out, and a close code for every error.
"""

import asyncio
import contextlib
import json
from typing import Any

from pydantic_core import from_json
from starlette.websockets import WebSocket, WebSocketDisconnect

from stepaudio_runtime.errors import InputError, Overloaded, Unavailable
from stepaudio_runtime.gateway.errors import ApiError, error_response

MAX_MESSAGE = 1 << 17
"""Characters of one message: more than the longest text of the default bound, however it is written."""
SEND_TIMEOUT_S = 60.0
"""A client that takes nothing for so long is dropped."""
NORMAL, POLICY, TOO_BIG, INTERNAL, TRY_LATER = 1000, 1008, 1009, 1011, 1013
"""Close codes, as RFC 6455 and its registry have them."""


class Gone(Exception):  # noqa: N818 - not a fault
    """The client no longer reads."""


class Client:
    """The client's end of the socket."""

    def __init__(self, socket: WebSocket) -> None:
        self._socket = socket

    async def read(self) -> dict[str, Any]:
        """The next message. Raises InputError for what is no JSON object, WebSocketDisconnect at the end."""
        message = await self._socket.receive()
        if message["type"] == "websocket.disconnect":
            raise WebSocketDisconnect
        text = message.get("text") or ""
        try:
            # Unlike json.loads it takes no halves of surrogate pairs, which could not be sent back.
            found = from_json(text) if len(text) <= MAX_MESSAGE else None
        except ValueError:
            found = None
        if not isinstance(found, dict):
            raise InputError(
                f"messages are JSON objects with a type, of at most {MAX_MESSAGE} characters",
                param="type",
                code="invalid_message",
            )
        return found

    async def say(self, event: dict[str, Any]) -> None:
        """Send an event."""
        await self._out(self._socket.send_text(json.dumps(event, ensure_ascii=False)))

    async def send(self, audio: bytes) -> None:
        """Send a part of the file."""
        await self._out(self._socket.send_bytes(audio))

    async def close(self, code: int, reason: str) -> None:
        """End the connection."""
        await self._out(self._socket.close(code, reason))

    async def fail(self, error: Exception) -> None:
        """Say what went wrong, and end the connection."""
        body = json.loads(bytes(error_response(error).body))
        with contextlib.suppress(Gone, WebSocketDisconnect, RuntimeError):
            await self.say({"type": "error", **body})
            await self.close(_close_code(error), body["error"].get("code") or "error")

    async def _out(self, sending: Any) -> None:
        try:
            async with asyncio.timeout(SEND_TIMEOUT_S):
                await sending
        except TimeoutError:
            raise Gone from None


def _close_code(error: Exception) -> int:
    if isinstance(error, ApiError):
        return TOO_BIG if error.status == 413 else POLICY
    if isinstance(error, InputError):
        return POLICY
    return TRY_LATER if isinstance(error, Overloaded | Unavailable) else INTERNAL
