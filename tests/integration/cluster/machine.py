"""What a cluster could leave behind on a machine: processes, mounts, namespaces, interfaces, routes, groups."""

import subprocess
from dataclasses import dataclass
from pathlib import Path

from stepaudio_cluster import cgroups, node

# Of the whole machine other people's programs come and go; these are what a cluster consists of.
PROGRAMS = {
    "etcd",
    "kube-apiserver",
    "kube-controller-manager",
    "kube-scheduler",
    "kubelet",
    "kube-proxy",
    "containerd",
    "containerd-shim-runc-v2",
    "runc",
    "pause",
    "coredns",
    "probe",
    "kwok",
}


@dataclass(frozen=True)
class Machine:
    """A machine at one moment, as far as `marks` (names and networks of the tests' cluster) go."""

    processes: frozenset[str]
    mounts: frozenset[str]
    namespaces: frozenset[str]
    links: frozenset[str]
    routes: frozenset[str]
    groups: frozenset[str]
    sockets: frozenset[str]
    kernel_settings: frozenset[tuple[str, str]]

    @staticmethod
    def now() -> "Machine":
        """The machine as it is."""
        return Machine(
            processes=frozenset(_processes()),
            mounts=frozenset(line.split()[4] for line in _lines(Path("/proc/self/mountinfo"))),
            namespaces=frozenset(path.name for path in _entries(Path("/run/netns"))),
            links=frozenset(path.name for path in _entries(Path("/sys/class/net"))),
            routes=frozenset(_run("ip", "-4", "route", "show", "table", "all").splitlines()),
            groups=frozenset(
                str(path) for root in cgroups.hierarchies() for path in root.iterdir() if path.is_dir()
            ),
            sockets=frozenset(path.name for path in _entries(Path("/run/containerd/s"))),
            kernel_settings=frozenset(node.kernel_settings().items()),
        )

    def beyond(self, before: "Machine") -> dict[str, set[object]]:
        """What is here and was not there `before`, by kind; empty where nothing was left."""
        found = {
            kind: set(getattr(self, kind)) - set(getattr(before, kind)) for kind in self.__dataclass_fields__
        }
        return {kind: things for kind, things in found.items() if things}


def _processes() -> list[str]:
    found = []
    for entry in Path("/proc").iterdir():
        try:
            arguments = (
                (entry / "cmdline").read_bytes().decode().split("\0") if entry.name.isdigit() else [""]
            )
        except (FileNotFoundError, ProcessLookupError):
            continue
        # A process that ended and whose parent has not read it yet has no arguments any more.
        if Path(arguments[0]).name in PROGRAMS:
            found.append(f"{entry.name} {' '.join(arguments)}")
    return found


def _entries(folder: Path) -> list[Path]:
    return list(folder.iterdir()) if folder.exists() else []


def _lines(path: Path) -> list[str]:
    return path.read_text().splitlines()


def _run(*command: str) -> str:
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout
