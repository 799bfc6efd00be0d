"""A pool goes to sleep on a real API server, and a request at a real gateway wakes it: the operator's process
asks pods and gateway over HTTP, and the request that was held is answered by the pod that was made for it.

Played are the kubelet, what a TTS pod says, and the EndpointSlices, which the API server refuses on loopback.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
import pytest_asyncio
import uvicorn
from aiohttp import web

from stepaudio_operator import names
from stepaudio_operator.kube import resources
from stepaudio_runtime.contract import SPEECH_RATE, Route
from stepaudio_runtime.gateway.app import Gateway
from stepaudio_runtime.gateway.routing import Endpoint, parse_routing
from stepaudio_runtime.gateway.serve import http_client
from stepaudio_runtime.gateway.settings import GatewaySettings
from stepaudio_runtime.health.state import PodState
from tests.integration.operator.conftest import Stage
from tests.integration.operator.world import (
    GATEWAY_HOST,
    LONG_LEASE,
    PATIENCE,
    POD_HOST,
    Raw,
    answering,
    eventually,
    ready,
    status_of,
)

pytestmark = pytest.mark.api

OFF = {"enabled": False}
POOL = "nano-tts"
URL = f"http://{GATEWAY_HOST}:{names.GATEWAY_PORT}"


@pytest_asyncio.fixture
async def speech_pod() -> AsyncIterator[PodState]:
    """Answers as a TTS pod, at the address of every pod but the gateway's."""
    state = PodState("tts")
    state.become_ready()

    async def speech(_request: web.Request) -> web.Response:
        with state.admit():
            return web.Response(body=b"\0\0" * 2205, headers={"X-Sample-Rate": str(SPEECH_RATE)})

    async with answering(POD_HOST, web.post(Route.SPEECH, speech), status_of(state)):
        yield state


@pytest_asyncio.fixture
async def gateway(stage: Stage) -> AsyncIterator[Gateway]:
    """The gateway at its pods' address."""
    settings, state = GatewaySettings(), PodState("gateway")
    made = Gateway(settings, state, http_client(settings))
    state.become_ready()
    server = uvicorn.Server(
        uvicorn.Config(made.app, GATEWAY_HOST, names.GATEWAY_PORT, log_level="error", lifespan="off")
    )
    tasks = [asyncio.create_task(server.serve()), asyncio.create_task(_follow(stage, made))]
    yield made
    server.should_exit = True
    tasks[1].cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    await made.close()


async def _follow(stage: Stage, gateway: Gateway) -> None:
    """What the gateway's watch would tell it, by asking again and again."""
    while True:
        with contextlib.suppress(httpx.HTTPError):
            stored = await stage.admin.find(resources.CONFIG_MAPS, stage.namespace, names.routing("nano"))
            pods = await stage.admin.all(resources.PODS, stage.namespace)
            if stored is not None:
                found = tuple(_endpoint(pod) for pod in pods if _serves(pod))
                gateway.routing_changed(parse_routing(stored["data"][names.ROUTING_KEY]), {names.TTS: found})
        await asyncio.sleep(0.2)


def _serves(pod: Raw) -> bool:
    conditions = {c["type"]: c["status"] for c in pod["status"].get("conditions", ())}
    of = pod["metadata"]["labels"].get(names.LABEL_COMPONENT)
    return (
        of == names.TTS and conditions.get("Ready") == "True" and "deletionTimestamp" not in pod["metadata"]
    )


def _endpoint(pod: Raw) -> Endpoint:
    meta = pod["metadata"]
    url = f"http://{pod['status']['podIP']}:{names.POOL_PORT}"
    return Endpoint(meta["name"], url, meta["labels"][names.LABEL_REVISION])


async def test_a_pool_sleeps_and_a_request_is_held_until_it_is_awake(
    stage: Stage, speech_pod: PodState, gateway: Gateway
) -> None:
    admin, namespace = stage.admin, stage.namespace
    stage.start_operator(**LONG_LEASE)
    rules = {"min": 0, "max": 2, "downWindow": "5s", "hold": "2m"}
    await stage.deploy("nano", chat=OFF, tokenizer=OFF, tts={"autoscaling": rules})
    await eventually(lambda: ready(admin, namespace, "nano"), "Ready")

    async def pool(replicas: int) -> dict[str, Any] | None:
        found = await admin.get(resources.POOLS, namespace, POOL)
        state = found.get("status") or {}
        held = state.get("autoscaling") or {}
        settled = (found["spec"].get("replicas"), state.get("readyReplicas")) == (replicas, replicas)
        return held if settled and held.get("replicas") == replicas else None

    asleep = await eventually(lambda: pool(0), "nobody asks, so it goes to sleep", within_s=120)
    assert asleep["reason"] == "0.0 requests in flight, 2 for a replica"
    await eventually(lambda: ready(admin, namespace, "nano"), "Ready, asleep as it is")

    async def knows() -> bool:
        return not gateway.balancer.candidates(names.TTS)

    await eventually(knows, "the gateway knows that no pod is left")

    async with httpx.AsyncClient(timeout=150 * PATIENCE) as client:
        body = {"model": "step-audio-tts", "input": "hello", "response_format": "pcm"}
        answer = await client.post(f"{URL}{Route.AUDIO_SPEECH}", json=body)
    assert answer.status_code == 200, answer.text
    assert len(answer.content) > 2000
    assert speech_pod.admitted == 1
    awake = await eventually(lambda: pool(1), "one replica")
    assert awake["reason"] == "a request waits for a pod"
    events = await admin.call("GET", f"/apis/events.k8s.io/v1/namespaces/{namespace}/events")
    notes = [e["note"] for e in events["items"] if e["reason"] == "Scaled" and e["regarding"]["name"] == POOL]
    assert sorted(notes) == [
        "0 to 1 replicas: a request waits for a pod",
        "1 to 0 replicas: 0.0 requests in flight, 2 for a replica",
    ]
    live = await admin.get(resources.POOLS, namespace, POOL)
    managers = [
        entry["manager"]
        for entry in live["metadata"]["managedFields"]
        if "f:replicas" in entry["fieldsV1"].get("f:spec", {})
    ]
    assert managers == [names.AUTOSCALER_FIELD_MANAGER]
