"""The cluster's network namespace: a veth pair and routes, so that the host reaches pods and services.

Everything that the node's programs do to addresses, routes and iptables happens inside and vanishes with it.
"""

import ipaddress
import json
import subprocess
from dataclasses import dataclass
from pathlib import Path

from stepaudio_cluster.errors import ClusterError
from stepaudio_cluster.settings import Addresses

FOLDER = Path("/run/netns")  # where iproute2 keeps them


@dataclass(frozen=True)
class Namespace:
    """The namespace `name`, joined to the host by the interfaces of a slot."""

    name: str
    addresses: Addresses

    @property
    def path(self) -> Path:
        """The file that stands for the namespace."""
        return FOLDER / self.name

    @property
    def outside(self) -> str:
        """The host's end of the pair."""
        return f"stepaudio{self.addresses.slot}h"

    @property
    def inside(self) -> str:
        """The namespace's end of the pair."""
        return f"stepaudio{self.addresses.slot}n"

    def enter(self, *command: str) -> list[str]:
        """The command run inside. `ip netns exec` would also remount /sys, and hide the control groups."""
        return ["nsenter", f"--net={self.path}", "--", *command]

    def ensure(self) -> None:
        """Makes the namespace, the pair, its addresses and the routes, where they are not there yet."""
        if not self.path.exists():
            _run("ip", "netns", "add", self.name)
        if not self._link_exists():
            _run(
                "ip",
                "link",
                "add",
                self.outside,
                "type",
                "veth",
                "peer",
                "name",
                self.inside,
                "netns",
                self.name,
            )
        prefix = ipaddress.ip_network(self.addresses.link).prefixlen
        _run("ip", "address", "replace", f"{self.addresses.host}/{prefix}", "dev", self.outside)
        _run("ip", "link", "set", self.outside, "up")
        _run(*self.enter("ip", "address", "replace", f"{self.addresses.node}/{prefix}", "dev", self.inside))
        for interface in ("lo", self.inside):
            _run(*self.enter("ip", "link", "set", interface, "up"))
        _run(*self.enter("ip", "route", "replace", "default", "via", self.addresses.host))
        for network in (self.addresses.pods, self.addresses.services):
            _run("ip", "route", "replace", network, "via", self.addresses.node)
        # Pods are other hosts to the namespace: it must forward between them, the host and itself.
        forward = "/proc/sys/net/ipv4/ip_forward"
        _run(*self.enter("sh", "-c", f"[ $(cat {forward}) = 1 ] || echo 1 > {forward}"))

    def remove(self) -> None:
        """Deletes the pair and the namespace; routes go with the pair."""
        if self._link_exists():
            _run("ip", "link", "delete", self.outside)
        if self.path.exists():
            _run("ip", "netns", "delete", self.name)

    def _link_exists(self) -> bool:
        return Path("/sys/class/net", self.outside).exists()


def used_networks() -> list[ipaddress.IPv4Network]:
    """Every network that the host has a route to, the default route left out."""
    routes = json.loads(_run("ip", "-json", "-4", "route", "show", "table", "all") or "[]")
    found = []
    for route in routes:
        if route["dst"] != "default":
            found.append(ipaddress.IPv4Network(route["dst"], strict=False))
    return found


def free(addresses: Addresses, used: list[ipaddress.IPv4Network]) -> bool:
    """Whether none of the cluster's networks is in use on the host."""
    mine = [ipaddress.IPv4Network(network) for network in addresses.networks]
    return not any(network.overlaps(other) for network in mine for other in used)


def _run(*command: str) -> str:
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    if result.returncode:
        raise ClusterError(f"{' '.join(command)}: {result.stderr.strip()}")
    return result.stdout
