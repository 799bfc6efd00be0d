"""Answers `GET /status` for every simulated gateway pod: the generation of its deployment's routing object.

Simulated pods have addresses but nobody behind them. One server, bound to all of them, looks up whose
address was called. It learns addresses and generations from two watches, as a gateway would.
"""

import asyncio
import contextlib
import json
from collections.abc import Callable
from typing import Any

import httpx
from aiohttp import web

from stepaudio_operator import names, resources
from stepaudio_operator.resources import Resource
from tests.integration.operator.world import Admin

Raw = dict[str, Any]
Owner = tuple[str, str]
"""Namespace and name of a deployment."""


class Gateways:
    """The answers of all gateway pods of a cluster."""

    def __init__(self, admin: Admin) -> None:
        self._admin = admin
        self._owners: dict[str, Owner] = {}
        self._generations: dict[Owner, int] = {}

    async def __aenter__(self) -> "Gateways":
        app = web.Application()
        app.router.add_get(names.STATUS_PATH, self._status)
        self._runner = web.AppRunner(app, access_log=None)
        await self._runner.setup()
        await web.TCPSite(self._runner, "0.0.0.0", names.GATEWAY_PORT, backlog=1024).start()
        gateways = f"{names.LABEL_COMPONENT}={names.GATEWAY}"
        routings = f"{names.LABEL_DEPLOYMENT}"
        self._tasks = [
            asyncio.create_task(self._follow(resources.PODS, gateways, self._pod)),
            asyncio.create_task(self._follow(resources.CONFIG_MAPS, routings, self._routing)),
        ]
        return self

    async def __aexit__(self, *exc: object) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._runner.cleanup()

    async def _follow(self, resource: Resource, selector: str, seen: Callable[[Raw], None]) -> None:
        query = {"watch": "1", "labelSelector": selector}
        while True:  # until it is cancelled; the API server ends a watch every few minutes
            with contextlib.suppress(httpx.HTTPError):
                async for event in self._admin.stream(resource.path(None), query):
                    if event["type"] in ("ADDED", "MODIFIED"):
                        seen(event["object"])
            await asyncio.sleep(0.5)

    def _pod(self, pod: Raw) -> None:
        if ip := pod["status"].get("podIP"):
            meta = pod["metadata"]
            self._owners[ip] = (meta["namespace"], meta["labels"][names.LABEL_DEPLOYMENT])

    def _routing(self, stored: Raw) -> None:
        meta, text = stored["metadata"], (stored.get("data") or {}).get(names.ROUTING_KEY)
        if text:
            owner = (meta["namespace"], meta["labels"][names.LABEL_DEPLOYMENT])
            self._generations[owner] = json.loads(text)["generation"]

    async def _status(self, request: web.Request) -> web.Response:
        owner = self._owners.get(request.url.host or "")
        return web.json_response(
            {
                "component": names.GATEWAY,
                "phase": "Ready",
                "ready": True,
                "draining": False,
                "inFlight": 0,
                "routingGeneration": self._generations.get(owner) if owner else None,
            }
        )
