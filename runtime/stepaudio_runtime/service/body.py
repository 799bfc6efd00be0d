"""Reads the body of a request between pods: bounded while it arrives, checked once it is here."""

from typing import Any

from pydantic_core import from_json
from starlette.requests import ClientDisconnect, Request

from stepaudio_runtime.errors import InputError
from stepaudio_runtime.service.disconnect import ClientGone


async def read_body(request: Request, limit: int, *, what: str = "body") -> bytes:
    """The whole body; raises InputError beyond `limit` bytes, ClientGone if it ends early."""
    body = bytearray()
    try:
        async for part in request.stream():
            body += part
            if len(body) > limit:
                raise InputError(f"the {what} is over {limit} bytes", code="too_large")
    except ClientDisconnect as error:
        raise ClientGone from error
    return bytes(body)


def json_object(body: bytes) -> dict[str, Any]:
    """`body` as a JSON object; raises InputError."""
    try:
        value = from_json(body)
    except ValueError as error:
        raise InputError(f"the body is not JSON: {error}", code="invalid_json") from error
    if not isinstance(value, dict):
        raise InputError("the body is not a JSON object", code="invalid_json")
    return value
