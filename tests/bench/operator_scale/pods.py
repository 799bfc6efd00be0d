"""Answers for every simulated pod: gateways tell what their deployment's routing object says and what they
have seen, pods of models how far they are with loading.

Simulated pods have addresses but nobody behind them. The kernel leads all of them to one server here, which
looks up whose address was called. It learns addresses and generations from two watches, as a gateway would.
"""

import asyncio
import contextlib
import json
import subprocess
import time
from collections.abc import Callable
from typing import Any

import httpx
from aiohttp import web

from stepaudio_cluster.simulated import POD_ADDRESSES
from stepaudio_operator import names
from stepaudio_operator.kube import resources
from stepaudio_operator.kube.resources import Resource
from tests.integration.operator.world import Admin

Raw = dict[str, Any]
Owner = tuple[str, str]
"""Namespace and name of a deployment."""


LOAD_S, LOAD_BYTES = 25.0, 8 * 10**9
"""How long a load takes, as far as its pod tells, and of how many bytes."""


class Pods:
    """The answers of all pods of a cluster."""

    def __init__(self, admin: Admin) -> None:
        self._admin = admin
        self._owners: dict[str, Owner] = {}
        self._began: dict[str, float] = {}
        self._routed: dict[Owner, Raw] = {}
        self._first: dict[tuple[Owner, str], str] = {}

    async def __aenter__(self) -> "Pods":
        app = web.Application()
        app.router.add_get(names.STATUS_PATH, self._status)
        app.router.add_get(names.FIGURES_PATH, self._figures)
        self._runner = web.AppRunner(app, access_log=None)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", 0, backlog=1024).start()
        self._lead("add", "-A", self._runner.addresses[0][1])
        self._tasks = [
            asyncio.create_task(self._follow(resources.PODS, names.CHILD_SELECTOR, self._pod)),
            asyncio.create_task(self._follow(resources.CONFIG_MAPS, names.CHILD_SELECTOR, self._routing)),
        ]
        return self

    async def __aexit__(self, *exc: object) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._lead("del", "-D", self._runner.addresses[0][1])
        await self._runner.cleanup()

    def _lead(self, route: str, rule: str, port: int) -> None:
        """Begins or ends (by the verbs of `ip` and `iptables`) to lead calls of the pods to `port` here."""
        ours = ["ip", "route", route, "local", POD_ADDRESSES, "dev", "lo"]
        ports = ["-m", "multiport", "--dports", f"{names.POOL_PORT},{names.GATEWAY_PORT}"]
        called = ["-d", POD_ADDRESSES, "-p", "tcp", *ports]
        here = ["iptables", "-t", "nat", rule, "OUTPUT", *called, "-j", "REDIRECT", "--to-ports", str(port)]
        for command in (ours, here):
            subprocess.run(command, check=True)

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
            # An address is a pod's as long as the pod lives: what had it before may be of another kind.
            if meta["labels"].get(names.LABEL_COMPONENT) != names.GATEWAY:
                self._owners.pop(ip, None)
                self._began.setdefault(ip, time.monotonic())
                return
            self._began.pop(ip, None)
            self._owners[ip] = (meta["namespace"], meta["labels"][names.LABEL_DEPLOYMENT])

    def _routing(self, stored: Raw) -> None:
        meta, text = stored["metadata"], (stored.get("data") or {}).get(names.ROUTING_KEY)
        if text:
            owner = (meta["namespace"], meta["labels"][names.LABEL_DEPLOYMENT])
            self._routed[owner] = json.loads(text)
            for component, pool in self._routed[owner]["pools"].items():
                self._first.setdefault((owner, component), min(pool["revisions"]))

    async def _status(self, request: web.Request) -> web.Response:
        if (began := self._began.get(request.url.host or "")) is not None:
            done = min((time.monotonic() - began) / LOAD_S, 1.0)
            load = {"bytesLoaded": int(done * LOAD_BYTES), "bytesTotal": LOAD_BYTES}
            return web.json_response({"phase": "Loading", "ready": False, "inFlight": 0, "load": load})
        routed = self._routed.get(self._owners.get(request.url.host or "", ("", "")))
        return web.json_response(
            {
                "component": names.GATEWAY,
                "phase": "Ready",
                "ready": True,
                "draining": False,
                "inFlight": 0,
                "routingGeneration": routed["generation"] if routed else None,
            }
        )

    async def _figures(self, request: web.Request) -> web.Response:
        """A hundred requests to every revision; of those to another than a pool's first, forty failed."""
        owner = self._owners.get(request.url.host or "", ("", ""))
        timely = [0] * (len(names.FIRST_BYTE_BOUNDS_S) + 1)
        pools = self._routed.get(owner, {"pools": {}})["pools"]
        seen = {
            component: {
                revision: {
                    "requests": 100,
                    "errors": 0 if revision == self._first[(owner, component)] else 40,
                    "firstByte": timely,
                }
                for revision in pool["revisions"]
            }
            for component, pool in pools.items()
        }
        return web.json_response({"pools": seen})
