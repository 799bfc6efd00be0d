"""A namespace per test, the operator as a process under a ServiceAccount with exactly its declared verbs."""

import asyncio
import contextlib
import secrets
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest_asyncio
import yaml

from stepaudio_operator import crd, resources
from stepaudio_operator.resources import Resource
from tests.integration.operator.world import (
    Admin,
    Gateways,
    Kubelet,
    Operator,
    Refused,
    eventually,
    tracebacks,
)

OPERATOR = "stepaudio-operator"
_CLUSTER_ROLES = Resource("rbac.authorization.k8s.io", "v1", "clusterroles", "ClusterRole", frozenset())
_BINDINGS = Resource(
    "rbac.authorization.k8s.io", "v1", "clusterrolebindings", "ClusterRoleBinding", frozenset()
)
_NAMESPACES = Resource("", "v1", "namespaces", "Namespace", frozenset())
_CRDS = Resource(
    "apiextensions.k8s.io", "v1", "customresourcedefinitions", "CustomResourceDefinition", frozenset()
)


def declared_rules() -> list[dict[str, Any]]:
    """RBAC rules for exactly the verbs in `resources.py`."""
    rules = []
    for resource in resources.ALL:
        rules.append(
            {"apiGroups": [resource.group], "resources": [resource.plural], "verbs": sorted(resource.verbs)}
        )
        if resource.status_verbs:
            rules.append(
                {
                    "apiGroups": [resource.group],
                    "resources": [f"{resource.plural}/status"],
                    "verbs": sorted(resource.status_verbs),
                }
            )
    return rules


@pytest_asyncio.fixture
async def admin(api_cluster: Any) -> AsyncIterator[Admin]:
    administrator = await Admin.from_kubeconfig(Path(api_cluster.kubeconfig))
    for text in crd.render().values():
        body = yaml.safe_load(text)
        await administrator.apply(_CRDS, body)
        name = body["metadata"]["name"]

        async def established(name: str = name) -> bool:
            stored = await administrator.get(_CRDS, None, name)
            conditions = (stored.get("status") or {}).get("conditions") or ()
            return any(c["type"] == "Established" and c["status"] == "True" for c in conditions)

        await eventually(established, f"{name} is established")
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
    kubeconfig = await _operator_identity(admin, namespace, tmp_path)

    def start(identity: str = "one", everywhere: bool = False, **environment: str) -> Operator:
        scope = {} if everywhere else {"NAMESPACE": namespace}
        operator = Operator(
            kubeconfig, tmp_path, identity, {"LEASE_NAMESPACE": namespace, **scope, **environment}
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
        for resource, name in ((_BINDINGS, namespace), (_CLUSTER_ROLES, namespace), (_NAMESPACES, namespace)):
            with contextlib.suppress(Refused):
                await admin.delete(resource, None, name)
    for operator in built.operators:
        assert list(tracebacks(operator.log)) == []


async def _operator_identity(admin: Admin, namespace: str, folder: Path) -> Path:
    """A kubeconfig of a ServiceAccount that may do what `resources.py` declares, and nothing else."""
    rbac = "rbac.authorization.k8s.io"
    await admin.call("POST", resources.SERVICE_ACCOUNTS.path(namespace), {"metadata": {"name": OPERATOR}})
    await admin.call(
        "POST", _CLUSTER_ROLES.path(), {"metadata": {"name": namespace}, "rules": declared_rules()}
    )
    await admin.call(
        "POST",
        _BINDINGS.path(),
        {
            "metadata": {"name": namespace},
            "roleRef": {"apiGroup": rbac, "kind": "ClusterRole", "name": namespace},
            "subjects": [{"kind": "ServiceAccount", "name": OPERATOR, "namespace": namespace}],
        },
    )
    token = await admin.call(
        "POST",
        resources.SERVICE_ACCOUNTS.path(namespace, OPERATOR, "token"),
        {"spec": {"expirationSeconds": 3600}},
    )
    path = folder / "kubeconfig"
    path.write_text(
        yaml.safe_dump(
            {
                "apiVersion": "v1",
                "kind": "Config",
                "clusters": [
                    {"name": "c", "cluster": {"server": admin.server, "certificate-authority": admin.ca_file}}
                ],
                "users": [{"name": "u", "user": {"token": token["status"]["token"]}}],
                "contexts": [{"name": "x", "context": {"cluster": "c", "user": "u"}}],
                "current-context": "x",
            }
        )
    )
    return path
