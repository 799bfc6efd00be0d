"""GPU memory against a real API server: what cannot fit is refused in the condition and makes no pod; what
pods say that their GPUs hold stands beside the estimate, and where the two drift apart an Event says it.
"""

from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio

from stepaudio_operator import names
from stepaudio_operator.kube import resources
from stepaudio_runtime.health.state import PodState
from tests.integration.operator.conftest import Stage
from tests.integration.operator.world import (
    LONG_LEASE,
    POD_HOST,
    answering,
    condition,
    eventually,
    stalled,
    status_of,
)

pytestmark = pytest.mark.api

Raw = dict[str, Any]
CARD = 85_520_809_984  # an H100 of 80 GB, as its driver says
HEARS: Raw = {
    "preset": "step-audio",
    "models": {"source": {"pvc": {"claimName": "models"}}},
    "tts": {"enabled": False},
    "gateway": {"enabled": False},
}


@pytest_asyncio.fixture
async def chat_pod() -> AsyncIterator[PodState]:
    """Answers as a chat pod, at the address of every pod but the gateway's."""
    state = PodState("chat")
    state.become_ready()
    async with answering(POD_HOST, status_of(state)):
        yield state


def hold(state: PodState, gigabytes: float) -> None:
    """Its four GPUs are filled so far."""
    gpu: Any = {"product": "H100", "usedBytes": round(gigabytes * 1e9), "totalBytes": CARD}
    state.gpus = [gpu] * 4


async def test_what_cannot_fit_is_refused_with_what_would(stage: Stage) -> None:
    admin, namespace = stage.admin, stage.namespace
    stage.start_operator(**LONG_LEASE)
    await stage.deploy("large", **{**HEARS, "chat": {"gpu": {"count": 4, "memory": "48GB"}}})

    said = await eventually(
        lambda: stalled(admin, resources.DEPLOYMENTS, namespace, "large"), "the deployment is stalled"
    )
    assert said["reason"] == "InsufficientVram"
    assert "would fit: quantization FP8, or gpu.count 8, or gpu.memory 80GB" in said["message"]
    assert await admin.all(resources.POOLS, namespace) == []


async def test_what_gpus_hold_stands_beside_the_estimate(stage: Stage, chat_pod: PodState) -> None:
    admin, namespace = stage.admin, stage.namespace
    hold(chat_pod, 60.0)
    operator = stage.start_operator()
    await stage.deploy("large", **HEARS)

    async def measured(reason: str) -> Raw | None:
        pool = await admin.find(resources.POOLS, namespace, "large-chat")
        drift = condition(pool, names.GPU_MEMORY_DRIFT)
        return pool if pool and drift.get("reason") == reason else None

    pool = await eventually(lambda: measured("LessThanEstimated"), "the drift is said")
    assert pool["status"]["vram"] == {
        "product": "H100",
        "card": "85.5GB",
        "needed": "72.7GB",
        "expected": "81.2GB",
        "measured": "60.0GB",
    }
    assert condition(pool, "Ready")["status"] == "True"

    async def told() -> Raw | None:
        events = await admin.all(resources.EVENTS, namespace)
        return next((e for e in events if e["reason"] == "LessThanEstimated"), None)

    event = await eventually(told, "an Event says it")
    assert event["regarding"]["name"] == "large-chat"
    assert "one GPU holds 60.0GB of 85.5GB, expected are 81.2GB" in event["note"]

    operator.kill()
    hold(chat_pod, 81.4)
    stage.start_operator(identity="two")
    pool = await eventually(lambda: measured("AsEstimated"), "the drift is over", within_s=60)
    assert pool["status"]["vram"]["measured"] == "81.4GB"
