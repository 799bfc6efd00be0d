"""`stepaudio-operator doctor` against a real API server: what it says is what is there."""

import asyncio
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from stepaudio_cluster.api import Cluster
from stepaudio_operator.doctor.look import HOOKS, NODES, QUOTAS, STORAGE
from stepaudio_operator.kube import resources
from tests.integration.operator.conftest import Stage
from tests.integration.operator.world import eventually

pytestmark = pytest.mark.api

Raw = dict[str, Any]


def doctor(cluster: Cluster, namespace: str) -> "subprocess.CompletedProcess[str]":
    command = [str(Path(sys.executable).with_name("stepaudio-operator")), "doctor", "-n", namespace]
    environment = {**os.environ, "KUBECONFIG": str(cluster.kubeconfig)}
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)


async def test_it_says_what_is_there_and_what_stands_in_the_way(stage: Stage, api_cluster: Cluster) -> None:
    admin, namespace = stage.admin, stage.namespace
    stage.kubelet.hold = lambda pod: True
    node = f"gpu-{namespace}"
    labels = {
        "nvidia.com/gpu.product": "NVIDIA-H100-80GB-HBM3",
        "nvidia.com/gpu.memory": "81559",
        "nvidia.com/cuda.driver-version.major": "535",
    }
    await admin.apply(
        NODES, {"apiVersion": "v1", "kind": "Node", "metadata": {"name": node, "labels": labels}}
    )
    capacity = {"nvidia.com/gpu": "8"}
    conditions = [{"type": "Ready", "status": "True"}]
    status = {"capacity": capacity, "allocatable": capacity, "conditions": conditions}
    await admin.patch(NODES, None, node, {"status": status}, "status")  # type: ignore[arg-type]
    storage = {
        "apiVersion": "storage.k8s.io/v1",
        "kind": "StorageClass",
        "metadata": {"name": namespace},
        "provisioner": "nfs.example.com",
    }
    await admin.apply(STORAGE, storage)
    quota = {
        "apiVersion": "v1",
        "kind": "ResourceQuota",
        "metadata": {"name": "team", "namespace": namespace},
        "spec": {"hard": {"requests.nvidia.com/gpu": "0"}},
    }
    await admin.apply(QUOTAS, quota)
    hook = {
        "apiVersion": "admissionregistration.k8s.io/v1",
        "kind": "ValidatingWebhookConfiguration",
        "metadata": {"name": namespace},
        "webhooks": [
            {
                "name": "pods.example.com",
                "admissionReviewVersions": ["v1"],
                "sideEffects": "None",
                "failurePolicy": "Fail",
                "clientConfig": {"service": {"namespace": namespace, "name": "policy"}},
                "rules": [
                    {
                        "apiGroups": [""],
                        "apiVersions": ["v1"],
                        "operations": ["CREATE"],
                        "resources": ["pods"],
                    }
                ],
                "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "nobody"}},
            }
        ],
    }
    await admin.apply(HOOKS[0], hook)
    account = f"{namespace}-step-audio-operator"
    pod = {"serviceAccountName": account, "containers": [{"name": "operator", "image": "op:1"}]}
    selector = {"app.kubernetes.io/name": "step-audio-operator", "test": namespace}
    deployment = {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": account, "namespace": namespace, "labels": selector},
        "spec": {
            "replicas": 1,
            "selector": {"matchLabels": selector},
            "template": {"metadata": {"labels": selector}, "spec": pod},
        },
    }
    await admin.apply(resources.APP_DEPLOYMENTS, deployment)
    try:

        async def quota_counted() -> bool:
            return bool((await admin.get(QUOTAS, namespace, "team")).get("status", {}).get("used"))

        await eventually(quota_counted, "the quota is counted", within_s=180)
        done = await asyncio.to_thread(doctor, api_cluster, namespace)
    finally:
        await admin.delete(NODES, None, node)
        await admin.delete(STORAGE, None, namespace)
        await admin.delete(HOOKS[0], None, namespace)
    said = done.stdout
    assert done.returncode == 1, done.stderr + said
    assert "ok       version: Kubernetes 1." in said
    for kind in ("stepaudiodeployments", "stepaudiopools", "stepaudiovoices", "stepaudiodatajobs"):
        assert f"ok       crds: {kind}.stepaudio.io is installed" in said
    assert "ok       gpus: 1 node with 8 x NVIDIA-H100-80GB-HBM3 (81559 MiB)" in said
    assert f"problem  drivers: {node} has driver 535, CUDA 13 needs 580; upgrade its driver" in said
    assert f"ok       storage: {namespace}: nfs.example.com, ReadWriteMany" in said
    hook_line = (
        f"problem  webhooks: pods.example.com is asked about every pod and its Service {namespace}/policy"
    )
    assert hook_line in said
    assert f"problem  quotas: team in {namespace} leaves requests.nvidia.com/gpu 0 of 0: used up" in said
    assert f"problem  operator: {namespace}/{account} (op:1) has no ready replica" in said
    # The API server itself was asked what the chart's account may do, and it may do everything it needs.
    assert "ok       permissions: the operator may do all" in said, said


async def test_without_a_cluster_it_says_so(tmp_path: Path) -> None:
    command = [str(Path(sys.executable).with_name("stepaudio-operator")), "doctor"]
    environment = {**os.environ, "KUBECONFIG": str(tmp_path / "none")}
    done = await asyncio.to_thread(
        subprocess.run, command, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 3
    assert "there is no cluster to look at: " in done.stderr
    assert "Traceback" not in done.stderr
