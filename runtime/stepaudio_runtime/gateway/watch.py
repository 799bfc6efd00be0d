"""Routing from Kubernetes: watches one ConfigMap and the EndpointSlices of the Services that it names.

Raw dicts by list and watch: a 410 or any fault lists again, with growing pauses of at most 4 s; the last
known state is served meanwhile. Every list and watch is bounded in time.
"""

import asyncio
import contextlib
import json
import logging
import random
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from functools import partial
from typing import Any, Protocol

from stepaudio_runtime.contract import ROUTING_KEY, SERVICE_NAME_LABEL
from stepaudio_runtime.errors import ConfigError
from stepaudio_runtime.gateway.own_word import Ask, OwnWord
from stepaudio_runtime.gateway.routing import Routing, listed_endpoints, parse_routing
from stepaudio_runtime.gateway.static_routing import Update

log = logging.getLogger(__name__)

WATCH_S = 60
"""The API server ends a watch after this many seconds, and it is taken up where it ended: a connection that
died without a word is noticed no later."""

LIST_TIMEOUT_S = 30
FIRST_PAUSE_S, LAST_PAUSE_S = 0.5, 4.0
"""Between two tries. A pod that goes serves on for 5 s: a gateway must have heard of it by then, also where
the API server was away for long and pods are replaced as soon as it is back."""
MAX_LINE = 8 * 1024 * 1024
"""Bytes; an object is at most 1.5 MiB in etcd, its JSON a few times that."""

Objects = Mapping[str, Mapping[str, Any]]
"""Raw objects by name."""


class Api(Protocol):
    """The few reads of the Kubernetes API that a gateway needs."""

    async def get(self, path: str) -> dict[str, Any]:
        """One raw object. Raises ApiFault."""

    async def list(self, path: str, query: Mapping[str, str]) -> dict[str, Any]:
        """The raw list. Raises ApiFault."""

    def watch(self, path: str, query: Mapping[str, str]) -> AsyncIterator[dict[str, Any]]:
        """Raw events until the server ends the watch. Raises ApiFault."""

    async def close(self) -> None:
        """Close connections."""


class ApiFault(Exception):  # noqa: N818 - never leaves this module's callers
    """A list or watch failed; `status` is the HTTP status, 0 without an answer."""

    def __init__(self, status: int, message: str) -> None:
        self.status = status
        super().__init__(f"{status}: {message}")


def pauses(random_: Callable[[], float]) -> Iterator[float]:
    """Seconds before each next try, spread by `random_` (0..1) over half of them."""
    pause = FIRST_PAUSE_S
    while True:
        yield pause * (0.5 + random_() / 2)
        pause = min(pause * 2, LAST_PAUSE_S)


class Reflector:
    """Keeps the objects of one list in step with the API server and tells `changed` about every change."""

    def __init__(
        self, api: Api, path: str, query: Mapping[str, str], changed: Callable[[Objects], None]
    ) -> None:
        self._api = api
        self._path = path
        self._query = dict(query)
        self._changed = changed
        self._objects: dict[str, Mapping[str, Any]] = {}

    async def run(self) -> None:
        """List and watch until cancelled."""
        waits = pauses(random.random)
        while True:
            try:
                version = await self._list()
                waits = pauses(random.random)
                while True:
                    version = await self._watch(version)
            except (ApiFault, LookupError, TypeError, AttributeError) as fault:
                if not (isinstance(fault, ApiFault) and fault.status == 410):
                    log.warning("%s %s: %r; trying again", self._path, self._query, fault)
            await asyncio.sleep(next(waits))

    async def _list(self) -> str:
        listed = await self._api.list(self._path, self._query)
        self._objects = {item["metadata"]["name"]: item for item in listed.get("items") or ()}
        self._changed(self._objects)
        return str(listed["metadata"]["resourceVersion"])

    async def _watch(self, version: str) -> str:
        query = {
            **self._query,
            "watch": "true",
            "resourceVersion": version,
            "allowWatchBookmarks": "true",
            "timeoutSeconds": str(WATCH_S),
        }
        async for event in self._api.watch(self._path, query):
            thing, kind = event.get("object") or {}, event.get("type")
            if kind == "ERROR":
                raise ApiFault(int(thing.get("code") or 0), str(thing.get("message")))
            version = thing["metadata"]["resourceVersion"]
            if kind == "BOOKMARK":
                continue
            name = thing["metadata"]["name"]
            if kind == "DELETED":
                self._objects.pop(name, None)
            else:
                self._objects[name] = thing
            self._changed(self._objects)
        return version


class KubernetesSource:
    """Puts the ConfigMap and the EndpointSlices together and hands them to `update`.

    A routing object counts once the endpoints of all its Services have been listed; until then the one before
    stays in force, so no request meets a pool whose endpoints are not known yet.
    """

    def __init__(self, api: Api, namespace: str, configmap: str, update: Update, ask: Ask) -> None:
        self._api = api
        self._namespace = namespace
        self._configmap = configmap
        self._update = update
        self._own_word = OwnWord(ask, self._publish)
        self._routing: Routing | None = None
        self._slices: dict[str, Objects] = {}  # by Service
        self._watches: dict[str, asyncio.Task[None]] = {}  # by Service
        self._main: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Begin to watch; the first update comes when everything has been listed."""
        reflector = Reflector(
            self._api,
            f"/api/v1/namespaces/{self._namespace}/configmaps",
            {"fieldSelector": f"metadata.name={self._configmap}"},
            self._configmap_changed,
        )
        self._main = asyncio.create_task(reflector.run(), name="watch-routing")

    async def stop(self) -> None:
        """End all watches."""
        tasks = [*self._watches.values(), *([self._main] if self._main else [])]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self._own_word.stop()
        await self._api.close()

    def _configmap_changed(self, objects: Objects) -> None:
        found = objects.get(self._configmap)
        text = ((found or {}).get("data") or {}).get(ROUTING_KEY)
        if text is None:
            log.warning("no routing object in ConfigMap %s; keeping the last one", self._configmap)
            return
        try:
            self._routing = parse_routing(text)
        except ValueError as fault:
            log.error("the routing object is not usable, keeping the last one: %s", fault)
            return
        self._follow({pool.service for pool in self._routing.pools.values()})
        self._publish()

    def _follow(self, services: set[str]) -> None:
        """Watch the slices of exactly these Services."""
        for service in set(self._watches) - services:
            self._watches.pop(service).cancel()
            self._slices.pop(service, None)
        for service in services - set(self._watches):
            reflector = Reflector(
                self._api,
                f"/apis/discovery.k8s.io/v1/namespaces/{self._namespace}/endpointslices",
                {"labelSelector": f"{SERVICE_NAME_LABEL}={service}"},
                partial(self._slices_changed, service),
            )
            self._watches[service] = asyncio.create_task(reflector.run(), name=f"watch-{service}")

    def _slices_changed(self, service: str, objects: Objects) -> None:
        self._slices[service] = objects
        self._publish()

    def _publish(self) -> None:
        routing = self._routing
        if routing is None or any(pool.service not in self._slices for pool in routing.pools.values()):
            return
        listed = {
            name: listed_endpoints(self._slices[pool.service].values(), pool.service, pool.port)
            for name, pool in routing.pools.items()
        }
        self._update(routing, self._own_word.endpoints(routing.pools, listed))


class InClusterApi:
    """`Api` by the official client, with the pod's service account. Raises ConfigError outside a cluster."""

    def __init__(self, client: Any) -> None:
        self._client = client

    @classmethod
    async def connect(cls) -> "InClusterApi":
        """A client with the credentials that Kubernetes puts into every pod."""
        from kubernetes.aio import client, config  # 1.5 s to import, and only a cluster needs it

        configuration = client.Configuration()
        try:
            config.load_incluster_config(configuration)
        except config.ConfigException as fault:
            raise ConfigError(
                what=f"no Kubernetes API to watch: {fault}",
                cure="run in a pod with a service account, or set STEPAUDIO_STATIC_ROUTING",
            ) from fault
        return cls(client.ApiClient(configuration))

    async def get(self, path: str) -> dict[str, Any]:
        """GET one object."""
        return await self.list(path, {})

    async def list(self, path: str, query: Mapping[str, str]) -> dict[str, Any]:
        """GET a list."""
        async with self._get(path, query, LIST_TIMEOUT_S) as response:
            return dict(json.loads(await response.read()))

    async def watch(self, path: str, query: Mapping[str, str]) -> AsyncIterator[dict[str, Any]]:
        """GET with `watch=true`; lines may be longer than aiohttp's readline takes."""
        async with self._get(path, query, WATCH_S + 15) as response:
            rest = b""
            async for chunk in response.content.iter_any():
                *lines, rest = (rest + chunk).split(b"\n")
                if len(rest) > MAX_LINE:
                    raise ApiFault(0, f"an event of more than {MAX_LINE} bytes")
                for line in lines:
                    if line.strip():
                        yield json.loads(line)

    async def close(self) -> None:
        """Close the client's connections."""
        await self._client.close()

    @contextlib.asynccontextmanager
    async def _get(self, path: str, query: Mapping[str, str], timeout_s: float) -> AsyncIterator[Any]:
        from aiohttp import ClientError, ClientTimeout

        response = None
        try:
            parameters = await self._client.param_serialize(
                "GET",
                path,
                query_params=list(query.items()),
                header_params={"Accept": "application/json"},
                auth_settings=["BearerToken"],
            )
            answer = await self._client.call_api(*parameters, _request_timeout=ClientTimeout(total=timeout_s))
            response = answer.response
            if response.status != 200:
                body = (await response.read())[:300].decode(errors="replace")
                raise ApiFault(response.status, body)
            yield response
        except (ClientError, TimeoutError, OSError, ValueError) as fault:
            raise ApiFault(0, repr(fault)) from fault
        finally:
            if response is not None:
                response.close()
