"""kubelet and kube-proxy: configuration and command lines; and what the node claims to be."""

import json
from datetime import datetime
from pathlib import Path
from typing import Any

from stepaudio_cluster.binaries import Programs
from stepaudio_cluster.cgroups import ControlGroup
from stepaudio_cluster.control_plane import Credentials
from stepaudio_cluster.errors import ClusterError
from stepaudio_cluster.kubeapi import Api
from stepaudio_cluster.settings import Addresses, Places

GPU = "nvidia.com/gpu"
# As GPU feature discovery labels a node of 80 GB cards; memory in MiB.
GPU_LABELS = {"nvidia.com/gpu.product": "NVIDIA-A800-SXM4-80GB", "nvidia.com/gpu.memory": "81920"}
# Settings of the whole machine that kubelet changes; `down` puts them back.
KERNEL_SETTINGS = ("vm/overcommit_memory", "vm/panic_on_oom", "kernel/panic", "kernel/panic_on_oops")
SYSCTL = Path("/proc/sys")


def kubelet(
    programs: Programs,
    places: Places,
    addresses: Addresses,
    credentials: Credentials,
    *,
    group: ControlGroup,
    socket: Path,
) -> tuple[list[str], Path]:
    """Command and configuration file; every folder that can be chosen is the cluster's own."""
    resolver = places.state / "resolv.conf"
    resolver.write_text("# Pods ask the cluster's own DNS.\n")
    configuration = {
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "kind": "KubeletConfiguration",
        "address": "0.0.0.0",  # noqa: S104 - of the namespace, not the host
        "authentication": {
            "anonymous": {"enabled": False},
            "webhook": {"enabled": True},
            "x509": {"clientCAFile": str(credentials.authority.certificate)},
        },
        "authorization": {"mode": "Webhook"},
        "tlsCertFile": str(credentials.kubelet.certificate),
        "tlsPrivateKeyFile": str(credentials.kubelet.key),
        "clusterDomain": "cluster.local",
        "clusterDNS": [addresses.dns],
        "resolvConf": str(resolver),
        "containerRuntimeEndpoint": f"unix://{socket}",
        "cgroupDriver": "cgroupfs",
        "cgroupRoot": group.path,
        "failCgroupV1": False,
        "failSwapOn": False,
        # One disk holds everything: kubelet must neither evict pods nor delete images to keep 15 % free.
        "evictionHard": {
            "memory.available": "100Mi",
            "nodefs.available": "1%",
            "nodefs.inodesFree": "1%",
            "imagefs.available": "1%",
        },
        "imageGCHighThresholdPercent": 100,
        "imageGCLowThresholdPercent": 99,
        "podLogsDir": str(places.logs / "pods"),
        "volumePluginDir": str(places.state / "kubelet" / "volume-plugins"),
    }
    path = places.state / "kubelet.json"
    path.write_text(json.dumps(configuration, indent=2))
    command = [
        programs.path("kubelet"),
        f"--config={path}",
        f"--kubeconfig={credentials.kubeconfigs['kubelet']}",
        f"--root-dir={places.state / 'kubelet'}",
        f"--cert-dir={places.state / 'kubelet' / 'pki'}",
        f"--hostname-override={places.name}",
        f"--node-ip={addresses.node}",
    ]
    return command, path


def proxy(programs: Programs, places: Places, addresses: Addresses, credentials: Credentials) -> list[str]:
    """iptables mode; connection tracking limits belong to the whole machine and are left alone."""
    return [
        programs.path("kube-proxy"),
        f"--kubeconfig={credentials.kubeconfigs['proxy']}",
        f"--hostname-override={places.name}",
        f"--cluster-cidr={addresses.pods}",
        "--proxy-mode=iptables",
        "--conntrack-max-per-core=0",
        "--conntrack-tcp-timeout-established=0",
        "--conntrack-tcp-timeout-close-wait=0",
    ]


def node_ready(api: Api, name: str, since: datetime) -> bool:
    """Whether the node is Ready and said so at `since` or later."""
    node = api.get(f"/api/v1/nodes/{name}")
    conditions = node["status"].get("conditions", []) if node else []
    return any(
        condition["type"] == "Ready"
        and condition["status"] == "True"
        and datetime.fromisoformat(condition["lastHeartbeatTime"]) >= since
        for condition in conditions
    )


def claim_gpus(api: Api, name: str, count: int) -> None:
    """Lets the node claim `count` GPUs; scheduler and kubelet then count them like any extended resource."""
    path = f"/api/v1/nodes/{name}"
    node = api.get(path)
    if node is None:
        raise ClusterError(f"node {name} does not exist")
    wanted = str(count) if count else None
    status = node["status"]
    if status["capacity"].get(GPU) != wanted or status["allocatable"].get(GPU) != wanted:
        api.merge(f"{path}/status", {"status": {"capacity": {GPU: wanted}, "allocatable": {GPU: wanted}}})
    labels: dict[str, Any] = {**GPU_LABELS, "nvidia.com/gpu.count": str(count)}
    if not count:
        labels = dict.fromkeys(labels)
    if any(node["metadata"]["labels"].get(key) != value for key, value in labels.items()):
        api.merge(path, {"metadata": {"labels": labels}})


def kernel_settings() -> dict[str, str]:
    """The machine's present settings, to be put back later."""
    return {name: (SYSCTL / name).read_text().strip() for name in KERNEL_SETTINGS if (SYSCTL / name).exists()}


def restore_kernel_settings(settings: dict[str, str]) -> None:
    """Puts back what kubelet changed."""
    for name, value in settings.items():
        if (SYSCTL / name).read_text().strip() != value:
            (SYSCTL / name).write_text(value)
