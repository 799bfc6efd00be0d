"""A small reflector: list, then watch one resource by label, keep a slim projection of every object.

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
from collections.abc import AsyncGenerator, Callable, Iterator
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from stepaudio_operator.client import Client
from stepaudio_operator.errors import ClusterError, Expired
from stepaudio_operator.resources import Resource

R = TypeVar("R")
Raw = dict[str, Any]
ObjectKey = tuple[str, str]
"""Namespace and name."""

logger = logging.getLogger(__name__)

PAUSE_FIRST_S = 0.2
PAUSE_LAST_S = 30.0
PAGE_OBJECTS = 500


@dataclass(frozen=True, slots=True)
class _Entry(Generic[R]):
    uid: str
    version: int
    record: R


class Reflector(Generic[R]):
    """The slim cache of one resource.

    `on_change(old, new, own)` is told of every change, with None for absent; `own` where the news is the
    answer to our own write.
    """

    def __init__(
        self,
        client: Client,
        resource: Resource,
        project: Callable[[Raw], R],
        on_change: Callable[[R | None, R | None, bool], None],
        *,
        namespace: str | None = None,
        selector: str = "",
        on_trouble: Callable[[Resource, ClusterError], None] = lambda resource, error: None,
    ) -> None:
        self.resource = resource
        self.synced = asyncio.Event()
        """Set once the first list is in."""
        self.trouble: str | None = None
        """Why the watch does not run at the moment, in words; None while it runs."""
        self._client = client
        self._project = project
        self._on_change = on_change
        self._namespace = namespace
        self._selector = selector
        self._on_trouble = on_trouble
        self._entries: dict[ObjectKey, _Entry[R]] = {}
        self._gone: dict[ObjectKey, tuple[str, int]] = {}  # uid and version at which we saw our own delete

    def __len__(self) -> int:
        """How many objects are held."""
        return len(self._entries)

    def __iter__(self) -> Iterator[R]:
        """All records."""
        return (entry.record for entry in self._entries.values())

    def get(self, namespace: str, name: str) -> R | None:
        """The record of one object."""
        entry = self._entries.get((namespace, name))
        return entry.record if entry else None

    def absorb(self, raw: Raw) -> None:
        """Takes in the server's answer to our own write, ahead of the watch."""
        self._put(raw, own=True)

    def dropped(self, raw: Raw, namespace: str, name: str) -> None:
        """Takes in the server's answer to our own delete: gone at once, or now terminating."""
        metadata = raw.get("metadata", {})
        if metadata.get("deletionTimestamp") and raw.get("kind") != "Status":
            graceful = metadata.get("deletionGracePeriodSeconds", 0) > 0 or metadata.get("finalizers")
            if graceful:
                self._put(raw, own=True)
                return
        entry = self._entries.get((namespace, name))
        if entry is not None:
            self._gone[(namespace, name)] = (entry.uid, entry.version)
            self._remove((namespace, name), own=True)

    async def run(self) -> None:
        """Lists and watches for ever."""
        pause = PAUSE_FIRST_S
        since: str | None = None
        while True:
            try:
                if since is None:
                    since = await self._list()
                    self.synced.set()
                    self.trouble = None
                async with aclosing(self._watch(since)) as versions:
                    async for version in versions:
                        since = version
                        self.trouble = None
                        pause = PAUSE_FIRST_S
                continue
            except Expired:
                since = None
                logger.info("watch of %s is too old, listing again", self.resource.plural)
            except ClusterError as error:
                self.trouble = str(error)
                self._on_trouble(self.resource, error)
                pause = max(pause, error.retry_after_s or 0.0)
                logger.warning("%s: %s; next try in %.1f s", self.resource.plural, error, pause)
            await asyncio.sleep(pause * random.uniform(0.8, 1.2))  # noqa: S311 - spreads load, hides nothing
            pause = min(pause * 2, PAUSE_LAST_S)

    async def _list(self) -> str:
        seen: set[ObjectKey] = set()
        proceed = ""
        while True:
            page = await self._client.list_page(
                self.resource, self._namespace, selector=self._selector, limit=PAGE_OBJECTS, proceed=proceed
            )
            for raw in page.get("items") or ():
                metadata = raw["metadata"]
                seen.add((metadata.get("namespace", ""), metadata["name"]))
                self._put(raw, listed=True)
            proceed = page["metadata"].get("continue", "")
            version: str = page["metadata"]["resourceVersion"]
            if not proceed:
                break
        listed_at = int(version)
        for key, entry in list(self._entries.items()):
            if key not in seen and entry.version <= listed_at:
                self._remove(key)
        self._gone.clear()
        return version

    async def _watch(self, since: str) -> AsyncGenerator[str, None]:
        events = self._client.watch(self.resource, self._namespace, selector=self._selector, since=since)
        async with aclosing(events) as stream:
            async for event in stream:
                raw = event["object"]
                metadata = raw["metadata"]
                if event["type"] == "DELETED":
                    self._deleted((metadata.get("namespace", ""), metadata["name"]), metadata["uid"])
                elif event["type"] in ("ADDED", "MODIFIED"):
                    self._put(raw)
                yield metadata["resourceVersion"]

    def _put(self, raw: Raw, *, listed: bool = False, own: bool = False) -> None:
        metadata = raw["metadata"]
        key = (metadata.get("namespace", ""), metadata["name"])
        uid, version = metadata["uid"], int(metadata["resourceVersion"])
        old = self._entries.get(key)
        if old is not None and (old.version > version or (old.version == version and old.uid == uid)):
            return
        gone = self._gone.get(key)
        if gone is not None and gone[0] == uid and not listed:
            return
        record = self._project(raw)
        self._entries[key] = _Entry(uid, version, record)
        self._on_change(old.record if old else None, record, own)

    def _deleted(self, key: ObjectKey, uid: str) -> None:
        if self._gone.get(key, ("", 0))[0] == uid:
            del self._gone[key]
        entry = self._entries.get(key)
        if entry is not None and entry.uid == uid:
            self._remove(key)

    def _remove(self, key: ObjectKey, own: bool = False) -> None:
        entry = self._entries.pop(key)
        self._on_change(entry.record, None, own)
