"""A real HorizontalPodAutoscaler scales a pool by the example in examples/autoscaling, up and down, and the
operator follows without taking the number back.

The HPA controller and the API server's aggregation are real; the metrics API behind them is played.
"""

import ssl
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
import yaml
from aiohttp import web

from stepaudio_cluster.certs import Authority
from stepaudio_operator import names
from stepaudio_operator.kube import resources
from stepaudio_operator.kube.resources import Resource
from tests.integration.operator.conftest import Stage
from tests.integration.operator.world import LONG_LEASE, Refused, eventually

pytestmark = pytest.mark.api

EXAMPLE = Path(__file__).parents[3] / "examples/autoscaling/hpa.yaml"
GROUP = "custom.metrics.k8s.io"
PATIENCE_S = 240.0
_NONE: frozenset[str] = frozenset()
API_SERVICES = Resource("apiregistration.k8s.io", "v1", "apiservices", "APIService", _NONE)
AUTOSCALERS = Resource("autoscaling", "v2", "horizontalpodautoscalers", "HorizontalPodAutoscaler", _NONE)


class MetricsApi:
    """Serves one metric of every TTS pod of a namespace, as an adapter in front of Prometheus does."""

    def __init__(self, stage: Stage) -> None:
        self._stage = stage
        self.in_flight = 0
        self.asked = 0

    async def start(self, folder: Path) -> int:
        """Returns the port."""
        app = web.Application()
        app.router.add_get(f"/apis/{GROUP}/v1beta2", self._resources)
        app.router.add_get(f"/apis/{GROUP}/v1beta2/namespaces/{{ns}}/pods/*/{{metric}}", self._values)
        app.router.add_get("/{path:.*}", self._nothing)
        self._runner = web.AppRunner(app, access_log=None)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", 0, ssl_context=_own_certificate(folder))
        await site.start()
        port: int = self._runner.addresses[0][1]
        return port

    async def close(self) -> None:
        await self._runner.cleanup()

    async def _resources(self, _request: web.Request) -> web.Response:
        metric = {"name": "pods/stepaudio_in_flight", "namespaced": True, "singularName": ""}
        listed = {**metric, "kind": "MetricValueList", "verbs": ["get"]}
        body = {"kind": "APIResourceList", "apiVersion": "v1", "groupVersion": f"{GROUP}/v1beta2"}
        return web.json_response({**body, "resources": [listed]})

    async def _values(self, request: web.Request) -> web.Response:
        self.asked += 1
        now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        pods = await self._stage.admin.names(resources.PODS, request.match_info["ns"])
        items = [
            {
                "describedObject": {"kind": "Pod", "apiVersion": "/v1", "name": pod},
                "metric": {"name": request.match_info["metric"]},
                "timestamp": now,
                "value": str(self.in_flight),
            }
            for pod in pods
            if pod.startswith("nano-tts-")
        ]
        head = {"kind": "MetricValueList", "apiVersion": f"{GROUP}/v1beta2", "metadata": {}}
        return web.json_response({**head, "items": items})

    async def _nothing(self, _request: web.Request) -> web.Response:
        return web.json_response({"kind": "Status", "status": "Failure", "code": 404}, status=404)


def _own_certificate(folder: Path) -> ssl.SSLContext:
    authority = Authority(folder / "certs", "metrics-ca")
    authority.ensure()
    pair = authority.issue("metrics", "metrics", hosts=["localhost", "127.0.0.1"])
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pair.certificate, pair.key)
    return context


@pytest_asyncio.fixture
async def metrics(stage: Stage, tmp_path: Path) -> AsyncIterator[MetricsApi]:
    """The metrics API, known to the API server while the test runs."""
    api = MetricsApi(stage)
    port = await api.start(tmp_path)
    service = {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": "metrics", "namespace": stage.namespace},
        "spec": {"type": "ExternalName", "externalName": "localhost", "ports": [{"port": port}]},
    }
    await stage.admin.apply(resources.SERVICES, service)
    registered = {
        "apiVersion": "apiregistration.k8s.io/v1",
        "kind": "APIService",
        "metadata": {"name": f"v1beta2.{GROUP}"},
        "spec": {
            "group": GROUP,
            "version": "v1beta2",
            "groupPriorityMinimum": 100,
            "versionPriority": 100,
            "insecureSkipTLSVerify": True,
            "service": {"namespace": stage.namespace, "name": "metrics", "port": port},
        },
    }
    await stage.admin.apply(API_SERVICES, registered)
    yield api
    await stage.admin.delete(API_SERVICES, None, f"v1beta2.{GROUP}")
    await api.close()


def autoscaler(namespace: str) -> dict[str, Any]:
    """The example, for this deployment, and without the patience that it asks for."""
    body: dict[str, Any] = yaml.safe_load(EXAMPLE.read_text())
    body["metadata"] = {"name": "nano-tts", "namespace": namespace}
    body["spec"]["scaleTargetRef"]["name"] = "nano-tts"
    body["spec"]["behavior"]["scaleDown"] = {"stabilizationWindowSeconds": 0}
    return body


async def test_an_autoscaler_scales_a_pool_up_and_down(stage: Stage, metrics: MetricsApi) -> None:
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
