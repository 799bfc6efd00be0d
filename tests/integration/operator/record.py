"""What was stored while a test did something: events of pods, pools and the routing object, in order."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from typing import Any

import httpx

from stepaudio_operator import names
from stepaudio_operator.kube import resources
from tests.integration.operator.world import Admin, Raw, condition

WATCHED = (resources.PODS, resources.POOLS, resources.CONFIG_MAPS)


@dataclass
class Record:
    """What was stored since it began: (resource version, kind, what, object), in order."""

    events: list[tuple[int, str, str, Raw]] = field(default_factory=list)

    def of(self, kind: str) -> Iterator[tuple[int, str, Raw]]:
        return ((at, what, raw) for at, of, what, raw in sorted(self.events, key=_at) if of == kind)

    def fewest_serving(self, component: str, pods: list[Raw]) -> int:
        """How many pods of a component served at the least after one was taken; `pods` is the start."""
        serving = {p["metadata"]["name"] for p in pods if _is_of(p, component) and _serves(p)}
        counts = [len(serving)]
        for _, what, pod in self.of("Pod"):
            if not _is_of(pod, component):
                continue
            name = pod["metadata"]["name"]
            if what != "DELETED" and _serves(pod):
                serving.add(name)
            elif name in serving:
                serving.remove(name)
                counts.append(len(serving))
        return min(counts)


@contextlib.asynccontextmanager
async def recording(admin: Admin, namespace: str) -> AsyncIterator[Record]:
    record = Record()

    async def follow(resource: Any) -> None:
        since = (await admin.call("GET", resource.path(namespace)))["metadata"]["resourceVersion"]
        started.release()
        while True:  # a stream that is cut off goes on after the last event it gave: nothing is missed
            with contextlib.suppress(httpx.ReadError, httpx.RemoteProtocolError):
                query = {"watch": "1", "resourceVersion": since}
                async for event in admin.stream(resource.path(namespace), query):
                    raw = event["object"]
                    assert event["type"] != "ERROR", raw
                    since = raw["metadata"]["resourceVersion"]
                    record.events.append((int(since), resource.kind, event["type"], raw))
            await asyncio.sleep(0.1)

    started = asyncio.Semaphore(0)
    tasks = [asyncio.create_task(follow(resource)) for resource in WATCHED]
    for _ in tasks:
        await started.acquire()
    yield record
    await asyncio.sleep(0.5)  # the last events are on their way
    for task in tasks:
        task.cancel()
    for ended in await asyncio.gather(*tasks, return_exceptions=True):
        assert isinstance(ended, asyncio.CancelledError), f"the record has a gap: {ended!r}"


def _at(event: tuple[int, str, str, Raw]) -> int:
    return event[0]


def _is_of(pod: Raw, component: str) -> bool:
    return pod["metadata"]["labels"].get(names.LABEL_COMPONENT) == component


def _serves(pod: Raw) -> bool:
    return condition(pod, "Ready").get("status") == "True" and "deletionTimestamp" not in pod["metadata"]
