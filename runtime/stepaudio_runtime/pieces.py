"""Bodies in pieces, as they come from clients and are sent by httpx: nothing is left when they are gone.

httpx holds each request in a cycle of references, so a body given whole stays until Python next looks for
such cycles, which is seldom: recordings of 60 MiB added up to more than a pod has within twenty requests.
"""

from collections.abc import AsyncIterator

PIECE = 256 * 1024
"""Bytes that are handed on at once, and the size from which the gateway's allocator gives buffers back."""


async def pieces(body: bytes) -> AsyncIterator[bytes]:
    """The bytes of `body`, for a request that says `Content-Length` itself."""
    for start in range(0, len(body), PIECE):
        yield body[start : start + PIECE]
