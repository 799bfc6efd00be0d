"""The API server is restarted and forgets what watches have seen; two operators act at once; a deployment is
deleted while none runs. Each is waited out, said in log and metrics, and repaired.

Lost permissions are in `test_permissions.py`, a killed operator in `test_crash.py`.
"""

import asyncio
import signal

import httpx
import pytest

from stepaudio_cluster.api import Cluster
from stepaudio_cluster.own import OwnCluster
from stepaudio_cluster.settings import Mode, Wish
from stepaudio_operator import names
from stepaudio_operator.kube import resources
from stepaudio_operator.kube.resources import Resource
from tests.integration.operator.conftest import Stage
from tests.integration.operator.test_first_light import OWN
from tests.integration.operator.world import LONG_LEASE, Operator, Refused, eventually, ready

pytestmark = pytest.mark.api

CLAIMS = Resource("", "v1", "persistentvolumeclaims", "PersistentVolumeClaim", frozenset())
SECRETS = Resource("", "v1", "secrets", "Secret", frozenset())


async def errors(operator: Operator) -> dict[str, float]:
    """The operator's counted failures by `{where, error}`."""
    prefix = "stepaudio_operator_errors_total"
    found = await operator.metrics()
    return {name.removeprefix(prefix): value for name, value in found.items() if name.startswith(prefix)}


async def counts(operator: Operator, where: str, error: str) -> bool:
    """Whether a failure of this kind has been counted."""
    return any(where in labels and f'error="{error}"' in labels for labels in await errors(operator))


def stop_api_server(cluster: Cluster) -> None:
    OwnCluster.of(cluster.name).supervisor.stop(["kube-apiserver"])


async def start_api_server(cluster: Cluster) -> None:
    await asyncio.to_thread(OwnCluster.of(cluster.name).up, Wish(cluster.name, Mode.API))


async def a_pod(stage: Stage, component: str) -> str:
    """Name of a pod of the deployment `nano`."""
    found = await stage.admin.names(resources.PODS, stage.namespace)
    return next(name for name in found if name.startswith(f"nano-{component}-"))


async def test_a_restarted_api_server_is_waited_for_and_old_watches_begin_anew(
    stage: Stage, api_cluster: Cluster
) -> None:
    admin, namespace = stage.admin, stage.namespace
    operator = stage.start_operator(**LONG_LEASE)
    await stage.deploy("nano")
    async with stage.gateways("nano"):
        await eventually(lambda: ready(admin, namespace, "nano"), "Ready")
        pod = await a_pod(stage, "tts")

        # While it is down the operator says so, and stays.
        await asyncio.to_thread(stop_api_server, api_cluster)
        await eventually(lambda: counts(operator, "watch Pod", "Unavailable"), "the metrics say why")
        assert "pods: " in operator.log.read_text()
        # What happens while the operator sleeps is older than what the new server remembers for watches.
        operator.process.send_signal(signal.SIGSTOP)
        await start_api_server(api_cluster)
        await admin.delete(resources.PODS, namespace, pod)
        await asyncio.to_thread(stop_api_server, api_cluster)
        await start_api_server(api_cluster)
        operator.process.send_signal(signal.SIGCONT)

        async def again() -> bool:
            try:
                found = await admin.find(resources.PODS, namespace, pod)
                return found is not None and await ready(admin, namespace, "nano") is not None
            except (httpx.HTTPError, Refused):
                return False

        await eventually(again, "the pod is there again and the deployment Ready", within_s=120)
        await eventually(lambda: counts(operator, "watch Pod", "Expired"), "an old watch was refused")
        assert operator.process.poll() is None


async def test_two_operators_that_both_act_end_where_one_does(stage: Stage) -> None:
    """As after a lease that both believe to hold: every name is made once, and neither undoes the other."""
    admin, namespace = stage.admin, stage.namespace
    account = f"{namespace}-step-audio-operator"
    rule = {"apiGroups": ["coordination.k8s.io"], "resources": ["leases"], "verbs": ["get", "update"]}
    role = {"metadata": {"name": "other-lease"}, "rules": [rule]}
    await admin.call("POST", resources.ROLES.path(namespace), role)
    binding = {
        "metadata": {"name": "other-lease"},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "other-lease"},
        "subjects": [{"kind": "ServiceAccount", "name": account, "namespace": namespace}],
    }
    await admin.call("POST", resources.ROLE_BINDINGS.path(namespace), binding)
    operators = [stage.start_operator("one"), stage.start_operator("two", LEASE_NAME="other")]
    for operator in operators:
        await eventually(operator.leads, f"{operator.identity} acts")
    await stage.deploy("nano", tts={"replicas": 3})
    async with stage.gateways("nano"):
        await eventually(lambda: ready(admin, namespace, "nano"), "Ready")
        await stage.deploy("nano", tts={"replicas": 2, "maxModelLen": 512})

        async def moved() -> bool:
            deployment = await ready(admin, namespace, "nano")
            pods = [n for n in await admin.names(resources.PODS, namespace) if "-tts-" in n]
            revisions = {pod.rsplit("-", 2)[1] for pod in pods}
            return deployment is not None and len(pods) == 2 and len(revisions) == 1

        await eventually(moved, "both replicas are of the new revision", within_s=90)
        await asyncio.sleep(3)
        before = [await operator.writes() for operator in operators]
        assert all(before), "both have written"
        await asyncio.sleep(5)
        assert [await operator.writes() for operator in operators] == before


async def test_a_deployment_is_deleted_while_no_operator_runs(stage: Stage) -> None:
    admin, namespace = stage.admin, stage.namespace
    operator = stage.start_operator(**LONG_LEASE)
    secret = {"metadata": {"name": "keys"}, "stringData": {"a": "sha256:" + 64 * "0"}}
    await admin.call("POST", SECRETS.path(namespace), secret)
    claim = {
        "metadata": {"name": "models"},
        "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Mi"}}},
    }
    await admin.call("POST", CLAIMS.path(namespace), claim)
    await stage.deploy("nano", gateway={"auth": {"secretRef": {"name": "keys"}}})
    async with stage.gateways("nano"):
        await eventually(lambda: ready(admin, namespace, "nano"), "Ready")
        assert operator.stop() == 0
        await admin.delete(resources.DEPLOYMENTS, namespace, "nano")
        assert await admin.find(resources.DEPLOYMENTS, namespace, "nano") is None

        async def collected() -> bool:
            left = [
                raw["metadata"]["name"]
                for resource in OWN
                for raw in await admin.all(resource, namespace)
                if (raw["metadata"].get("labels") or {}).get(names.LABEL_DEPLOYMENT) == "nano"
            ]
            return not left

        await eventually(collected, "all that the operator made is gone")
        # What others made stays.
        assert "keys" in await admin.names(SECRETS, namespace)
        assert await admin.names(CLAIMS, namespace) == ["models"]
