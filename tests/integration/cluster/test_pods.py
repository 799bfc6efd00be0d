"""Proves that the cluster runs pods as any does: names, services, logs, exec, volumes, GPUs, audit log."""

import json
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from stepaudio_cluster.api import Cluster
from tests.integration.cluster.conftest import probe_image

pytestmark = pytest.mark.node
PATIENCE_S = 60


def eventually(question: Callable[[], Any]) -> Any:
    """The first true answer to `question`."""
    deadline = time.monotonic() + PATIENCE_S
    while not (answer := question()):
        assert time.monotonic() < deadline, f"no answer after {PATIENCE_S} s"
        time.sleep(0.2)
    return answer


def pod(name: str, *arguments: str, **spec: Any) -> dict[str, Any]:
    """A pod that runs the probe once."""
    resources = spec.pop("resources", {})
    mounts = spec.pop("mounts", [])
    container = {
        "name": "probe",
        "image": probe_image(),
        "imagePullPolicy": "Never",
        "args": list(arguments),
        "resources": resources,
        "volumeMounts": mounts,
    }
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "labels": {"app": name}},
        "spec": {"restartPolicy": "Never", "containers": [container], **spec},
    }


def apply(cluster: Cluster, *objects: dict[str, Any]) -> None:
    cluster.kubectl(
        "apply", "-f", "-", stdin=json.dumps({"apiVersion": "v1", "kind": "List", "items": objects})
    )


def phase(cluster: Cluster, name: str) -> str:
    return cluster.kubectl("get", "pod", name, "-o", "jsonpath={.status.phase}")


def finished(cluster: Cluster, name: str) -> str:
    """Output of a pod that has ended well."""
    eventually(lambda: phase(cluster, name) in {"Succeeded", "Failed"})
    output = cluster.kubectl("logs", name)
    assert phase(cluster, name) == "Succeeded", output
    return output


@pytest.fixture(scope="module")
def web(cluster: Cluster) -> dict[str, Any]:
    """Two servers behind the Service `web`, ready; returns the Service."""
    template = pod("web", "serve", ":8000")
    del (
        template["apiVersion"],
        template["kind"],
        template["metadata"]["name"],
        template["spec"]["restartPolicy"],
    )
    template["spec"]["containers"][0]["readinessProbe"] = {
        "httpGet": {"path": "/", "port": 8000},
        "periodSeconds": 1,
    }
    deployment = {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": "web"},
        "spec": {"replicas": 2, "selector": {"matchLabels": {"app": "web"}}, "template": template},
    }
    service = {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": "web"},
        "spec": {"selector": {"app": "web"}, "ports": [{"port": 80, "targetPort": 8000}]},
    }
    apply(cluster, deployment, service)
    cluster.kubectl("rollout", "status", "deployment/web", f"--timeout={PATIENCE_S}s")
    answer: dict[str, Any] = json.loads(cluster.kubectl("get", "service", "web", "-o", "json"))
    return answer


def pods_of(cluster: Cluster) -> list[dict[str, Any]]:
    items: list[dict[str, Any]] = json.loads(cluster.kubectl("get", "pods", "-l", "app=web", "-o", "json"))[
        "items"
    ]
    return items


def fetch(address: str) -> str:
    with urllib.request.urlopen(f"http://{address}/", timeout=10) as response:
        return response.read().decode().strip()


def test_a_pod_reaches_a_service_by_its_name(cluster: Cluster, web: dict[str, Any]) -> None:
    apply(cluster, pod("client", "get", "http://web.default.svc.cluster.local/"))

    assert finished(cluster, "client").strip() in {item["metadata"]["name"] for item in pods_of(cluster)}


def test_a_pod_behind_a_service_reaches_itself_through_it(cluster: Cluster, web: dict[str, Any]) -> None:
    names = {item["metadata"]["name"] for item in pods_of(cluster)}
    one = sorted(names)[0]
    url = f"http://{web['spec']['clusterIP']}/"

    answers = {cluster.kubectl("exec", one, "--", "/probe", "get", url).strip() for _ in range(20)}

    assert answers == names


def test_the_host_reaches_pods_and_services(cluster: Cluster, web: dict[str, Any]) -> None:
    by_pod = {fetch(f"{item['status']['podIP']}:8000") for item in pods_of(cluster)}

    assert by_pod == {item["metadata"]["name"] for item in pods_of(cluster)}
    assert fetch(web["spec"]["clusterIP"]) in by_pod


def test_logs_and_exec_reach_the_container(cluster: Cluster, web: dict[str, Any]) -> None:
    name = pods_of(cluster)[0]["metadata"]["name"]

    assert cluster.kubectl("logs", name).startswith("listening on :8000\n")
    assert cluster.kubectl("exec", name, "--", "/probe", "get", "http://127.0.0.1:8000/").strip() == name


def test_a_claim_without_a_class_gets_a_volume(cluster: Cluster) -> None:
    claim = {
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": {"name": "claim"},
        "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Mi"}}},
    }
    writer = pod(
        "writer",
        "hold",
        "/data/line",
        mounts=[{"name": "data", "mountPath": "/data"}],
        volumes=[{"name": "data", "persistentVolumeClaim": {"claimName": "claim"}}],
        securityContext={"runAsUser": 0},
    )
    apply(cluster, claim, writer)

    eventually(lambda: phase(cluster, "writer") == "Running")
    volume = cluster.kubectl("get", "pv", "-o", "jsonpath={.items[0].spec.hostPath.path}")
    line = cluster.kubectl("get", "pvc", "claim", "-o", "jsonpath={.status.phase}")

    assert line == "Bound"
    assert Path(volume, "line").read_text().startswith("held since")
    cluster.kubectl("delete", "pod", "writer", "--grace-period=1")
    cluster.kubectl("delete", "pvc", "claim")


def test_claimed_gpus_are_counted_by_the_scheduler(cluster: Cluster) -> None:
    def four(name: str) -> dict[str, Any]:
        limits = {"limits": {"nvidia.com/gpu": "4"}}
        return pod(name, "serve", ":8000", resources=limits, nodeSelector={"nvidia.com/gpu.count": "8"})

    apply(cluster, four("gpu-1"), four("gpu-2"))
    eventually(lambda: {phase(cluster, "gpu-1"), phase(cluster, "gpu-2")} == {"Running"})
    apply(cluster, four("gpu-3"))
    message = '{.status.conditions[?(@.type=="PodScheduled")].message}'
    refused = eventually(lambda: cluster.kubectl("get", "pod", "gpu-3", "-o", f"jsonpath={message}"))

    assert "Insufficient nvidia.com/gpu" in refused
    cluster.kubectl("delete", "pod", "gpu-1", "gpu-2", "gpu-3", "--grace-period=1")


def test_every_write_is_in_the_audit_log(cluster: Cluster) -> None:
    cluster.kubectl("create", "configmap", "counted", "--from-literal=a=b")
    cluster.kubectl("delete", "configmap", "counted")
    assert cluster.audit_log is not None

    events = [json.loads(line) for line in cluster.audit_log.read_text().splitlines()]
    mine = [event for event in events if event.get("objectRef", {}).get("name") == "counted"]

    assert [event["verb"] for event in mine if event["verb"] != "get"] == ["create", "delete"]
