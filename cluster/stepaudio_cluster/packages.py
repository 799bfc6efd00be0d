"""What a machine must have before a cluster can run on it: root, Debian packages, disk."""

import os
import shutil
import subprocess
from pathlib import Path

from stepaudio_cluster import binaries
from stepaudio_cluster.errors import RequirementError
from stepaudio_cluster.progress import step

# A file that tells that a package is there -> the package.
PACKAGES = {
    "containerd": "containerd",
    "ctr": "containerd",
    "runc": "runc",
    "/usr/lib/cni/ptp": "containernetworking-plugins",
    "iptables": "iptables",
    "conntrack": "conntrack",
    "ip": "iproute2",
    "nsenter": "util-linux",
    "umount": "mount",
    "buildah": "buildah",
    "debootstrap": "debootstrap",
    "gpgv": "gpgv",
    "/usr/share/keyrings/debian-archive-keyring.gpg": "debian-archive-keyring",  # Ubuntu has none by itself
}
OS_RELEASE = Path("/etc/os-release")
FRESH_DISK_GB = 40  # build cache 3, wheels 8, images 8 twice, and room to build
USED_DISK_GB = 5  # where programs and images are there already


def check_root() -> None:
    """Network namespaces, mounts and control groups are root's."""
    if os.geteuid() != 0:
        raise RequirementError(
            "a cluster that runs pods needs root (network namespace, mounts, control groups): use sudo"
        )


def ensure_packages() -> None:
    """Installs what is missing where that can be done without asking; else says which command does it."""
    missing = sorted({package for program, package in PACKAGES.items() if not _has(program)})
    if not missing:
        return
    command = f"apt-get update && apt-get install --yes --no-install-recommends {' '.join(missing)}"
    release = OS_RELEASE.read_text() if OS_RELEASE.exists() else ""
    if not (shutil.which("apt-get") and os.geteuid() == 0 and has_apt_packages(release)):
        raise RequirementError(
            f"Debian packages are missing: {' '.join(missing)}. The command to run: sudo sh -c '{command}'"
        )
    with step(f"Debian packages {' '.join(missing)}"):
        environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
        result = subprocess.run(
            ["sh", "-c", command], env=environment, capture_output=True, text=True, check=False
        )
    if result.returncode:
        raise RequirementError(
            f"could not install packages with: {command}\n{(result.stdout + result.stderr)[-2000:]}"
        )
    _stop_services()


def check_disk(state: Path) -> None:
    """Enough room for what is still to come."""
    used_before = any((binaries.cache_root() / "cluster").glob("*/bin/k8s"))
    needed = USED_DISK_GB if used_before else FRESH_DISK_GB
    existing = next(parent for parent in [state, *state.parents] if parent.exists())
    free = shutil.disk_usage(existing).free / 1e9
    if free < needed:
        raise RequirementError(
            f"{existing} has {free:.0f} GB free; {needed} GB are needed (programs, wheels, images)"
        )


def _has(program: str) -> bool:
    return (
        Path(program).exists() if program.startswith("/") else shutil.which(program, path=_path()) is not None
    )


def _path() -> str:
    # A user's PATH often lacks the folders of system programs.
    return os.pathsep.join([os.environ.get("PATH", ""), "/usr/local/sbin", "/usr/sbin", "/sbin"])


def has_apt_packages(os_release: str) -> bool:
    """Whether the distribution that /etc/os-release describes is Debian, Ubuntu or made of one of them."""
    words = {
        word.strip('"')
        for line in os_release.splitlines()
        if line.startswith(("ID=", "ID_LIKE="))
        for word in line.split("=", 1)[1].split()
    }
    return bool(words & {"debian", "ubuntu"})


def _stop_services() -> None:
    """The package starts a containerd of its own, which nobody here uses."""
    if Path("/run/systemd/system").exists():
        subprocess.run(["systemctl", "disable", "--now", "containerd"], capture_output=True, check=False)
