"""Reads JSON bodies such that a large one is held once: its bytes are gone when its values are there."""

from typing import TypeVar

from starlette.requests import Request

from stepaudio_runtime.gateway.media import Media
from stepaudio_runtime.gateway.schemas import Body, read_body

B = TypeVar("B", bound=Body)


async def read_json(request: Request, schema: type[B], media: Media) -> B:
    """The JSON of `request`, checked field by field in one of `media`'s threads. Raises InputError."""
    raw = bytearray()
    async for part in request.stream():  # unlike `request.body()` this keeps nothing in the request
        raw += part

    def read() -> B:
        try:
            return read_body(raw, schema)
        finally:
            raw.clear()  # at once, not when the last frame that knows it is gone

    return await media.run(read)
