"""Simulated nodes and pods by kwok, for tests of scale: they cost memory in etcd and nothing else."""

from typing import Any

from stepaudio_cluster import binaries
from stepaudio_cluster.kubeapi import Api
from stepaudio_cluster.netns import Namespace
from stepaudio_cluster.node import GPU, GPU_LABELS
from stepaudio_cluster.processes import Supervisor
from stepaudio_cluster.settings import Mode, Places, Record, Wish

ANNOTATION = {"kwok.x-k8s.io/node": "fake"}
GPUS_A_NODE = 8
POD_ADDRESSES = "198.18.0.0/15"  # RFC 2544: for benchmarks, routed nowhere
# How a simulated node and pod live. kwok runs no stage that it was not given.
NODE_STAGES = (
    "node/fast/node-initialize.yaml",
    "node/heartbeat-with-lease/node-heartbeat-with-lease.yaml",
)
POD_STAGES = ("pod/fast/pod-ready.yaml", "pod/fast/pod-complete.yaml", "pod/fast/pod-delete.yaml")


def ensure(wish: Wish, places: Places, supervisor: Supervisor, api: Api, record: Record) -> None:
    """Runs kwok and makes `wish.kwok` nodes; the real node is left alone."""
    kubeconfig = places.kubeconfig
    programs = binaries.kwok()
    folder = programs.folder / "stages"
    of_pods = [wish.stages] if wish.stages else [folder / stage for stage in POD_STAGES]
    stages = [*(folder / stage for stage in NODE_STAGES), *of_pods]
    command = [
        programs.path("kwok"),
        f"--kubeconfig={kubeconfig}",
        *(f"--config={stage}" for stage in stages),
        "--manage-all-nodes=false",
        f"--cidr={POD_ADDRESSES}",
        "--v=WARN",
        "--manage-nodes-with-annotation-selector=kwok.x-k8s.io/node=fake",
        # A kwok that was replaced still holds its nodes for so long.
        "--node-lease-duration-seconds=10",
    ]
    if record.mode is Mode.NODE:
        command = Namespace(places.scope, record.addresses).enter(*command)
    supervisor.ensure("kwok", command)
    for number in range(wish.kwok):
        name = f"kwok-{number}"
        api.apply(f"/api/v1/nodes/{name}", _node(name))


def _node(name: str) -> dict[str, Any]:
    labels = {
        "kubernetes.io/hostname": name,
        "kubernetes.io/os": "linux",
        "kubernetes.io/arch": "amd64",
        "type": "kwok",
        **GPU_LABELS,
        "nvidia.com/gpu.count": str(GPUS_A_NODE),
    }
    resources = {"cpu": "64", "memory": "512Gi", "pods": "110", GPU: str(GPUS_A_NODE)}
    return {
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {"name": name, "labels": labels, "annotations": ANNOTATION},
        # Pods that do not ask for a simulated node must not land on one.
        "spec": {"taints": [{"key": "kwok.x-k8s.io/node", "value": "fake", "effect": "NoSchedule"}]},
        "status": {"allocatable": resources, "capacity": resources},
    }
