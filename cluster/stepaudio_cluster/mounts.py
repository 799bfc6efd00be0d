"""Mounts that a cluster's programs left below its folders."""

import subprocess
from pathlib import Path

from stepaudio_cluster.errors import ClusterError


def below(*folders: Path) -> list[Path]:
    """Mount points in or below `folders`, innermost and latest first."""
    found = []
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        point = Path(line.split()[4].replace("\\040", " "))
        if any(point.is_relative_to(folder) for folder in folders):
            found.append(point)
    return found[::-1]


def unmount_below(*folders: Path) -> None:
    """Takes away every mount in or below `folders`."""
    for point in below(*folders):
        result = subprocess.run(["umount", str(point)], capture_output=True, text=True, check=False)
        if result.returncode:  # a busy one goes as soon as its last user does
            subprocess.run(["umount", "--lazy", str(point)], capture_output=True, check=False)
    if left := below(*folders):
        raise ClusterError(f"could not unmount {', '.join(map(str, left))}")
