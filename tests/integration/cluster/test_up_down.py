"""Proves that `up` changes nothing that is right and repairs what is not, and that `down` leaves nothing."""

import shutil
import signal
import time

import pytest

from stepaudio_cluster import addons, mounts, processes
from stepaudio_cluster.api import Cluster, Provider
from stepaudio_cluster.cgroups import ControlGroup
from stepaudio_cluster.netns import Namespace
from stepaudio_cluster.own import OwnCluster
from stepaudio_cluster.settings import Mode, Places, Record, Wish
from tests.integration.cluster.conftest import NAME, WISH
from tests.integration.cluster.machine import Machine

pytestmark = pytest.mark.node


def pods(cluster: Cluster) -> str:
    return cluster.kubectl("get", "pods", "-A", "-o", "jsonpath={.items[*].metadata.uid}")


def test_a_second_up_starts_nothing(cluster: Cluster) -> None:
    own = OwnCluster.of(NAME)
    programs, before = own.programs(), pods(cluster)

    again = Cluster.up(WISH, Provider.OWN)

    assert again == cluster
    assert own.programs() == programs
    assert all(programs.values())
    assert pods(cluster) == before


def test_up_starts_again_what_was_killed(cluster: Cluster) -> None:
    own = OwnCluster.of(NAME)
    before = own.programs()
    for name in ("kubelet", "kube-apiserver"):
        process = before[name]
        assert process is not None
        process.signal(signal.SIGKILL)
        while process.alive():
            time.sleep(0.05)

    Cluster.up(WISH, Provider.OWN)

    after = own.programs()
    assert all(after.values())
    assert {name for name in after if after[name] != before[name]} == {"kubelet", "kube-apiserver"}


def test_up_after_a_power_cut_brings_the_pods_back(cluster: Cluster) -> None:
    own, before = OwnCluster.of(NAME), pods(cluster)
    record = Record.read(own.places)
    assert record is not None
    # What a reboot leaves: the disk, without processes, mounts, namespace, control groups and /run.
    group = ControlGroup(own.places.scope)
    programs = [process for process in own.programs().values() if process]
    everything = programs + own.containerd.shims() + group.processes()
    processes.stop(everything, grace_s=0)
    for socket in own.containerd.shim_sockets():
        socket.unlink(missing_ok=True)
    mounts.unmount_below(own.places.run, own.places.state)
    Namespace(own.places.scope, record.addresses).remove()
    group.remove()
    shutil.rmtree(own.places.run)

    Cluster.up(WISH, Provider.OWN)

    assert pods(cluster) == before
    assert all(own.programs().values())
    assert addons.dns_answers(record.addresses.dns)


def test_two_clusters_at_once(cluster: Cluster) -> None:
    other = Cluster.up(Wish("stepaudio-test-other", Mode.API), Provider.OWN)
    try:
        other.kubectl("create", "namespace", "only-here")
        assert "only-here" in other.kubectl("get", "namespaces")
        assert "only-here" not in cluster.kubectl("get", "namespaces")
    finally:
        other.down(purge=True)
    assert not Places.of("stepaudio-test-other").state.exists()


@pytest.mark.parametrize("crashed", [False, True], ids=["orderly", "after a crash"])
def test_down_leaves_nothing(before: Machine, crashed: bool) -> None:
    cluster = Cluster.up(WISH, Provider.OWN)
    own = OwnCluster.of(NAME)
    assert Machine.now(NAME).beyond(before).keys() >= {
        "processes",
        "mounts",
        "namespaces",
        "links",
        "routes",
        "groups",
        "files",
    }
    if crashed:
        # `up` was killed before it wrote down what it had started, and the runtime is dead as well.
        for name in ("containerd", "kubelet", "etcd"):
            process = own.programs()[name]
            assert process is not None
            process.signal(signal.SIGKILL)
        for record in own.supervisor.records.iterdir():
            record.unlink()

    cluster.down(purge=True)

    assert Machine.now(NAME).beyond(before) == {}
    assert not own.places.state.exists()
    assert not own.places.run.exists()
