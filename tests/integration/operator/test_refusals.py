"""The API server refuses for a while: 409 and 429. Waited out, said in log and metrics, and repaired.

A proxy in front of the real API server refuses, or changes an object just before the operator's write of it
arrives, so that the server itself answers 409.
"""

import asyncio
import itertools
import time
from collections import defaultdict

import pytest
from aiohttp import web

from stepaudio_operator import names
from stepaudio_operator.kube import resources
from tests.integration.operator.conftest import Stage
from tests.integration.operator.pools import Pools
from tests.integration.operator.proxy import WRITES, Proxy, refusal
from tests.integration.operator.test_faults import counts
from tests.integration.operator.world import LONG_LEASE, Operator, eventually

pytestmark = pytest.mark.api

RETRY_AFTER_S = 3


async def reconciles_fail(operator: Operator, error: str) -> bool:
    """Whether a reconcile has failed for this reason, by the metrics."""
    return await counts(operator, "reconcile", error)


async def test_told_to_stop_before_its_first_lists_are_in_it_stops(stage: Stage) -> None:
    async def no_lists(request: web.Request) -> web.Response | None:
        return refusal(403, "Forbidden", "not yet") if request.path.endswith("/pods") else None

    async with Proxy(stage.admin) as proxy:
        proxy.rule = no_lists
        operator = stage.start_operator(server=proxy.url, **LONG_LEASE)
        await eventually(operator.leads, "it leads")
        assert await asyncio.to_thread(operator.stop) == 0  # the proxy answers meanwhile


async def test_kinds_that_cannot_be_read_are_named_with_their_cure_and_waited_for(stage: Stage) -> None:
    lacking = {"stepaudiovoices": 404, "stepaudiodeployments": 404, "configmaps": 403}

    async def no_such_kind(request: web.Request) -> web.Response | None:
        code = lacking.get(request.path.rsplit("/", 1)[-1]) if request.method == "GET" else None
        return refusal(code, "NotFound", "not here") if code else None

    async with Proxy(stage.admin) as proxy, stage.gateways("nano"):
        proxy.rule = no_such_kind
        await stage.deploy("nano", chat={"enabled": False}, tokenizer={"enabled": False})
        operator = stage.start_operator(server=proxy.url, **LONG_LEASE)
        await eventually(operator.leads, "it leads")

        async def named() -> bool:
            said = await operator.readiness()
            installed = all(f"install the CRD {kind}.stepaudio.io" in said for kind in list(lacking)[:2])
            return installed and "ConfigMap (not here: allow the operator to get, list and watch" in said

        await eventually(named, "/readyz names the three kinds and their cures", within_s=20)
        assert await counts(operator, "watch StepAudioVoice", "NotFound")
        assert await counts(operator, "watch ConfigMap", "Forbidden")
        assert "stepaudiodeployments: not here: install the CRD" in operator.log.read_text()
        assert await stage.admin.all(resources.POOLS, stage.namespace) == []
        lacking.clear()
        await eventually(operator.ready, "it goes on by itself")
        await Pools(stage).is_ready()


async def test_too_many_requests_are_taken_at_their_word(stage: Stage) -> None:
    refused: dict[str, list[float]] = defaultdict(list)

    async def busy(request: web.Request) -> web.Response | None:
        if request.method not in WRITES or "/leases" in request.path:
            return None
        refused[request.path].append(time.monotonic())
        return refusal(429, "TooManyRequests", "please try again", **{"Retry-After": str(RETRY_AFTER_S)})

    async with Proxy(stage.admin) as proxy, stage.gateways("nano"):
        operator = stage.start_operator(server=proxy.url, **LONG_LEASE)
        await eventually(operator.leads, "it leads")
        proxy.rule = busy
        await stage.deploy("nano")

        async def thrice() -> bool:
            return any(len(times) >= 3 for times in refused.values())

        await eventually(thrice, "it has tried three times")
        assert await reconciles_fail(operator, "Throttled")
        assert "StepAudioDeployment" in operator.log.read_text()
        assert "Throttled: please try again" in operator.log.read_text()
        assert await stage.admin.all(resources.POOLS, stage.namespace) == []
        # Nothing is tried again before the server said so.
        for times in refused.values():
            pauses = [later - earlier for earlier, later in itertools.pairwise(times)]
            assert all(pause >= RETRY_AFTER_S for pause in pauses), refused

        proxy.rule = lambda request: _nothing()
        await Pools(stage).is_ready()


async def test_conflicts_are_looked_at_anew(stage: Stage) -> None:
    pools = Pools(stage)
    seen: list[str] = []

    async def every_fifth(request: web.Request) -> web.Response | None:
        if request.method not in WRITES or "/leases" in request.path:
            return None
        seen.append(f"{request.method} {request.path}")
        if len(seen) % 5:
            return None
        return refusal(409, "Conflict", "the object has been modified")

    async with Proxy(stage.admin) as proxy, stage.gateways("nano"):
        operator = stage.start_operator(server=proxy.url, **LONG_LEASE)
        proxy.rule = every_fifth
        await stage.deploy("nano")
        await pools.is_ready()
        assert len(seen) >= 30
        assert await reconciles_fail(operator, "Conflict")
        assert "Conflict: the object has been modified; next try in" in operator.log.read_text()

        # An autoscaler is faster by a moment: the server refuses what was written on old knowledge.
        async def scaled_before(request: web.Request) -> web.Response | None:
            path = resources.POOLS.path(stage.namespace, "nano-tts")
            if request.method == "PATCH" and request.path == path and not raced:
                raced.append(path)
                body = {"spec": {"replicas": 3}}
                await stage.admin.patch(resources.POOLS, stage.namespace, "nano-tts", body, "scale")
            return None

        raced: list[str] = []
        proxy.rule = scaled_before
        await stage.deploy("nano", rollout={"maxUnavailable": 2})

        async def count() -> int:
            return len(await pools.pods("tts"))

        async def three() -> bool:
            pool = await pools.pool("tts")
            return pool["spec"].get("rollout", {}).get("maxUnavailable") == 2 and await count() == 3

        await eventually(three, "its number stands, and the edit too")
        assert raced
        assert (await pools.pool("tts"))["spec"]["replicas"] == 3
        fields = (await pools.pool("tts"))["metadata"]["managedFields"]
        held = [e["manager"] for e in fields if "f:replicas" in e["fieldsV1"].get("f:spec", {})]
        assert names.FIELD_MANAGER not in held
        await pools.is_ready()


async def _nothing() -> None:
    return None
