"""A proxy between an operator and the real API server: answers instead of it, or acts just before it does."""

import json
import ssl
from collections.abc import Awaitable, Callable

import aiohttp
from aiohttp import web

from tests.integration.operator.world import Admin, Raw

Rule = Callable[[web.Request], Awaitable[web.Response | None]]
"""What is answered instead of the API server; None lets the request through."""
_OF_THE_HOP = frozenset({"connection", "content-length", "host", "transfer-encoding", "content-encoding"})
WRITES = frozenset({"POST", "PATCH", "PUT", "DELETE"})


async def _through(_request: web.Request) -> None:
    return None


class Proxy:
    """Serves on loopback for as long as it is entered; watches are passed on event by event."""

    def __init__(self, admin: Admin) -> None:
        self._server = admin.server
        self._trust = ssl.create_default_context(cafile=admin.ca_file)
        self._trust.verify_flags &= ~ssl.VERIFY_X509_STRICT
        self.rule: Rule = _through

    async def __aenter__(self) -> "Proxy":
        connector = aiohttp.TCPConnector(ssl=self._trust, limit=0)
        self._http = aiohttp.ClientSession(
            connector=connector, auto_decompress=False, timeout=aiohttp.ClientTimeout(total=None)
        )
        app = web.Application(client_max_size=16 * 2**20)
        app.router.add_route("*", "/{path:.*}", self._serve)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", 0).start()
        self.url = f"http://127.0.0.1:{self._runner.addresses[0][1]}"
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self._runner.cleanup()
        await self._http.close()

    async def _serve(self, request: web.Request) -> web.StreamResponse:
        if (instead := await self.rule(request)) is not None:
            return instead
        headers = {k: v for k, v in request.headers.items() if k.lower() not in _OF_THE_HOP}
        body = await request.read()
        async with self._http.request(
            request.method, self._server + request.path_qs, headers=headers, data=body or None
        ) as answer:
            kept = {k: v for k, v in answer.headers.items() if k.lower() not in _OF_THE_HOP}
            if encoding := answer.headers.get("Content-Encoding"):
                kept["Content-Encoding"] = encoding
            response = web.StreamResponse(status=answer.status, headers=kept)
            await response.prepare(request)
            async for chunk in answer.content.iter_any():
                await response.write(chunk)
            await response.write_eof()
            return response


def refusal(code: int, reason: str, message: str, **headers: str) -> web.Response:
    """An answer as the API server words it."""
    status: Raw = {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure"}
    status |= {"code": code, "reason": reason, "message": message}
    return web.Response(
        status=code, text=json.dumps(status), headers=headers, content_type="application/json"
    )
