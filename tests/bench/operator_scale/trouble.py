"""Fleets for which not all goes well: pods that load slowly, a revision that crashes, a canary that fails.

Asked is what becomes of every single deployment, and how often the operator writes until then.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from stepaudio_operator import names
from stepaudio_operator.kube import resources
from tests.bench.operator_scale.fleet import FOUR_POOLS, TTS_ONLY, Fleet, at_once
from tests.bench.operator_scale.processes import usage
from tests.integration.operator.world import Admin, Operator, condition

Raw = dict[str, Any]
LOADS = {"simulated.example.com/loads": "20s"}
CRASHES = {"simulated.example.com/crashes": "1"}
CANARY: Raw = {
    "strategy": "Canary",
    "canary": {"steps": [{"traffic": 20, "pause": "20s"}, {"traffic": 50, "pause": "20s"}]},
}


@dataclass
class Trouble:
    """One kind of it: how long until every deployment was where it should be (s), and the operator's writes
    and CPU seconds until then. `lost`: pods of the good revision that did not live through it.
    """

    what: str
    count: int
    settled_s: float = 0.0
    writes: float = 0.0
    cpu_s: float = 0.0
    lost: int = 0


async def slow_loading(fleet: Fleet, process: Operator) -> Trouble:
    """Every pod loads for 20 to 30 s."""
    async with _counted(Trouble("pods that load for 20 to 30 s", fleet.count), process) as found:
        await fleet.create()
        await fleet.all_ready(within_s=120 + fleet.count)
    return found.trouble


async def crash_loop(fleet: Fleet, process: Operator) -> Trouble:
    """Every deployment gets a revision whose pods crash, and goes back by itself."""
    return await _goes_back(fleet, process, "a revision that crashes again and again", CRASHES)


async def failing_canary(fleet: Fleet, process: Operator) -> Trouble:
    """Every deployment tries a canary of which forty of a hundred requests fail, and goes back by itself."""
    return await _goes_back(
        fleet, process, "a canary whose requests fail", {"simulated.example.com/tried": "1"}
    )


class _counted:  # noqa: N801 - reads as what it does
    """Fills in what the operator did meanwhile."""

    def __init__(self, trouble: Trouble, process: Operator) -> None:
        self.trouble = trouble
        self._process = process

    async def __aenter__(self) -> "_counted":
        self._began = time.monotonic()
        self._writes = sum((await self._process.writes()).values())
        self._cpu_s = usage(self._process.process.pid).cpu_s
        return self

    async def __aexit__(self, *exc: object) -> None:
        self.trouble.settled_s = time.monotonic() - self._began
        self.trouble.writes = sum((await self._process.writes()).values()) - self._writes
        self.trouble.cpu_s = usage(self._process.process.pid).cpu_s - self._cpu_s


async def _goes_back(fleet: Fleet, process: Operator, what: str, said: Raw) -> Trouble:
    before = await _tts_pods(fleet)
    async with _counted(Trouble(what, fleet.count), process) as found:
        change = {"spec": {"tts": {"podTemplate": {"annotations": said}}}}

        async def edit(name: str) -> None:
            await fleet.admin.patch(resources.DEPLOYMENTS, fleet.namespace_of(name), name, change)

        await at_once(4, (edit(name) for name in fleet.names))

        async def back() -> bool:
            raws = await fleet.all(resources.DEPLOYMENTS)
            held = [raw for raw in raws if condition(raw, "Stalled").get("reason") == "RevisionQuarantined"]
            return len(held) == fleet.count and len(await _tts_pods(fleet)) == len(before)

        await _until(back, within_s=240 + 2 * fleet.count)
    found.trouble.lost = len(before - await _tts_pods(fleet))
    return found.trouble


async def _tts_pods(fleet: Fleet) -> set[str]:
    """The uids of the speech pods."""
    pods = [pod["metadata"] for pod in await fleet.all(resources.PODS)]
    return {pod["uid"] for pod in pods if pod["labels"][names.LABEL_COMPONENT] == names.TTS}


async def _until(check: Callable[[], Awaitable[bool]], within_s: float) -> None:
    end = time.monotonic() + within_s
    while not await check():
        if time.monotonic() > end:
            raise TimeoutError(f"not within {within_s:.0f} s")
        await asyncio.sleep(1)


async def all_kinds(
    admin: Admin, count: int, process: Operator, make_namespace: Callable[[str], Awaitable[None]]
) -> list[Trouble]:
    """The three kinds, with `count` deployments each."""
    found = []
    for namespace, parts, kind in (
        ("slow", TTS_ONLY, crash_loop),
        ("canary", {**FOUR_POOLS, "rollout": CANARY, "tts": {"replicas": 2}}, failing_canary),
    ):
        await make_namespace(namespace)
        fleet = Fleet(admin, [namespace], count, parts, LOADS if kind is crash_loop else {})
        async with fleet.followed():
            if kind is crash_loop:
                found.append(await slow_loading(fleet, process))
            else:
                await fleet.create()
                await fleet.all_ready(within_s=120 + 2 * count)
            found.append(await kind(fleet, process))
        await fleet.delete(within_s=120 + count)
    return found
