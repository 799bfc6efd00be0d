"""Who the operator is in the tests: the ServiceAccount and the rights that the chart gives it, no more."""

import contextlib
import subprocess
from functools import cache
from pathlib import Path

import yaml

from stepaudio_cluster import binaries
from stepaudio_operator.kube import resources
from tests.integration.operator.world import APPLY, Admin, Raw, Refused

CHART = Path(__file__).parents[3] / "charts" / "step-audio"
_ANY = "any-release-of-the-chart"


async def operator_identity(admin: Admin, namespace: str, folder: Path) -> Path:
    """A kubeconfig of the ServiceAccount that the chart makes, which may do what the chart grants."""
    await grant(admin, chart_rbac(namespace))
    account = f"{namespace}-step-audio-operator"
    token = await admin.call(
        "POST",
        resources.SERVICE_ACCOUNTS.path(namespace, account, "token"),
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


async def grant(admin: Admin, objects: list[Raw]) -> None:
    """Makes RBAC objects what they are here."""
    for body in objects:
        await admin.call("PATCH", f"{_path(body)}?fieldManager=helm&force=true", body, APPLY)


async def revoke(admin: Admin, namespace: str) -> None:
    """Takes the chart's objects away."""
    for body in chart_rbac(namespace):
        with contextlib.suppress(Refused):
            await admin.call("DELETE", _path(body))


def by_way_of(server: str, kubeconfig: Path) -> Path:
    """A copy of a kubeconfig with another address of the API server."""
    content = yaml.safe_load(kubeconfig.read_text())
    content["clusters"][0]["cluster"] = {"server": server}
    path = kubeconfig.with_name("kubeconfig-by-way")
    path.write_text(yaml.safe_dump(content))
    return path


def chart_rbac(namespace: str) -> list[Raw]:
    """The chart's RBAC objects for a release named like its namespace."""
    objects: list[Raw] = list(yaml.safe_load_all(_rendered().replace(_ANY, namespace)))
    return objects


@cache
def _rendered() -> str:
    """They for the release `_ANY`: helm takes longer than all else that makes an identity."""
    command = [binaries.ensure().path("helm"), "template", _ANY, str(CHART), "--namespace", _ANY]
    return subprocess.run(
        [*command, "--show-only", "templates/rbac.yaml", "--kube-version", "1.35.0"],
        capture_output=True,
        text=True,
        check=True,
    ).stdout


def _path(body: Raw) -> str:
    """Of an object of the chart."""
    group = "api" if body["apiVersion"] == "v1" else "apis"
    where = f"/namespaces/{body['metadata']['namespace']}" if "namespace" in body["metadata"] else ""
    return f"/{group}/{body['apiVersion']}{where}/{body['kind'].lower()}s/{body['metadata']['name']}"
