"""Who the operator is in the tests: the ServiceAccount and the rights that the chart gives it, no more."""

import subprocess
from pathlib import Path

import yaml

from stepaudio_cluster import binaries
from stepaudio_cluster.api import Cluster
from stepaudio_operator import resources
from tests.integration.operator.world import Admin

CHART = Path(__file__).parents[3] / "charts" / "step-audio"


async def operator_identity(admin: Admin, cluster: Cluster, namespace: str, folder: Path) -> Path:
    """A kubeconfig of the ServiceAccount that the chart makes, which may do what the chart grants."""
    cluster.kubectl("apply", "-f", "-", stdin=chart_rbac(namespace))
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


def chart_rbac(namespace: str) -> str:
    """The chart's RBAC objects for a release named like its namespace."""
    command = [binaries.ensure().path("helm"), "template", namespace, str(CHART), "--namespace", namespace]
    return subprocess.run(
        [*command, "--show-only", "templates/rbac.yaml", "--kube-version", "1.35.0"],
        capture_output=True,
        text=True,
        check=True,
    ).stdout
