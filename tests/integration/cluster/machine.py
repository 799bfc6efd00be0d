"""What a cluster could leave behind on a machine: processes, mounts, namespaces, interfaces, files."""

import contextlib
import subprocess
from dataclasses import dataclass
from pathlib import Path

from stepaudio_cluster import cgroups, netns, node
from stepaudio_cluster.settings import Places, Record

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
# Folders that programs of a cluster write to and that cannot be chosen.
FOLDERS = (
    "/run/containerd/s",
    "/var/lib/cni/results",
    "/var/log/containers",
    "/var/log/pods",
    "/tmp/hostpath_pv",
)


@dataclass(frozen=True)
class Machine:
    """A machine at one moment, without what belongs to clusters other than the one looked at."""

    processes: frozenset[str]
    mounts: frozenset[str]
    namespaces: frozenset[str]
    links: frozenset[str]
    routes: frozenset[str]
    groups: frozenset[str]
    files: frozenset[str]
    kernel_settings: frozenset[tuple[str, str]]

    @staticmethod
    def now(name: str) -> "Machine":
        """The machine as it is; other clusters may run beside cluster `name`, and are left out."""
        # Theirs are listed before and after: one that comes or goes in between is in one of the two.
        others = _marks_of_others(name)
        processes, mounts = _processes(), [line.split()[4] for line in _lines(Path("/proc/self/mountinfo"))]
        spaces, links = _names(netns.FOLDER), _names(Path("/sys/class/net"))
        routes = _run("ip", "-4", "route", "show", "table", "all").splitlines()
        groups = [f"{path} " for root in cgroups.hierarchies() for path in root.iterdir() if path.is_dir()]
        files = [_described(path) for folder in FOLDERS for path in _entries(Path(folder))]
        others |= _marks_of_others(name)

        def own(texts: list[str]) -> frozenset[str]:
            return frozenset(text for text in texts if not any(mark in text for mark in others))

        return Machine(
            processes=own(processes),
            mounts=own(mounts),
            namespaces=own(spaces),
            links=own(links),
            routes=own(routes),
            groups=own(groups),
            files=own(files),
            kernel_settings=frozenset(node.kernel_settings().items()),
        )

    def beyond(self, before: "Machine") -> dict[str, set[object]]:
        """What is here and was not there `before`, by kind; empty where nothing was left."""
        found = {
            kind: set(getattr(self, kind)) - set(getattr(before, kind)) for kind in self.__dataclass_fields__
        }
        return {kind: things for kind, things in found.items() if things}


def _marks_of_others(name: str) -> set[str]:
    """Texts that tell that a thing belongs to a cluster other than `name`."""
    mine = Places.of(name)
    marks = set()
    for folder in [*_entries(mine.base), *_entries(mine.run_base)]:
        if folder.name == name or not folder.is_dir():
            continue
        other = Places.of(folder.name)
        marks |= {
            f"{other.state}/",
            f"{other.run}/",
            f"{other.scope} ",
            f"/{other.scope}/",
        }
        bundles = list((other.run / "containerd").glob("io.containerd.runtime.v2.task/*/*"))
        marks |= {bundle.name for bundle in bundles}
        for bundle in bundles:
            with contextlib.suppress(FileNotFoundError):
                marks.add(Path((bundle / "address").read_text()).name)
        with contextlib.suppress(FileNotFoundError):
            marks.add(f"net:[{(netns.FOLDER / other.scope).stat().st_ino}]")
        record = Record.read(other)
        if record and record.addresses.slot is not None:
            marks.add(f"stepaudio{record.addresses.slot}h")
    return marks


def _processes() -> list[str]:
    found = []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            arguments = (entry / "cmdline").read_bytes().decode().split("\0")
            # A process that ended and whose parent has not read it yet has no arguments any more.
            if Path(arguments[0]).name in PROGRAMS:
                space, group = str((entry / "ns/net").readlink()), (entry / "cgroup").read_text()
                found.append(f"{entry.name} {' '.join(arguments)} {space} {group}")
        except (FileNotFoundError, ProcessLookupError):
            continue
    return found


def _described(path: Path) -> str:
    """A file's path and, for a link, where it leads."""
    with contextlib.suppress(OSError):
        return f"{path} -> {path.readlink()}"
    return str(path)


def _entries(folder: Path) -> list[Path]:
    return list(folder.iterdir()) if folder.exists() else []


def _names(folder: Path) -> list[str]:
    # The space ends a name: one cluster's may be the beginning of another's.
    return [f"{path.name} " for path in _entries(folder)]


def _lines(path: Path) -> list[str]:
    return path.read_text().splitlines()


def _run(*command: str) -> str:
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout
