"""Routing from a file with explicit URLs: for development and tests, where there is no Kubernetes.

    {"generation": 1, "release": "dev", "serving": true,
     "pools": {"chat": ["http://127.0.0.1:8001"],
               "tts": [{"name": "tts-a", "url": "http://127.0.0.1:8002", "revision": "9d3e77b1"}]}}

`generation`, `release`, `serving`, an endpoint's `name` (its URL), `revision` and `weight` (100; that of its
revision) may be left out. `wake` has, by pool, what the routing object says of pools that may sleep. The file
is read again when it changes.
"""

import asyncio
import json
import logging
from collections.abc import Callable, Mapping
from pathlib import Path

from stepaudio_runtime.errors import ConfigError
from stepaudio_runtime.gateway.routing import Endpoint, PoolRoute, Routing, parse_wake

log = logging.getLogger(__name__)

Update = Callable[[Routing, Mapping[str, tuple[Endpoint, ...]]], None]
"""Takes over a routing object and the endpoints of its pools."""

POLL_S = 1.0


def parse_static(text: str) -> tuple[Routing, dict[str, tuple[Endpoint, ...]]]:
    """Routing and endpoints from the file's text. Raises ValueError."""
    raw = json.loads(text)
    if not isinstance(raw, dict) or not isinstance(raw.get("pools"), dict):
        raise ValueError("a JSON object with `pools` is expected")
    placed = {pool: [_endpoint(entry) for entry in listed] for pool, listed in raw["pools"].items()}
    routing = Routing(
        generation=int(raw.get("generation", 0)),
        release=str(raw.get("release", "static")),
        serving=bool(raw.get("serving", True)),
        retry_after_s=raw.get("retryAfterSeconds"),
        pools={
            pool: PoolRoute(
                pool,
                0,
                {endpoint.revision: weight for endpoint, weight in listed},
                parse_wake((raw.get("wake") or {}).get(pool)),
            )
            for pool, listed in placed.items()
        },
    )
    return routing, {pool: tuple(endpoint for endpoint, _ in listed) for pool, listed in placed.items()}


def _endpoint(entry: object) -> tuple[Endpoint, int]:
    """An endpoint, and the weight of its revision."""
    fields = {"url": entry} if isinstance(entry, str) else entry
    if not isinstance(fields, dict) or not isinstance(fields.get("url"), str):
        raise ValueError(f"not an endpoint: {entry!r}")
    url = fields["url"].rstrip("/")
    endpoint = Endpoint(name=fields.get("name", url), url=url, revision=fields.get("revision", "static"))
    return endpoint, int(fields.get("weight", 100))


class StaticSource:
    """Hands the file's content to `update`, at once and whenever it changes."""

    def __init__(self, path: Path, update: Update) -> None:
        self._path = path
        self._update = update
        self._text = ""
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Read the file. Raises ConfigError if that fails."""
        try:
            self._read()
        except (OSError, ValueError) as fault:
            raise ConfigError(
                what=f"routing file {self._path}: {fault}", cure="see static_routing.py for its form"
            ) from fault
        self._task = asyncio.create_task(self._follow(), name="static-routing")

    async def stop(self) -> None:
        """Read no more."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    def _read(self) -> None:
        text = self._path.read_text(encoding="utf-8")
        if text != self._text:
            self._update(*parse_static(text))
            self._text = text

    async def _follow(self) -> None:
        while True:
            await asyncio.sleep(POLL_S)
            try:
                self._read()
            except (OSError, ValueError) as fault:
                log.warning("routing file %s is not usable, keeping the last one: %s", self._path, fault)
