"""Many deployments at once: made, watched until they are Ready, edited at a steady rate, deleted."""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import httpx

from stepaudio_operator.kube import resources
from stepaudio_operator.kube.resources import Resource
from tests.integration.operator.world import Admin, condition

Raw = dict[str, Any]
AT_ONCE = 4
"""Requests in flight while creating: four threads of a script."""

TTS_ONLY: Raw = {"chat": {"enabled": False}, "tokenizer": {"enabled": False}, "gateway": {"enabled": False}}
FOUR_POOLS: Raw = {}
# Edits that move no pod, so that what is timed is the operator and the API server.
EDITS: dict[str, Callable[[int], Raw]] = {
    "one pool": lambda turn: {"tts": {"gpu": {"memory": f"{24 + turn % 2}GB"}}},
    "every pool": lambda turn: {"rollout": {"maxUnavailable": 2 + turn % 2}},
}
_SIMULATED_NODES = [{"key": "kwok.x-k8s.io/node", "operator": "Exists", "effect": "NoSchedule"}]


@dataclass
class Fleet:
    """`count` deployments, in turn in each of `namespaces`; `parts` is the spec beside the preset, `said` the
    annotations of the pods, which tell how they live.
    """

    admin: Admin
    namespaces: Sequence[str]
    count: int
    parts: Raw
    said: Raw = field(default_factory=dict)
    made: dict[str, float] = field(default_factory=dict)
    """When the API server had taken it (time.monotonic)."""
    ready: dict[str, float] = field(default_factory=dict)
    """When it was first seen Ready for its newest generation."""
    settled: dict[str, tuple[int, float]] = field(default_factory=dict)
    """The newest generation for which it was seen Ready, and when that was first so."""
    _noted: asyncio.Condition = field(default_factory=asyncio.Condition)

    @property
    def names(self) -> list[str]:
        """The deployments' names."""
        return [f"d{number:04d}" for number in range(self.count)]

    def namespace_of(self, name: str) -> str:
        """Where the deployment of that name is."""
        return self.namespaces[int(name[1:]) % len(self.namespaces)]

    def manifest(self, name: str) -> Raw:
        """One deployment, allowed on simulated nodes."""
        spec: Raw = {"preset": "nano", **{part: dict(value) for part, value in self.parts.items()}}
        for component in ("chat", "tts", "tokenizer", "gateway"):
            if spec.get(component, {}).get("enabled", True):
                spec.setdefault(component, {})["podTemplate"] = {
                    "tolerations": _SIMULATED_NODES,
                    **({"annotations": self.said} if self.said else {}),
                }
        return {
            "apiVersion": resources.DEPLOYMENTS.api_version,
            "kind": resources.DEPLOYMENTS.kind,
            "metadata": {"namespace": self.namespace_of(name), "name": name},
            "spec": spec,
        }

    @asynccontextmanager
    async def followed(self) -> AsyncIterator[None]:
        """Follows the deployments' status meanwhile."""
        task = asyncio.create_task(self._watch())
        try:
            yield
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    async def _watch(self) -> None:
        while True:
            with contextlib.suppress(httpx.HTTPError):
                async for event in self.admin.stream(resources.DEPLOYMENTS.path(), {"watch": "1"}):
                    ours = event["object"]["metadata"].get("namespace") in self.namespaces
                    if ours and event["type"] in ("ADDED", "MODIFIED"):
                        self._note(event["object"], time.monotonic())
                        async with self._noted:
                            self._noted.notify_all()
            await asyncio.sleep(0.2)

    def _note(self, raw: Raw, now: float) -> None:
        name, generation = raw["metadata"]["name"], raw["metadata"]["generation"]
        current = (raw.get("status") or {}).get("observedGeneration") == generation
        if current and condition(raw, "Ready").get("status") == "True":
            self.ready.setdefault(name, now)
            if generation > self.settled.get(name, (0, 0.0))[0]:
                self.settled[name] = (generation, now)

    async def create(self) -> None:
        """Makes them all, in order, `AT_ONCE` at a time."""

        async def make(name: str) -> None:
            path = resources.DEPLOYMENTS.path(self.namespace_of(name))
            await self.admin.call("POST", path, self.manifest(name))
            self.made[name] = time.monotonic()

        await at_once(AT_ONCE, (make(name) for name in self.names))

    async def all_ready(self, within_s: float) -> None:
        """Waits until every one was seen Ready. Raises TimeoutError with a count."""
        end = time.monotonic() + within_s
        while len(self.ready) < self.count:
            if time.monotonic() > end:
                raise TimeoutError(f"{len(self.ready)} of {self.count} are Ready after {within_s:.0f} s")
            await asyncio.sleep(0.1)

    async def edit(self, a_second: float, seconds: float, change: Callable[[int], Raw]) -> list[float]:
        """Changes one deployment after the other at a steady rate, by `change` of how often it was its turn;
        the seconds until each is Ready again.
        """
        delays: list[float] = []
        waiting: list[asyncio.Task[None]] = []
        start = time.monotonic()
        for number in range(round(a_second * seconds)):
            await asyncio.sleep(max(start + number / a_second - time.monotonic(), 0))
            name, turn = self.names[number % self.count], number // self.count
            waiting.append(asyncio.create_task(self._edit(name, {"spec": change(turn)}, delays)))
        await asyncio.gather(*waiting)
        return delays

    async def _edit(self, name: str, change: Raw, delays: list[float]) -> None:
        began = time.monotonic()
        changed = await self.admin.patch(resources.DEPLOYMENTS, self.namespace_of(name), name, change)
        wanted = changed["metadata"]["generation"]

        def settled() -> bool:
            return self.settled.get(name, (0, 0.0))[0] >= wanted

        async with self._noted, asyncio.timeout(60):
            await self._noted.wait_for(settled)
        delays.append(self.settled[name][1] - began)

    async def delete(self, within_s: float) -> None:
        """Deletes them all and waits until their pods are gone too."""
        path = resources.DEPLOYMENTS.path
        await at_once(
            16, (self.admin.call("DELETE", path(self.namespace_of(name), name)) for name in self.names)
        )
        end = time.monotonic() + within_s
        while await self.all(resources.PODS):
            if time.monotonic() > end:
                raise TimeoutError(f"pods are left after {within_s:.0f} s")
            await asyncio.sleep(1)

    async def all(self, resource: Resource) -> list[Raw]:
        """The objects of a kind in the fleet's namespaces."""
        return [raw for namespace in self.namespaces for raw in await self.admin.all(resource, namespace)]


async def at_once(limit: int, jobs: Iterable[Any]) -> None:
    """Awaits `jobs`, `limit` of them at a time, begun in order."""
    iterator = iter(jobs)

    async def work() -> None:
        for job in iterator:
            await job

    await asyncio.gather(*(work() for _ in range(limit)))


def percentile(values: Sequence[float], share: float) -> float:
    """The value below which `share` (0..1) of `values` lie."""
    ordered = sorted(values)
    return ordered[min(int(share * len(ordered)), len(ordered) - 1)]
