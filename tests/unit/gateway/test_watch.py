"""The gateway follows the routing ConfigMap and the EndpointSlices through a real Kubernetes client.

A small server on loopback speaks the API's list and watch (with resource versions, bookmarks, 410 and broken
connections); what reaches the gateway is compared with what the server holds.
"""

from __future__ import annotations

import asyncio
import json
import socket
from itertools import islice

import pytest
import uvicorn
from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse, Response, StreamingResponse
from kubernetes.aio import client as kubernetes

from stepaudio_operator import names
from stepaudio_runtime.gateway.routing import Endpoint
from stepaudio_runtime.gateway.watch import InClusterApi, KubernetesSource, pauses

CONFIGMAPS = "/api/v1/namespaces/ns/configmaps"
SLICES = "/apis/discovery.k8s.io/v1/namespaces/ns/endpointslices"


class Cluster:
    """Objects of two kinds by path and name, and every watch on them."""

    def __init__(self) -> None:
        self.version = 10
        self.objects: dict[str, dict[str, dict]] = {CONFIGMAPS: {}, SLICES: {}}
        self.watches: list[tuple[str, dict, asyncio.Queue]] = []
        self.requests: list[tuple[str, dict]] = []
        self.expired = 0  # answer this many watches with 410
        self.forbidden = 0  # answer this many lists with 403
        self.app = FastAPI()
        self.app.get(CONFIGMAPS)(self._get)
        self.app.get(SLICES)(self._get)

    async def _get(self, request: Request) -> Response:
        path, query = request.url.path, dict(request.query_params)
        self.requests.append((path, query))
        if query.get("watch") == "true":
            return StreamingResponse(self._events(path, query), media_type="application/json")
        if self.forbidden:
            self.forbidden -= 1
            return JSONResponse({"kind": "Status", "code": 403, "message": "forbidden"}, 403)
        items = [o for o in self.objects[path].values() if self._matches(path, query, o)]
        return JSONResponse({"metadata": {"resourceVersion": str(self.version)}, "items": items})

    def _matches(self, path: str, query: dict, thing: dict) -> bool:
        if path == CONFIGMAPS:
            return query["fieldSelector"] == f"metadata.name={thing['metadata']['name']}"
        key, _, value = query["labelSelector"].partition("=")
        return thing["metadata"]["labels"].get(key) == value

    async def _events(self, path: str, query: dict):
        if self.expired:
            self.expired -= 1
            gone = {"kind": "Status", "code": 410, "message": "too old resource version"}
            yield json.dumps({"type": "ERROR", "object": gone}) + "\n"
            return
        queue: asyncio.Queue = asyncio.Queue()
        self.watches.append((path, query, queue))
        try:
            while (event := await queue.get()) is not None:
                if event == "break":
                    raise RuntimeError("the test breaks this watch")
                line = json.dumps(event) + "\n"
                yield line[: len(line) // 2]  # events arrive in any pieces
                await asyncio.sleep(0)
                yield line[len(line) // 2 :]
        finally:
            self.watches = [w for w in self.watches if w[2] is not queue]

    def put(self, path: str, name: str, *, silent: bool = False, **fields) -> None:
        self.version += 1
        kind = "MODIFIED" if name in self.objects[path] else "ADDED"
        metadata = {"name": name, "resourceVersion": str(self.version), **fields.pop("metadata", {})}
        self.objects[path][name] = {"metadata": metadata, **fields}
        self._tell(path, kind, self.objects[path][name], silent)

    def delete(self, path: str, name: str) -> None:
        self.version += 1
        gone = self.objects[path].pop(name)
        gone["metadata"]["resourceVersion"] = str(self.version)
        self._tell(path, "DELETED", gone, silent=False)

    def _tell(self, path: str, kind: str, thing: dict, silent: bool) -> None:
        for watched, query, queue in self.watches:
            if not silent and watched == path and self._matches(path, query, thing):
                queue.put_nowait({"type": kind, "object": thing})

    def route(self, generation: int, pools: dict[str, str], *, silent: bool = False) -> None:
        routing = {
            "generation": generation,
            "release": "r",
            "serving": True,
            "retryAfterSeconds": None,
            "pools": {
                name: {"service": f"prod-{name}", "port": 8000, "revisions": {revision: 100}}
                for name, revision in pools.items()
            },
        }
        self.put(CONFIGMAPS, "prod-routing", silent=silent, data={"routing.json": json.dumps(routing)})

    def pods(self, service: str, *names: str, ready: bool = True, silent: bool = False) -> None:
        entries = [
            {"addresses": [f"10.0.0.{i}"], "conditions": {"ready": ready}, "targetRef": {"name": name}}
            for i, name in enumerate(names)
        ]
        self.put(
            SLICES,
            f"{service}-x",
            silent=silent,
            metadata={"labels": {"kubernetes.io/service-name": service}},
            ports=[{"name": "http", "port": 8000}],
            endpoints=entries,
        )


@pytest.fixture
async def cluster():
    made = Cluster()
    listener = socket.create_server(("127.0.0.1", 0))
    made.url = f"http://127.0.0.1:{listener.getsockname()[1]}"
    server = uvicorn.Server(uvicorn.Config(made.app, log_level="critical", lifespan="off"))
    serving = asyncio.create_task(server.serve([listener]))
    while not server.started:  # noqa: ASYNC110 - uvicorn has no event for it
        await asyncio.sleep(0.01)
    yield made
    for _, _, queue in list(made.watches):
        queue.put_nowait(None)
    server.should_exit = True
    await serving


class Seen:
    """What the source handed over, last."""

    def __init__(self) -> None:
        self.generation: int | None = None
        self.endpoints: dict[str, tuple[Endpoint, ...]] = {}
        self.updates = 0
        self.say_ready: set[str] = set()  # the pods that answer so when they are asked

    async def ask(self, endpoint: Endpoint) -> bool:
        return endpoint.name in self.say_ready

    def update(self, routing, endpoints) -> None:
        self.generation, self.endpoints = routing.generation, dict(endpoints)
        self.updates += 1

    def names(self) -> dict[str, list[str]]:
        return {pool: [e.name for e in found] for pool, found in self.endpoints.items()}


@pytest.fixture
async def seen(cluster):
    """What a source that watches `cluster` hands over."""
    found = Seen()
    api = InClusterApi(kubernetes.ApiClient(kubernetes.Configuration(host=cluster.url)))
    source = KubernetesSource(api, "ns", "prod-routing", found.update, found.ask)
    await source.start()
    yield found
    await source.stop()


async def until(condition) -> None:
    async with asyncio.timeout(20):
        while not condition():  # noqa: ASYNC110 - any condition
            await asyncio.sleep(0.01)


A, B = "1f0c22aa", "9d3e77b1"


async def test_routing_and_endpoints_are_followed(cluster, seen):
    cluster.route(3, {"chat": A, "tts": B})
    cluster.pods("prod-chat", f"prod-chat-{A}-0", f"prod-chat-{A}-1")
    await until(lambda: seen.generation == 3)
    assert seen.names() == {"chat": [f"prod-chat-{A}-0", f"prod-chat-{A}-1"], "tts": []}
    await until(lambda: len(cluster.watches) == 3)
    cluster.pods("prod-tts", f"prod-tts-{B}-0")
    await until(lambda: seen.names()["tts"] == [f"prod-tts-{B}-0"])
    cluster.pods("prod-chat", f"prod-chat-{A}-1")
    await until(lambda: seen.names()["chat"] == [f"prod-chat-{A}-1"])
    cluster.delete(SLICES, "prod-chat-x")
    await until(lambda: seen.names()["chat"] == [])
    cluster.route(4, {"tts": B})
    await until(lambda: seen.generation == 4)
    assert seen.names() == {"tts": [f"prod-tts-{B}-0"]}
    await until(lambda: len(cluster.watches) == 2)  # the Service that is no longer named is not watched


async def test_pods_that_are_not_ready_for_the_cluster_are_believed(cluster, seen):
    first, second = (f"prod-chat-{A}-{i}" for i in range(2))
    cluster.route(3, {"chat": A})
    cluster.pods("prod-chat", first, second)
    await until(lambda: seen.names() == {"chat": [first, second]} and len(cluster.watches) == 2)
    seen.say_ready = {first}
    cluster.pods("prod-chat", first, second, ready=False)
    await until(lambda: seen.names() == {"chat": [first]})
    seen.say_ready = set()
    await until(lambda: seen.names() == {"chat": []})


async def test_only_the_own_configmap_and_services_are_asked_for(cluster, seen):
    cluster.route(3, {"chat": A})
    await until(lambda: seen.generation == 3 and len(cluster.watches) == 2)
    selectors = {(path, q.get("fieldSelector"), q.get("labelSelector")) for path, q in cluster.requests}
    assert selectors == {
        (CONFIGMAPS, "metadata.name=prod-routing", None),
        (SLICES, None, "kubernetes.io/service-name=prod-chat"),
    }


async def test_an_expired_version_lists_again(cluster, seen):
    cluster.expired = 2
    cluster.route(3, {"chat": A})
    cluster.pods("prod-chat", f"prod-chat-{A}-0")
    await until(lambda: seen.generation == 3 and cluster.expired == 0)
    await until(lambda: len(cluster.watches) == 2)
    cluster.route(5, {"chat": A})
    await until(lambda: seen.generation == 5)


async def test_a_broken_watch_misses_nothing(cluster, seen):
    cluster.route(3, {"chat": A})
    await until(lambda: len(cluster.watches) == 2)
    for _, _, queue in list(cluster.watches):
        queue.put_nowait("break")
    cluster.route(4, {"chat": A}, silent=True)
    cluster.pods("prod-chat", f"prod-chat-{A}-7", silent=True)
    await until(lambda: seen.generation == 4 and seen.names()["chat"] == [f"prod-chat-{A}-7"])


async def test_a_watch_that_ends_by_itself_goes_on_from_its_last_version(cluster, seen):
    cluster.route(3, {"chat": A})
    await until(lambda: len(cluster.watches) == 2)
    for _, _, queue in list(cluster.watches):
        bookmark = {"metadata": {"resourceVersion": "777"}}
        queue.put_nowait({"type": "BOOKMARK", "object": bookmark})
        queue.put_nowait(None)
    await until(lambda: sum(q.get("resourceVersion") == "777" for _, q in cluster.requests) == 2)


async def test_missing_rights_are_waited_out(cluster, seen):
    cluster.forbidden = 1
    cluster.route(3, {"chat": A})
    await until(lambda: seen.generation == 3)


async def test_an_unusable_routing_object_leaves_the_last_one(cluster, seen):
    cluster.route(3, {"chat": A})
    await until(lambda: seen.generation == 3 and len(cluster.watches) == 2)
    cluster.put(CONFIGMAPS, "prod-routing", data={"routing.json": "{broken"})
    cluster.delete(CONFIGMAPS, "prod-routing")
    cluster.pods("prod-chat", f"prod-chat-{A}-0")
    await until(lambda: seen.names() == {"chat": [f"prod-chat-{A}-0"]})
    assert seen.generation == 3


@pytest.mark.parametrize("drawn", [0.0, 0.5, 1.0])
def test_after_any_outage_a_gateway_is_back_before_a_leaving_pod_is_gone(drawn: float) -> None:
    waits = list(islice(pauses(lambda: drawn), 100))
    assert waits == sorted(waits)
    assert waits[0] < 1
    assert max(waits) < names.PRE_STOP_S
