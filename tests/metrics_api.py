"""Serves custom.metrics.k8s.io to real API servers, for tests with HorizontalPodAutoscalers.

As an adapter in front of Prometheus does, for one series of the pods of a namespace: the numbers come from a
function of the test.
"""

import ssl
from collections.abc import Awaitable, Callable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from aiohttp import web

from stepaudio_cluster.certs import Authority

GROUP = "custom.metrics.k8s.io"
METRIC = "stepaudio_in_flight"
SERVICE = f"v1beta2.{GROUP}"
"""Of the APIService."""
Values = Callable[[str], Awaitable[Mapping[str, float]]]
"""Namespace -> pod -> the series' value now."""


class MetricsApi:
    """Serves `METRIC` of all pods of a namespace that `values` names."""

    def __init__(self, values: Values) -> None:
        self._values = values

    async def start(self, folder: Path, host: str = "127.0.0.1") -> int:
        """Listens, with a certificate of its own in `folder`; returns the port."""
        app = web.Application()
        app.router.add_get(f"/apis/{GROUP}/v1beta2", self._resources)
        app.router.add_get(f"/apis/{GROUP}/v1beta2/namespaces/{{ns}}/pods/*/{METRIC}", self._listed)
        app.router.add_get("/{path:.*}", self._nothing)
        self._runner = web.AppRunner(app, access_log=None)
        await self._runner.setup()
        await web.TCPSite(self._runner, host, 0, ssl_context=_certificate(folder, host)).start()
        port: int = self._runner.addresses[0][1]
        return port

    async def close(self) -> None:
        """Ends."""
        await self._runner.cleanup()

    async def _resources(self, _request: web.Request) -> web.Response:
        metric = {"name": f"pods/{METRIC}", "namespaced": True, "singularName": ""}
        listed = {**metric, "kind": "MetricValueList", "verbs": ["get"]}
        body = {"kind": "APIResourceList", "apiVersion": "v1", "groupVersion": f"{GROUP}/v1beta2"}
        return web.json_response({**body, "resources": [listed]})

    async def _listed(self, request: web.Request) -> web.Response:
        values = await self._values(request.match_info["ns"])
        now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        items = [
            {
                "describedObject": {"kind": "Pod", "apiVersion": "/v1", "name": pod},
                "metric": {"name": METRIC},
                "timestamp": now,
                "value": f"{round(1000 * value)}m",
            }
            for pod, value in values.items()
        ]
        head = {"kind": "MetricValueList", "apiVersion": f"{GROUP}/v1beta2", "metadata": {}}
        return web.json_response({**head, "items": items})

    async def _nothing(self, _request: web.Request) -> web.Response:
        return web.json_response({"kind": "Status", "status": "Failure", "code": 404}, status=404)


def registration(namespace: str, host: str, port: int) -> tuple[dict[str, Any], dict[str, Any]]:
    """The Service in `namespace` and the APIService that lead an API server to such a server."""
    service = {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": "metrics", "namespace": namespace},
        "spec": {"type": "ExternalName", "externalName": host, "ports": [{"port": port}]},
    }
    registered = {
        "apiVersion": "apiregistration.k8s.io/v1",
        "kind": "APIService",
        "metadata": {"name": SERVICE},
        "spec": {
            "group": GROUP,
            "version": "v1beta2",
            "groupPriorityMinimum": 100,
            "versionPriority": 100,
            "insecureSkipTLSVerify": True,
            "service": {"namespace": namespace, "name": "metrics", "port": port},
        },
    }
    return service, registered


def _certificate(folder: Path, host: str) -> ssl.SSLContext:
    authority = Authority(folder / "certs", "metrics-ca")
    authority.ensure()
    pair = authority.issue("metrics", "metrics", hosts=["localhost", host])
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pair.certificate, pair.key)
    return context
