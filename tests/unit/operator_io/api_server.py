"""A very small API server on loopback: enough of list, watch and writes to make trouble with.

It keeps objects of any resource under their path, counts resource versions, and can be told to answer the
next requests with given errors. Real servers are used in tests/integration.
"""

import asyncio
import json
from typing import Any

from aiohttp import web
from kubernetes.aio.client.api_client import ApiClient
from kubernetes.aio.client.configuration import Configuration

from stepaudio_operator.kube.client import Client

Raw = dict[str, Any]


class ApiServer:
    """Serves until closed. `calls` holds (method, path) of every request."""

    def __init__(self) -> None:
        self.objects: dict[str, Raw] = {}
        self.version = 100
        self.calls: list[tuple[str, str]] = []
        self.failures: list[tuple[int, Raw | str, dict[str, str]]] = []
        self.oldest = 0
        self._events: list[tuple[int, str, str, Raw]] = []
        self._news = asyncio.Condition()
        self._watches: set[web.StreamResponse] = set()
        self._drop_watches = False

    async def __aenter__(self) -> "ApiServer":
        app = web.Application()
        app.router.add_route("*", "/{path:.*}", self._handle)
        self._runner = web.AppRunner(app, shutdown_timeout=0.1)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", 0)
        await site.start()
        self.url = f"http://127.0.0.1:{self._runner.addresses[0][1]}"
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.drop_watches()
        await self._runner.cleanup()

    def client(self) -> Client:
        configuration = Configuration(host=self.url)
        return Client(ApiClient(configuration))

    async def store(self, path: str, raw: Raw) -> Raw:
        """Creates or changes an object as somebody else would."""
        async with self._news:
            self.version += 1
            old = self.objects.get(path)
            meta = {**raw["metadata"], "resourceVersion": str(self.version)}
            meta.setdefault("uid", old["metadata"]["uid"] if old else f"uid-{self.version}")
            stored = {**raw, "metadata": meta}
            self.objects[path] = stored
            self._events.append((self.version, "MODIFIED" if old else "ADDED", path, stored))
            self._news.notify_all()
            return stored

    async def remove(self, path: str) -> Raw:
        async with self._news:
            self.version += 1
            gone = self.objects.pop(path)
            gone = {**gone, "metadata": {**gone["metadata"], "resourceVersion": str(self.version)}}
            self._events.append((self.version, "DELETED", path, gone))
            self._news.notify_all()
            return gone

    async def drop_watches(self) -> None:
        async with self._news:
            self._drop_watches = True
            self._news.notify_all()
        await asyncio.sleep(0.05)
        self._drop_watches = False

    def forget_history(self) -> None:
        """Watches from before now are too old from here on."""
        self.oldest = self.version
        self._events.clear()

    async def _handle(self, request: web.Request) -> web.StreamResponse:
        path = request.path
        self.calls.append((request.method, path))
        if self.failures:
            code, body, headers = self.failures.pop(0)
            if isinstance(body, str):
                return web.Response(text=body, status=code, headers=headers)
            return web.json_response(body, status=code, headers=headers)
        if request.method == "GET" and request.query.get("watch"):
            return await self._watch(request)
        if request.method == "GET":
            if path in self.objects:
                return web.json_response(self.objects[path])
            if any(known.startswith(path + "/") for known in self.objects) or path.endswith("s"):
                return self._list(request)
            return self._status(404, "NotFound")
        body = json.loads(await request.read() or b"{}")
        if request.method == "POST":
            target = f"{path}/{body['metadata']['name']}"
            if target in self.objects:
                return self._status(409, "AlreadyExists")
            return web.json_response(await self.store(target, body), status=201)
        old = self.objects.get(path)
        if old is None:
            return self._status(404, "NotFound")
        if request.method == "PUT":
            if body["metadata"].get("resourceVersion") != old["metadata"]["resourceVersion"]:
                return self._status(409, "Conflict")
            return web.json_response(await self.store(path, body))
        if request.method == "DELETE":
            if body["preconditions"]["uid"] != old["metadata"]["uid"]:
                return self._status(409, "Conflict")
            await self.remove(path)
            return web.json_response({"kind": "Status", "status": "Success"})
        return self._status(405, "MethodNotAllowed")

    def _list(self, request: web.Request) -> web.Response:
        paths = sorted(p for p in self.objects if p.rsplit("/", 1)[0] == request.path)
        start = int(request.query.get("continue") or 0)
        limit = int(request.query.get("limit") or 0) or len(paths)
        page = [self.objects[p] for p in paths[start : start + limit]]
        more = str(start + limit) if start + limit < len(paths) else ""
        return web.json_response(
            {"metadata": {"resourceVersion": str(self.version), "continue": more}, "items": page}
        )

    async def _watch(self, request: web.Request) -> web.StreamResponse:
        since = int(request.query["resourceVersion"])
        if since < self.oldest:
            return self._status(410, "Expired")
        response = web.StreamResponse()
        await response.prepare(request)
        while not self._drop_watches:
            async with self._news:
                news = [event for event in self._events if event[0] > since]
                if not news:
                    await self._news.wait()
                    continue
            for version, kind, path, raw in news:
                since = version
                if path.rsplit("/", 1)[0] == request.path:
                    line = json.dumps({"type": kind, "object": raw}) + "\n"
                    await response.write(line.encode())
        return response

    @staticmethod
    def _status(code: int, reason: str) -> web.Response:
        return web.json_response(
            {"kind": "Status", "code": code, "reason": reason, "message": reason}, status=code
        )
