"""A GPU that only the node's list has: what asks for one is placed, and finds no driver."""

import contextlib
import subprocess
from collections.abc import Iterator

from stepaudio_cluster.api import Cluster
from stepaudio_cluster.images import RUNTIME_CPU, RUNTIME_CUDA, Builder
from stepaudio_cluster.own import OwnCluster
from stepaudio_cluster.settings import Wish


@contextlib.contextmanager
def claimed(cluster: Cluster, images: Builder) -> Iterator[None]:
    """The node claims one, and the CPU image goes by the CUDA one's name too: torch is the same in both."""
    socket = OwnCluster.of(cluster.name).containerd.socket
    ctr = ["ctr", "--address", str(socket), "--namespace", "k8s.io", "images"]
    own, borrowed = images.reference(RUNTIME_CPU), images.reference(RUNTIME_CUDA)
    try:
        Cluster.up(Wish(cluster.name, fake_gpus=1))
        subprocess.run([*ctr, "tag", "--force", own, borrowed], check=True, capture_output=True)
        yield
    finally:
        subprocess.run([*ctr, "remove", borrowed], check=False, capture_output=True)
        Cluster.up(Wish(cluster.name, fake_gpus=0))
