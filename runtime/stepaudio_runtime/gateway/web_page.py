"""The web page: a few files of this package, read once, served at `/` and `/page/NAME`.

They are the same for everybody and hold no secret, so they stand in front of the keys; what the page does
goes through the API with the key that its user types. Nothing is loaded from elsewhere, and the browser is
told to allow nothing else: no foreign script, no inline script or style, no frame, no form that leaves.
"""

from __future__ import annotations

import hashlib
from collections.abc import Awaitable, Callable, Mapping
from importlib.resources import files
from typing import Final

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route as HttpRoute

FOLDER: Final = "page"
START: Final = "page.html"
_TYPES: Final[Mapping[str, str]] = {".html": "text/html", ".css": "text/css", ".js": "text/javascript"}

POLICY: Final = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "connect-src 'self'",
        "img-src 'self' data:",  # the tab's icon stands in the page
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
        "require-trusted-types-for 'script'",  # text from models and pods can never become markup
        "trusted-types 'none'",
    )
)
HEADERS: Final[Mapping[str, str]] = {
    "Content-Security-Policy": POLICY,
    "Permissions-Policy": "microphone=(self), camera=(), geolocation=(), display-capture=()",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    # Asked for again each time, answered 304 while it is the same: an upgraded gateway is seen at once.
    "Cache-Control": "no-cache",
}


def page_routes() -> list[HttpRoute]:
    """The routes of the page's files. Reads them."""
    folder = files("stepaudio_runtime.gateway") / FOLDER
    found = {each.name: each.read_bytes() for each in folder.iterdir() if _suffix(each.name) in _TYPES}
    routes = [HttpRoute(f"/{FOLDER}/{name}", _serve(name, body)) for name, body in sorted(found.items())]
    return [HttpRoute("/", _serve(START, found[START])), *routes]


def _serve(name: str, body: bytes) -> Callable[[Request], Awaitable[Response]]:
    tag = f'"{hashlib.sha256(body).hexdigest()[:32]}"'
    media_type = f"{_TYPES[_suffix(name)]}; charset=utf-8"
    headers = {**HEADERS, "ETag": tag}

    async def serve(request: Request) -> Response:
        if tag in request.headers.get("If-None-Match", ""):
            return Response(status_code=304, headers=headers)
        return Response(body, media_type=media_type, headers=headers)

    return serve


def _suffix(name: str) -> str:
    return name[name.rfind(".") :]
