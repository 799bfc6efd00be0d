"""containerd with its own root, state and socket: configuration, images, and what it leaves behind."""

import contextlib
import re
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import IO, cast

from stepaudio_cluster import layers
from stepaudio_cluster.errors import ClusterError
from stepaudio_cluster.processes import Process, running
from stepaudio_cluster.settings import Addresses, Places

CNI_PLUGINS = "/usr/lib/cni"
CNI_RESULTS = Path("/var/lib/cni/results")  # libcni's own records; their place cannot be chosen
SHIM_SOCKETS = Path("/run/containerd/s")  # nor can that of the shims' sockets


@dataclass(frozen=True)
class Containerd:
    """The container runtime of one cluster."""

    places: Places

    @property
    def socket(self) -> Path:
        """Where kubelet and `ctr` talk to it."""
        return self.places.run / "containerd.sock"

    @property
    def root(self) -> Path:
        """Images and snapshots; kept by `down`, so that the next `up` need not load them again."""
        return self.places.state / "containerd"

    @property
    def configuration(self) -> Path:
        """The configuration file."""
        return self.places.state / "containerd.toml"

    def configure(self, addresses: Addresses, pause_image: str) -> list[str]:
        """Writes the configuration and the pods' network; returns the command."""
        networks = self.places.state / "cni"
        networks.mkdir(parents=True, exist_ok=True)
        (networks / "10-pods.conflist").write_text(self._network(addresses))
        state = self.places.run / "containerd"
        # restrict_oom_score_adj: without CAP_SYS_RESOURCE runc cannot lower the score and fails with
        # "can't get final child's PID from pipe: EOF".
        self.configuration.write_text(
            f"""\
version = 2
root = "{self.root}"
state = "{state}"
disabled_plugins = ["io.containerd.snapshotter.v1.aufs", "io.containerd.snapshotter.v1.btrfs", \
"io.containerd.snapshotter.v1.devmapper", "io.containerd.snapshotter.v1.zfs", "io.containerd.internal.v1.opt"]

[grpc]
  address = "{self.socket}"

[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "{pause_image}"
  restrict_oom_score_adj = true
  netns_mounts_under_state_dir = true
  stream_server_address = "127.0.0.1"
  stream_server_port = "0"

  [plugins."io.containerd.grpc.v1.cri".containerd]
    snapshotter = "overlayfs"
    default_runtime_name = "runc"

    [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
      runtime_type = "io.containerd.runc.v2"

      [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options]
        SystemdCgroup = false

  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "{CNI_PLUGINS}"
    conf_dir = "{networks}"
"""
        )
        return ["containerd", f"--config={self.configuration}", "--log-level=info"]

    def ready(self) -> bool:
        """Whether it answers."""
        return self.socket.exists() and self._ctr("version").returncode == 0

    def images(self) -> set[str]:
        """Names of the images that pods can use."""
        return set(self._checked("images", "list", "--quiet").split())

    def load(self, archive: Path | IO[bytes], name: str | None = None) -> None:
        """Imports an OCI or docker archive from a file or a stream; `name` overrides the archive's own."""
        options = ["--index-name", name] if name else []
        if isinstance(archive, Path):
            result = self._ctr("images", "import", *options, str(archive))
        else:
            result = self._ctr("images", "import", *options, "-", stdin=archive)
        if result.returncode:
            raise ClusterError(f"the image could not be loaded: {result.stderr.strip()}")

    def load_lacking(self, archive: IO[bytes], name: str) -> None:
        """Imports a docker archive of buildah's as `name`, without the layers that are here already."""
        held = set(self._checked("content", "list", "--quiet").split())
        with subprocess.Popen(
            self._command("images", "import", "-"),
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
        ) as importing:
            pipe = cast("IO[bytes]", importing.stdin)
            with contextlib.suppress(BrokenPipeError), pipe:  # what it says tells why
                layers.without(held, archive, pipe, name)
            words = cast("IO[bytes]", importing.stderr).read().decode(errors="replace").strip()
        if importing.returncode:
            raise ClusterError(f"the image could not be loaded: {words}")

    def remove_image(self, reference: str) -> None:
        """Forgets an image; layers that no other image or container uses are freed."""
        self._checked("images", "remove", reference)

    def remove_containers(self) -> None:
        """Forgets every container and task; images stay."""
        for task in self._checked("tasks", "list", "--quiet").split():
            self._ctr("tasks", "delete", "--force", task)
        for container in self._checked("containers", "list", "--quiet").split():
            self._ctr("containers", "delete", container)
        self._ctr("leases", "delete", *self._checked("leases", "list", "--quiet").split())

    def shims(self) -> list[Process]:
        """The processes that stand between containerd and the pods; they outlive it."""
        socket = str(self.socket)
        return running(lambda arguments: "containerd-shim" in arguments[0] and socket in arguments)

    def shim_sockets(self) -> list[Path]:
        """Sockets of the shims, which a killed shim leaves behind; known only while their bundles exist."""
        sockets = []
        for file in (self.places.run / "containerd").glob("io.containerd.runtime.v2.task/*/*/address"):
            sockets.append(Path(file.read_text().strip().removeprefix("unix://")))
        return [socket for socket in sockets if socket.parent == SHIM_SOCKETS]

    def network_results(self) -> list[Path]:
        """libcni's records of this cluster's pods: one for the pod's network, one for its loopback."""
        name = re.compile(rf"{re.escape(self.places.scope)}-([0-9a-f]{{64}})-\w+")
        found = []
        for path in CNI_RESULTS.iterdir() if CNI_RESULTS.exists() else ():
            if match := name.fullmatch(path.name):
                found += [path, CNI_RESULTS / f"cni-loopback-{match[1]}-lo"]
        return found

    def _network(self, addresses: Addresses) -> str:
        # ptp, not bridge: between two pods on a bridge answers skip the rules that translate service
        # addresses, unless the kernel has br_netfilter.
        return f"""\
{{"cniVersion": "0.4.0", "name": "{self.places.scope}", "plugins": [
  {{"type": "ptp", "ipMasq": false, "ipam": {{"type": "host-local", "dataDir": "{self.places.run / "cni"}",
    "ranges": [[{{"subnet": "{addresses.pods}"}}]], "routes": [{{"dst": "0.0.0.0/0"}}]}}}},
  {{"type": "portmap", "snat": true, "capabilities": {{"portMappings": true}}}}
]}}
"""

    def _command(self, *arguments: str) -> list[str]:
        return ["ctr", "--address", str(self.socket), "--namespace", "k8s.io", *arguments]

    def _ctr(
        self, *arguments: str, stdin: IO[bytes] | int = subprocess.DEVNULL
    ) -> subprocess.CompletedProcess[str]:
        command = self._command(*arguments)
        return subprocess.run(command, stdin=stdin, capture_output=True, text=True, check=False)

    def _checked(self, *arguments: str) -> str:
        result = self._ctr(*arguments)
        if result.returncode:
            raise ClusterError(f"ctr {' '.join(arguments)}: {result.stderr.strip()}")
        return result.stdout
