"""The control group under which a cluster's pods run, for both versions of control groups.

An own root keeps two kubelets on one machine from cleaning up each other's pods, and tells `down`
which processes are pods.
"""

import contextlib
import time
from dataclasses import dataclass
from pathlib import Path

from stepaudio_cluster.errors import ClusterError
from stepaudio_cluster.processes import Process

MOUNT = Path("/sys/fs/cgroup")
CPUSET_FILES = ("cpuset.cpus", "cpuset.mems")


@dataclass(frozen=True)
class ControlGroup:
    """The group `name` below every hierarchy's root."""

    name: str

    @property
    def path(self) -> str:
        """As kubelet's `cgroupRoot` wants it."""
        return f"/{self.name}"

    def ensure(self) -> None:
        """Makes the group where it is missing."""
        for hierarchy in hierarchies():
            group = hierarchy / self.name
            if unified():
                # A group may hand on only what its parent handed to it.
                wanted = (hierarchy / "cgroup.controllers").read_text().split()
                for parent in (hierarchy, group):
                    parent.mkdir(exist_ok=True)
                    for controller in wanted:
                        with contextlib.suppress(OSError):
                            (parent / "cgroup.subtree_control").write_text(f"+{controller}")
                continue
            group.mkdir(exist_ok=True)
            for name in CPUSET_FILES:
                # Version 1: a new group's sets are empty, and nothing can run in it.
                file = group / name
                if file.exists() and not file.read_text().strip():
                    file.write_text((hierarchy / name).read_text())

    def processes(self) -> list[Process]:
        """Every process in the group or below."""
        ids: set[int] = set()
        for hierarchy in hierarchies():
            for file in (hierarchy / self.name).rglob("cgroup.procs"):
                with contextlib.suppress(OSError):
                    ids.update(int(line) for line in file.read_text().split())
        return [process for pid in sorted(ids) if (process := Process.of(pid))]

    def remove(self) -> None:
        """Removes the group and all below it; nothing may run there any more."""
        for hierarchy in hierarchies():
            group = hierarchy / self.name
            if not group.exists():
                continue
            below = [path for path in group.rglob("*") if path.is_dir()]
            for path in [*sorted(below, key=lambda path: -len(path.parts)), group]:
                _remove(path)


def unified() -> bool:
    """Whether the machine has version 2 only."""
    return (MOUNT / "cgroup.controllers").exists()


def hierarchies() -> list[Path]:
    """The roots below which groups are made: one for version 2, one a controller for version 1."""
    if unified():
        return [MOUNT]
    return sorted(
        path for path in MOUNT.iterdir() if path.is_dir() and not path.is_symlink() and _is_version_1(path)
    )


def _is_version_1(path: Path) -> bool:
    return (path / "cgroup.procs").exists() and not (path / "cgroup.controllers").exists()


def _remove(path: Path) -> None:
    for _ in range(50):
        try:
            path.rmdir()
            return
        except FileNotFoundError:
            return
        except OSError as error:  # the kernel lets go of ended processes a moment later
            last = error
            time.sleep(0.1)
    raise ClusterError(f"control group {path} could not be removed: {last}")
