"""A small reflector: list, then watch one resource by label, keep a slim projection of every object.

`Store` is the state without I/O, `Reflector` feeds one from the API server.

The projection is made as each object is read, so neither the raw object nor its managed fields are kept.
Resource versions of one resource are compared as integers (Kubernetes promises that since 1.35 and etcd has
always had it): an answer to our own write may be absorbed at once, and an event older than it is ignored, so
the next reconcile sees what the last one did.

A watch that ends is continued; one that is too old (410) leads to a new list, which also finds what was
deleted meanwhile; everything else (no connection, 403, 429, 5xx) is retried for ever with a growing pause,
while the cache keeps its last state.
"""

import asyncio
import logging
import random
from collections import OrderedDict
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from stepaudio_operator.errors import ClusterError, Expired, Forbidden, NotFound
from stepaudio_operator.kube.client import Client
from stepaudio_operator.kube.resources import Resource

R = TypeVar("R")
Raw = dict[str, Any]
ObjectKey = tuple[str, str]
"""Namespace and name."""

logger = logging.getLogger(__name__)

PAUSE_FIRST_S = 0.2
PAUSE_LAST_S = 30.0
ABSENT_S = 60.0
"""Between two looks for a resource that the cluster does not serve, and need not."""
LATE_ANSWERS = 1024
"""Deleted objects that are remembered, for answers to our writes that are still on the way."""


@dataclass(frozen=True, slots=True)
class _Entry(Generic[R]):
    uid: str
    version: int
    record: R


class Store(Generic[R]):
    """The newest projection of every object of one resource.

    `on_change(old, new, own)` is told of every change, with None for absent; `own` where the news is the
    answer to our own write.
    """

    def __init__(
        self, project: Callable[[Raw], R], on_change: Callable[[R | None, R | None, bool], None]
    ) -> None:
        self._project = project
        self._on_change = on_change
        self._entries: dict[ObjectKey, _Entry[R]] = {}
        self._gone: dict[ObjectKey, str] = {}  # uid of what we deleted and the watch still believes in
        self._buried: OrderedDict[ObjectKey, int] = OrderedDict()  # the version at which the watch saw it go

    def __len__(self) -> int:
        """How many objects are held."""
        return len(self._entries)

    def get(self, namespace: str, name: str) -> R | None:
        """The projection of one object."""
        entry = self._entries.get((namespace, name))
        return entry.record if entry else None

    def put(self, raw: Raw, *, own: bool = False, listed: bool = False) -> None:
        """Takes in an object, unless something newer of it is known. `listed`: from a list, not a watch."""
        key, uid = _key(raw), raw["metadata"]["uid"]
        version = int(raw["metadata"]["resourceVersion"])
        old = self._entries.get(key)
        if old is not None and (old.version > version or (old.version == version and old.uid == uid)):
            return
        if self._gone.get(key) == uid and not listed:
            return
        if version <= self._buried.get(key, 0):
            return  # the answer to our own write comes after the news that the object has gone
        record = self._project(raw)
        self._entries[key] = _Entry(uid, version, record)
        self._on_change(old.record if old else None, record, own)

    def deleted(self, raw: Raw) -> None:
        """Takes in that an object is gone."""
        key, uid = _key(raw), raw["metadata"]["uid"]
        if self._gone.get(key) == uid:
            del self._gone[key]
        self._buried[key] = int(raw["metadata"].get("resourceVersion") or 0)
        self._buried.move_to_end(key)
        if len(self._buried) > LATE_ANSWERS:
            self._buried.popitem(last=False)
        entry = self._entries.get(key)
        if entry is not None and entry.uid == uid:
            self._remove(key)

    def deleting(self, namespace: str, name: str, answer: Raw) -> None:
        """Takes in the server's answer to our own delete: gone at once, or now terminating."""
        metadata = answer.get("metadata", {})
        lingers = metadata.get("deletionGracePeriodSeconds") or metadata.get("finalizers")
        if answer.get("kind") != "Status" and metadata.get("deletionTimestamp") and lingers:
            self.put(answer, own=True)
            return
        entry = self._entries.get((namespace, name))
        if entry is not None:
            self._gone[(namespace, name)] = entry.uid
            self._remove((namespace, name), own=True)

    def settle(self, seen: set[ObjectKey], version: int) -> None:
        """Drops what a complete list at `version` no longer holds."""
        for key, entry in list(self._entries.items()):
            if key not in seen and entry.version <= version:
                self._remove(key)
        self._gone.clear()

    def clear(self) -> None:
        """Drops everything: the resource is not served any more."""
        for key in list(self._entries):
            self._remove(key)

    def _remove(self, key: ObjectKey, own: bool = False) -> None:
        entry = self._entries.pop(key)
        self._on_change(entry.record, None, own)


class Reflector(Generic[R]):
    """Keeps a `Store` equal to one resource of the API server."""

    def __init__(
        self,
        client: Client,
        resource: Resource,
        store: Store[R],
        *,
        namespace: str | None = None,
        selector: str = "",
        page_objects: int = 500,
        on_trouble: Callable[[Resource, ClusterError], None] = lambda resource, error: None,
    ) -> None:
        self.resource = resource
        self.store = store
        self.synced = asyncio.Event()
        """Set once the first list is in."""
        self.trouble: ClusterError | None = None
        """Why the last try failed, where it did."""
        self._client = client
        self._namespace = namespace
        self._selector = selector
        self._page_objects = page_objects
        self._on_trouble = on_trouble

    async def run(self) -> None:
        """Lists and watches for ever."""
        pause = PAUSE_FIRST_S
        since: str | None = None
        while True:
            try:
                if since is None:
                    since = await self.fill()
                if since is None:
                    await asyncio.sleep(ABSENT_S)
                    continue
                async with aclosing(self._watch(since)) as versions:
                    async for version in versions:
                        since = version
                        pause = PAUSE_FIRST_S
                await asyncio.sleep(0.05)  # the server ended it; a proxy that always does is not hammered
                continue
            except Expired as error:
                since = None
                pause = await self._wait_out(error, pause)
            except ClusterError as error:
                pause = await self._wait_out(error, pause)

    async def first(self) -> None:
        """One complete list, however often that has to be tried."""
        pause = PAUSE_FIRST_S
        while not self.synced.is_set():
            try:
                await self.fill()
            except ClusterError as error:
                pause = await self._wait_out(error, pause)

    async def _wait_out(self, error: ClusterError, pause: float) -> float:
        """Says what went wrong and waits. Returns the next pause (s)."""
        self.trouble = error
        self._on_trouble(self.resource, error)
        pause = max(pause, error.retry_after_s or 0.0)
        said = in_words(self.resource, error)
        logger.warning("%s: %s; next try in %.1f s", self.resource.plural, said, pause)
        await asyncio.sleep(pause * random.uniform(0.8, 1.2))  # noqa: S311 - only spreads load
        return min(pause * 2, PAUSE_LAST_S)

    async def fill(self) -> str | None:
        """One complete list. Returns its resource version, None where an optional resource is not served.
        Raises `ClusterError`.
        """
        try:
            return await self._list()
        except (NotFound, Forbidden) as error:
            if not self.resource.optional:
                raise
            if isinstance(error, Forbidden):  # a role that is older than this: said, and done without
                self._on_trouble(self.resource, error)
            self.store.clear()
            self.synced.set()
            return None

    async def _list(self) -> str:
        seen: set[ObjectKey] = set()
        proceed = ""
        while True:
            page = await self._client.list_page(
                self.resource,
                self._namespace,
                selector=self._selector,
                limit=self._page_objects,
                proceed=proceed,
            )
            for raw in page.get("items") or ():
                seen.add(_key(raw))
                self.store.put(raw, listed=True)
            proceed = page["metadata"].get("continue", "")
            if not proceed:
                break
        version: str = page["metadata"]["resourceVersion"]
        self.store.settle(seen, int(version))
        self.trouble = None
        self.synced.set()
        return version

    async def _watch(self, since: str) -> AsyncGenerator[str, None]:
        events = self._client.watch(self.resource, self._namespace, selector=self._selector, since=since)
        async with aclosing(events) as stream:
            async for event in stream:
                raw = event["object"]
                if event["type"] == "DELETED":
                    self.store.deleted(raw)
                elif event["type"] in ("ADDED", "MODIFIED"):
                    self.store.put(raw)
                yield raw["metadata"]["resourceVersion"]


def in_words(resource: Resource, error: ClusterError) -> str:
    """Why a resource cannot be read, and the cure where a person has to act."""
    name = f"{resource.plural}.{resource.group}" if resource.group else resource.plural
    if isinstance(error, Expired):
        return "the watch is too old, it is listed again"
    if isinstance(error, NotFound):
        return f"{error}: install the CRD {name} as this version has it (the chart does)"
    if isinstance(error, Forbidden):
        return f"{error}: allow the operator to get, list and watch {name} (the chart's ClusterRole does)"
    return str(error)


def _key(raw: Raw) -> ObjectKey:
    return raw["metadata"].get("namespace", ""), raw["metadata"]["name"]
