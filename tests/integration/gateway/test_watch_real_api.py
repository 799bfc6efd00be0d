"""The gateway's watch against a real API server, with no more rights than its Role gives: the routing
ConfigMap by name, and EndpointSlices.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator

import pytest
from kubernetes.aio import client as kubernetes
from kubernetes.aio import config

from stepaudio_cluster.api import Cluster
from stepaudio_operator import names
from stepaudio_operator.records import RoutedPool
from stepaudio_operator.records import Routing as Routed
from stepaudio_operator.render import routing as render
from stepaudio_runtime.gateway.routing import Endpoint
from stepaudio_runtime.gateway.watch import ApiFault, InClusterApi, KubernetesSource

pytestmark = pytest.mark.api

NAMESPACE, NAME, REVISION = "gateway-watch", "prod", "1f0c22aa"


def apply(cluster: Cluster, *objects: dict) -> None:
    text = json.dumps({"apiVersion": "v1", "kind": "List", "items": list(objects)})
    cluster.kubectl("apply", "--server-side", "--force-conflicts", "-f", "-", stdin=text)


def thing(kind: str, name: str, api: str = "v1", **fields) -> dict:
    return {"apiVersion": api, "kind": kind, "metadata": {"name": name, "namespace": NAMESPACE}, **fields}


def routing(generation: int, *pools: str) -> dict:
    routed = {pool: RoutedPool(names.pool(NAME, pool), names.POOL_PORT, {REVISION: 100}) for pool in pools}
    owner = {"apiVersion": "v1", "kind": "X", "metadata": {"name": NAME, "namespace": NAMESPACE, "uid": "u"}}
    document = Routed(generation=generation, release="r", serving=True, retry_after_s=None, pools=routed)
    found = render.config_map(owner, document)
    del found["metadata"]["ownerReferences"]  # its owner does not exist here
    return found


def slices(pool: str, *slots: int) -> dict:
    service = names.pool(NAME, pool)
    found = thing("EndpointSlice", f"{service}-x", "discovery.k8s.io/v1", addressType="IPv4")
    found["metadata"]["labels"] = {"kubernetes.io/service-name": service}
    found["ports"] = [{"name": "http", "port": 8000, "protocol": "TCP"}]
    found["endpoints"] = [
        {
            "addresses": [f"10.9.0.{slot + 1}"],
            "conditions": {"ready": True},
            "targetRef": {"kind": "Pod", "name": names.pod(service, REVISION, slot), "namespace": NAMESPACE},
        }
        for slot in slots
    ]
    return found


@pytest.fixture
async def api(api_cluster: Cluster) -> AsyncIterator[InClusterApi]:
    """The API with the gateway's rights."""
    rbac = "rbac.authorization.k8s.io"
    account = names.gateway_identity(NAME)
    verbs = ["get", "list", "watch"]
    api_cluster.kubectl("create", "namespace", NAMESPACE)
    role = thing("Role", account, f"{rbac}/v1")
    role["rules"] = [
        {
            "apiGroups": [""],
            "resources": ["configmaps"],
            "resourceNames": [names.routing(NAME)],
            "verbs": verbs,
        },
        {"apiGroups": ["discovery.k8s.io"], "resources": ["endpointslices"], "verbs": verbs},
    ]
    binding = thing("RoleBinding", account, f"{rbac}/v1")
    binding["roleRef"] = {"apiGroup": rbac, "kind": "Role", "name": account}
    binding["subjects"] = [{"kind": "ServiceAccount", "name": account, "namespace": NAMESPACE}]
    apply(api_cluster, thing("ServiceAccount", account), role, binding)
    token = api_cluster.kubectl("-n", NAMESPACE, "create", "token", account).strip()
    settings = kubernetes.Configuration()
    await config.load_kube_config(str(api_cluster.kubeconfig), client_configuration=settings)
    settings.cert_file = settings.key_file = None
    settings.api_key = {"BearerToken": f"Bearer {token}"}
    settings.refresh_api_key_hook = None
    yield InClusterApi(kubernetes.ApiClient(settings))
    api_cluster.kubectl("delete", "namespace", NAMESPACE, "--wait=false")


async def until(condition) -> None:
    async with asyncio.timeout(30):
        while not condition():  # noqa: ASYNC110 - any condition
            await asyncio.sleep(0.02)


async def nobody(_endpoint: Endpoint) -> bool:
    return False


async def test_the_gateway_follows_with_its_own_rights_only(api: InClusterApi, api_cluster: Cluster):
    seen: list[tuple[int, dict[str, tuple[Endpoint, ...]]]] = []
    source = KubernetesSource(
        api, NAMESPACE, names.routing(NAME), lambda r, e: seen.append((r.generation, dict(e))), nobody
    )

    def expected(generation: int, **slots: list[int]) -> tuple[int, dict[str, tuple[Endpoint, ...]]]:
        return generation, {
            pool: tuple(
                Endpoint(f"{NAME}-{pool}-{REVISION}-{i}", f"http://10.9.0.{i + 1}:8000", REVISION)
                for i in found
            )
            for pool, found in slots.items()
        }

    await source.start()
    try:
        await asyncio.to_thread(apply, api_cluster, routing(3, "chat", "tts"), slices("chat", 0, 1))
        await until(lambda: seen and seen[-1] == expected(3, chat=[0, 1], tts=[]))
        await asyncio.to_thread(apply, api_cluster, slices("tts", 0), slices("chat", 1))
        await until(lambda: seen[-1] == expected(3, chat=[1], tts=[0]))
        await asyncio.to_thread(apply, api_cluster, routing(4, "tts"))
        await until(lambda: seen[-1] == expected(4, tts=[0]))
        with pytest.raises(ApiFault) as refused:
            await api.list(f"/api/v1/namespaces/{NAMESPACE}/secrets", {})
        assert refused.value.status == 403
    finally:
        await source.stop()
