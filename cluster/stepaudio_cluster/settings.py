"""Where a cluster's files lie, which addresses it uses, and what was asked of it.

Nothing of a running cluster lies in the checkout: several checkouts share one cluster, and a clean
clone finds it.
"""

import ipaddress
import json
import os
import re
from dataclasses import asdict, dataclass
from enum import StrEnum
from pathlib import Path

from stepaudio_cluster.errors import ClusterError

DEFAULT_NAME = "stepaudio"
SLOTS = 64  # clusters at once; a slot is the third byte of its networks
NAME_PATTERN = re.compile(r"[a-z][a-z0-9-]{0,29}")


class Mode(StrEnum):
    """How much of Kubernetes runs."""

    API = "api"  # etcd, API server, controller manager on loopback: starts in seconds, runs no pods
    NODE = "node"  # all of it in an own network namespace: runs pods


@dataclass(frozen=True)
class Wish:
    """What `up` was asked for."""

    name: str = DEFAULT_NAME
    mode: Mode = Mode.NODE
    fake_gpus: int | None = None  # nvidia.com/gpu that the real node claims to have; None: as before
    kwok: int = 0  # simulated nodes, which run simulated pods
    stages: Path | None = None  # a file of kwok stages, how simulated pods live; None: ready at once

    def __post_init__(self) -> None:
        if not NAME_PATTERN.fullmatch(self.name):
            raise ClusterError(f"cluster name {self.name!r} must match {NAME_PATTERN.pattern}")


@dataclass(frozen=True)
class Places:
    """The files of one cluster."""

    name: str
    base: Path  # survives a reboot
    run_base: Path  # emptied by a reboot where the system has such a place

    @staticmethod
    def of(name: str) -> "Places":
        """System folders for root, the user's state folder for everybody else (mode `api` only)."""
        if os.geteuid() == 0:
            return Places.of_root(name)
        home = Path(os.environ.get("XDG_STATE_HOME", Path.home() / ".local/state")) / "stepaudio-cluster"
        return Places(name, home, home / ".run")

    @staticmethod
    def of_root(name: str) -> "Places":
        """System folders."""
        return Places(name, Path("/var/lib/stepaudio-cluster"), Path("/run/stepaudio-cluster"))

    @property
    def state(self) -> Path:
        """Certificates, etcd's data, images, logs."""
        return self.base / self.name

    @property
    def run(self) -> Path:
        """Sockets and process records."""
        return self.run_base / self.name

    @property
    def logs(self) -> Path:
        """One file a program."""
        return self.state / "logs"

    @property
    def kubeconfig(self) -> Path:
        """The administrator's kubeconfig."""
        return self.state / "kubeconfig"

    @property
    def record(self) -> Path:
        """What this cluster is: see `Record`."""
        return self.state / "cluster.json"

    @property
    def audit_log(self) -> Path:
        """One JSON object a line for every request to the API server."""
        return self.logs / "audit.log"

    @property
    def scope(self) -> str:
        """Name of the network namespace and of the control group."""
        return f"stepaudio-cluster-{self.name}"


@dataclass(frozen=True)
class Addresses:
    """Addresses and ports of one cluster."""

    slot: int | None  # None in mode `api`
    host: str  # the host as the cluster sees it
    node: str  # the API server, and in mode `node` the kubelet
    api_port: int
    etcd_port: int
    etcd_peer_port: int
    pods: str
    services: str

    @staticmethod
    def of_slot(slot: int) -> "Addresses":
        """Networks of a cluster in its own namespace, where every port is free."""
        return Addresses(
            slot=slot,
            host=f"10.213.{slot}.1",
            node=f"10.213.{slot}.2",
            api_port=6443,
            etcd_port=2379,
            etcd_peer_port=2380,
            pods=f"10.214.{slot}.0/24",
            services=f"10.215.{slot}.0/24",
        )

    @staticmethod
    def on_loopback(api_port: int, etcd_port: int, etcd_peer_port: int) -> "Addresses":
        """A control plane on the host itself; no route leads to its services."""
        return Addresses(
            None,
            "127.0.0.1",
            "127.0.0.1",
            api_port,
            etcd_port,
            etcd_peer_port,
            "10.214.255.0/24",
            "10.240.0.0/16",  # an address for each of thousands of Services
        )

    @property
    def link(self) -> str:
        """Network between the host and the namespace."""
        return f"10.213.{self.slot}.0/30"

    @property
    def networks(self) -> tuple[str, ...]:
        """What must not be in use on the host."""
        return (self.link, self.pods, self.services)

    @property
    def server(self) -> str:
        """The API server's URL."""
        return f"https://{self.node}:{self.api_port}"

    @property
    def first_service(self) -> str:
        """Address of the Service `kubernetes`."""
        return str(ipaddress.ip_network(self.services)[1])

    @property
    def dns(self) -> str:
        """Address of the Service `kube-dns`."""
        return str(ipaddress.ip_network(self.services)[10])


@dataclass(frozen=True)
class Record:
    """What a running or stopped cluster was made as; lies in its state folder."""

    mode: Mode
    addresses: Addresses
    fake_gpus: int = 0

    @staticmethod
    def read(places: Places) -> "Record | None":
        """The record of a cluster, None where there is none."""
        try:
            raw = json.loads(places.record.read_text())
        except (FileNotFoundError, json.JSONDecodeError):
            return None
        return Record(Mode(raw["mode"]), Addresses(**raw["addresses"]), raw.get("fake_gpus", 0))

    def write(self, places: Places) -> None:
        """Stores the record; readers see the old one or the new one."""
        temporary = places.record.with_suffix(".new")
        temporary.write_text(json.dumps(asdict(self), indent=2))
        temporary.replace(places.record)
