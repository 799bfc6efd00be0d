"""A real HorizontalPodAutoscaler scales a pool by the example in examples/autoscaling, up and down, and the
operator follows without taking the number back.

The HPA controller and the API server's aggregation are real; the metrics API behind them is played.
"""

from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
import yaml

from stepaudio_operator import names
from stepaudio_operator.kube import resources
from stepaudio_operator.kube.resources import Resource
from tests.integration.operator.conftest import Stage
from tests.integration.operator.world import LONG_LEASE, Refused, eventually
from tests.metrics_api import GROUP, SERVICE, MetricsApi, registration

pytestmark = pytest.mark.api

EXAMPLE = Path(__file__).parents[3] / "examples/autoscaling/hpa.yaml"
PATIENCE_S = 240.0
_NONE: frozenset[str] = frozenset()
API_SERVICES = Resource("apiregistration.k8s.io", "v1", "apiservices", "APIService", _NONE)
AUTOSCALERS = Resource("autoscaling", "v2", "horizontalpodautoscalers", "HorizontalPodAutoscaler", _NONE)


@dataclass
class Played:
    """The same number of requests in flight in every TTS pod."""

    stage: Stage
    in_flight: int = 0

    async def __call__(self, namespace: str) -> dict[str, float]:
        pods = await self.stage.admin.names(resources.PODS, namespace)
        return {pod: self.in_flight for pod in pods if pod.startswith("nano-tts-")}


@pytest_asyncio.fixture
async def metrics(stage: Stage, tmp_path: Path) -> AsyncIterator[Played]:
    """What the metrics API says, which the API server knows while the test runs."""
    played = Played(stage)
    api = MetricsApi(played)
    port = await api.start(tmp_path)
    service, registered = registration(stage.namespace, "localhost", port)
    await stage.admin.apply(resources.SERVICES, service)
    await stage.admin.apply(API_SERVICES, registered)
    yield played
    await stage.admin.delete(API_SERVICES, None, SERVICE)
    await api.close()


def autoscaler(namespace: str) -> dict[str, Any]:
    """The example, for this deployment, and without the patience that it asks for."""
    body: dict[str, Any] = yaml.safe_load(EXAMPLE.read_text())
    body["metadata"] = {"name": "nano-tts", "namespace": namespace}
    body["spec"]["scaleTargetRef"]["name"] = "nano-tts"
    body["spec"]["behavior"]["scaleDown"] = {"stabilizationWindowSeconds": 0}
    return body


async def test_an_autoscaler_scales_a_pool_up_and_down(stage: Stage, metrics: Played) -> None:
    admin, namespace = stage.admin, stage.namespace
    stage.start_operator(**LONG_LEASE)
    await stage.deploy("nano")

    async def replicas() -> tuple[int | None, int | None]:
        pool = await admin.find(resources.POOLS, namespace, "nano-tts")
        if pool is None:
            return None, None
        return pool["spec"].get("replicas"), (pool.get("status") or {}).get("readyReplicas")

    async def there(count: int) -> bool:
        return await replicas() == (count, count)

    await eventually(lambda: there(1), "the preset's one replica is ready", within_s=PATIENCE_S)
    metrics.in_flight = 9
    await admin.apply(AUTOSCALERS, autoscaler(namespace))
    await eventually(lambda: there(3), "9 in flight at 4 a replica make 3", within_s=PATIENCE_S)
    pool = await admin.get(resources.POOLS, namespace, "nano-tts")
    managers = {
        entry["manager"]
        for entry in pool["metadata"]["managedFields"]
        if "f:replicas" in entry["fieldsV1"].get("f:spec", {})
    }
    assert names.FIELD_MANAGER not in managers

    metrics.in_flight = 1
    await eventually(lambda: there(1), "little in flight makes one again", within_s=PATIENCE_S)
    scaled = await admin.get(AUTOSCALERS, namespace, "nano-tts")
    able = {c["type"]: c["status"] for c in scaled["status"]["conditions"]}
    assert (able["AbleToScale"], able["ScalingActive"]) == ("True", "True")
    with pytest.raises(Refused):
        await admin.call("GET", f"/apis/{GROUP}/v1beta2/namespaces/{namespace}/pods/x/y/z")
