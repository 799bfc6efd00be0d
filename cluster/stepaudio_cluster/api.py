"""What `make up` and the tests use: one handle for a cluster, whichever of three kinds it is.

CLUSTER=current takes the kubeconfig's present context; else kind where Docker runs; else a cluster of
our own.
"""

import os
import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import IO

from stepaudio_cluster import binaries
from stepaudio_cluster.errors import ClusterError
from stepaudio_cluster.own import OwnCluster
from stepaudio_cluster.progress import step
from stepaudio_cluster.settings import Mode, Places, Wish


class Provider(StrEnum):
    """Who runs the cluster."""

    CURRENT = "current"
    KIND = "kind"
    OWN = "own"


@dataclass(frozen=True)
class Cluster:
    """A cluster that answers."""

    name: str
    provider: Provider
    kubeconfig: Path
    logs: Path | None = None  # of its programs, where it is our own
    audit_log: Path | None = None  # one JSON object a line for every request, where it is our own

    @staticmethod
    def up(wish: Wish, provider: Provider | None = None) -> "Cluster":
        """Brings up what is missing of `wish`; `provider` None chooses as the module says."""
        chosen = provider or choose(wish.mode)
        if chosen is Provider.CURRENT:
            return _current(wish)
        if chosen is Provider.KIND:
            return _kind_up(wish)
        own = OwnCluster.of(wish.name)
        own.up(wish)
        return Cluster(wish.name, chosen, own.places.kubeconfig, own.places.logs, own.places.audit_log)

    def down(self, purge: bool = False) -> None:
        """Removes what `up` made; a cluster of somebody else's stays."""
        if self.provider is Provider.KIND:
            _run("kind", "delete", "cluster", "--name", self.name)
        elif self.provider is Provider.OWN:
            OwnCluster.of(self.name).down(purge)

    def program(self, name: str) -> str:
        """Path of kubectl or helm: the machine's own for a cluster of somebody else's, else as built here."""
        found = None if self.provider is Provider.OWN else shutil.which(name)
        return found or binaries.ensure().path(name)

    def kubectl(self, *arguments: str, stdin: str | None = None, check: bool = True) -> str:
        """Runs kubectl against the cluster and returns what it printed; its message is the error's."""
        command = [self.program("kubectl"), f"--kubeconfig={self.kubeconfig}", *arguments]
        result = subprocess.run(command, input=stdin, capture_output=True, text=True, check=False)
        if check and result.returncode:
            raise ClusterError(f"kubectl {' '.join(arguments)}: {result.stderr.strip()}")
        return result.stdout

    def load(self, archive: Path | IO[bytes], name: str | None = None) -> None:
        """Gives the nodes an image from an OCI or docker archive."""
        if self.provider is Provider.OWN:
            OwnCluster.of(self.name).load(archive, name)
        elif self.provider is Provider.KIND:
            with tempfile.NamedTemporaryFile(suffix=".tar") as copy:
                if not isinstance(archive, Path):
                    shutil.copyfileobj(archive, copy)
                    copy.flush()
                path = archive if isinstance(archive, Path) else copy.name
                _run("kind", "load", "image-archive", "--name", self.name, str(path))
        else:
            raise ClusterError(
                "images of a cluster of somebody else's come from its registry: push them there"
            )

    def load_lacking(self, archive: IO[bytes], name: str) -> None:
        """Gives the nodes an image from buildah's docker archive; layers that they hold do not travel."""
        if self.provider is Provider.OWN:
            OwnCluster.of(self.name).containerd.load_lacking(archive, name)
        else:
            self.load(archive, name)

    def has_image(self, reference: str) -> bool:
        """Whether pods find `reference` without a registry; False where that cannot be known."""
        return self.provider is Provider.OWN and reference in OwnCluster.of(self.name).containerd.images()

    def forget_images(self, prefix: str, keep: set[str]) -> None:
        """Frees our own nodes of images under `prefix` that are not in `keep`."""
        if self.provider is not Provider.OWN:
            return
        runtime = OwnCluster.of(self.name).containerd
        for reference in sorted(runtime.images() - keep):
            if reference.startswith(prefix):
                runtime.remove_image(reference)


def choose(mode: Mode) -> Provider:
    """The provider for this machine; tests of the API alone always use their own."""
    wanted = os.environ.get("CLUSTER")
    if wanted:
        try:
            return Provider(wanted)
        except ValueError:
            raise ClusterError(f"CLUSTER={wanted}: must be one of {', '.join(Provider)}") from None
    docker = shutil.which("docker") if mode is Mode.NODE and shutil.which("kind") else None
    runs = docker and subprocess.run([docker, "info"], capture_output=True, check=False).returncode == 0
    return Provider.KIND if runs else Provider.OWN


def kubeconfig(name: str, provider: Provider) -> Path:
    """Where the kubeconfig of cluster `name` lies, whoever runs it."""
    places = Places.of(name)
    return (
        places.kubeconfig if provider is Provider.OWN else places.base / f"{name}.{provider.value}.kubeconfig"
    )


def existing(name: str) -> Cluster | None:
    """Our own cluster `name`, if its API server runs."""
    own = OwnCluster.of(name)
    if own.supervisor.find("kube-apiserver") is None:
        return None
    return Cluster(name, Provider.OWN, own.places.kubeconfig, own.places.logs, own.places.audit_log)


def _current(wish: Wish) -> Cluster:
    """The present context, written out alone, so that a later change of context changes nothing here."""
    context = _run("kubectl", "config", "view", "--minify", "--flatten")
    target = kubeconfig(wish.name, Provider.CURRENT)
    target.parent.mkdir(parents=True, exist_ok=True)
    target.touch(mode=0o600)
    target.write_text(context)
    cluster = Cluster(wish.name, Provider.CURRENT, target)
    _run("kubectl", f"--kubeconfig={target}", "version", "--request-timeout=10s")
    return cluster


def _kind_up(wish: Wish) -> Cluster:
    """kind does all of it. Not run where this was developed: there is no Docker there."""
    target = kubeconfig(wish.name, Provider.KIND)
    target.parent.mkdir(parents=True, exist_ok=True)
    if wish.name in _run("kind", "get", "clusters").split():
        _run("kind", "export", "kubeconfig", "--name", wish.name, "--kubeconfig", str(target))
    else:
        with step("kind cluster"):
            _run(
                "kind", "create", "cluster", "--name", wish.name, "--kubeconfig", str(target), "--wait", "5m"
            )
    return Cluster(wish.name, Provider.KIND, target)


def _run(*command: str) -> str:
    try:
        result = subprocess.run(command, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        raise ClusterError(f"{command[0]} is not installed") from None
    if result.returncode:
        raise ClusterError(f"{' '.join(command)}: {result.stderr.strip()}")
    return result.stdout
