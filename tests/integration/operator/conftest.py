"""A namespace per test; the operator as a process, under the ServiceAccount and the rights of the chart."""

import asyncio
import contextlib
import secrets
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
import yaml

from stepaudio_cluster.api import Cluster
from stepaudio_operator import crd
from stepaudio_operator.kube import resources
from stepaudio_operator.kube.resources import Resource
from tests.integration.operator.identity import by_way_of, operator_identity, revoke
from tests.integration.operator.kubelet import Kubelet
from tests.integration.operator.world import (
    Admin,
    Gateways,
    Operator,
    Refused,
    eventually,
    tracebacks,
)

_NAMESPACES = Resource("", "v1", "namespaces", "Namespace", frozenset())
_CRDS = Resource(
    "apiextensions.k8s.io", "v1", "customresourcedefinitions", "CustomResourceDefinition", frozenset()
)


@pytest.fixture(scope="session")
def crds(api_cluster: Cluster) -> None:
    """The CRDs, in the cluster of this run."""
    asyncio.run(_install(api_cluster))


async def _install(cluster: Cluster) -> None:
    administrator = await Admin.from_kubeconfig(cluster.kubeconfig)
    for text in crd.render().values():
        body = yaml.safe_load(text)
        await administrator.apply(_CRDS, body)
        name = body["metadata"]["name"]

        async def served(plural: str = name.split(".")[0]) -> bool:
            try:
                path = f"/apis/stepaudio.io/v1alpha1/{plural}"
                return isinstance(await administrator.call("GET", path), dict)
            except Refused:  # 404, then 429 while its storage is made
                return False

        await eventually(served, f"{name} is served")
    await administrator.close()


@pytest_asyncio.fixture
async def admin(api_cluster: Cluster, crds: None) -> AsyncIterator[Admin]:
    administrator = await Admin.from_kubeconfig(api_cluster.kubeconfig)
    yield administrator
    await administrator.close()


@dataclass
class Stage:
    """One test's namespace and what plays in it."""

    admin: Admin
    namespace: str
    kubelet: Kubelet
    start_operator: Callable[..., Operator]
    operators: list[Operator] = field(default_factory=list)

    def gateways(self, deployment: str) -> Gateways:
        return Gateways(self.admin, self.namespace, deployment)

    async def deploy(self, name: str, **spec: Any) -> dict[str, Any]:
        return await self.admin.apply(
            resources.DEPLOYMENTS,
            {
                "apiVersion": resources.DEPLOYMENTS.api_version,
                "kind": resources.DEPLOYMENTS.kind,
                "metadata": {"namespace": self.namespace, "name": name},
                "spec": {"preset": "nano", **spec},
            },
        )


@pytest_asyncio.fixture
async def stage(admin: Admin, tmp_path: Path) -> AsyncIterator[Stage]:
    namespace = f"op-{secrets.token_hex(4)}"
    await admin.call("POST", _NAMESPACES.path(), {"metadata": {"name": namespace}})
    kubeconfig = await operator_identity(admin, namespace, tmp_path)

    def start(
        identity: str = "one",
        everywhere: bool = False,
        installed: bool = False,
        code: Path | None = None,
        server: str = "",
        **environment: str,
    ) -> Operator:
        """`server`: another address than the API server's own."""
        lease = {"LEASE_NAME": f"{namespace}-step-audio-operator"}
        scope = {} if everywhere else {"NAMESPACE": namespace}
        operator = Operator(
            by_way_of(server, kubeconfig) if server else kubeconfig,
            tmp_path,
            identity,
            {"LEASE_NAMESPACE": namespace, **lease, **scope, **environment},
            installed=installed,
            code=code,
        )
        built.operators.append(operator)
        return operator.start()

    built = Stage(admin, namespace, Kubelet(admin, namespace), start)
    kubelet = asyncio.create_task(built.kubelet.run())
    try:
        yield built
    finally:
        kubelet.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await kubelet
        for operator in built.operators:
            if operator.process.poll() is None:
                operator.kill()
        await revoke(admin, namespace)
        with contextlib.suppress(Refused):
            await admin.delete(_NAMESPACES, None, namespace)
    for operator in built.operators:
        assert list(tracebacks(operator.log)) == []
