"""A cluster of our own on this machine: brought up step by step, taken down without a trace.

`up` makes what is missing and leaves what is right, so it is also the repair after a crash or a reboot.
`down` works from records and from what the kernel says (processes, mounts, control groups, interfaces), so
it also cleans up after an `up` that was killed.
"""

import contextlib
import fcntl
import json
import shutil
import socket
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import IO

from stepaudio_cluster import (
    addons,
    archive,
    binaries,
    control_plane,
    mounts,
    netns,
    node,
    packages,
    processes,
    simulated,
)
from stepaudio_cluster.binaries import Programs
from stepaudio_cluster.cgroups import ControlGroup
from stepaudio_cluster.containerd import Containerd
from stepaudio_cluster.control_plane import Credentials
from stepaudio_cluster.errors import ClusterError, StepError
from stepaudio_cluster.kubeapi import Api
from stepaudio_cluster.netns import Namespace
from stepaudio_cluster.processes import Process, Supervisor
from stepaudio_cluster.progress import step
from stepaudio_cluster.settings import SLOTS, Addresses, Mode, Places, Record, Wish

START_S = 90.0  # patience for a program to become ready; the API server takes 4 to 7 s on two idle cores
ROOT = 0
HOST_PATH_VOLUMES = Path("/tmp/hostpath_pv")  # noqa: S108 - the controller manager's choice
CONTAINER_LOGS = Path("/var/log/containers")  # kubelet's choice: links to the pods' logs
# Programs that `down` may end when it finds one with this cluster's folders among its arguments.
OURS = {*binaries.PARTS, "containerd", "kwok"} - {"kubectl"}


@dataclass(frozen=True)
class OwnCluster:
    """The cluster `name` on this machine, up or not."""

    places: Places

    @staticmethod
    def of(name: str) -> "OwnCluster":
        """The cluster of that name."""
        return OwnCluster(Places.of(Wish(name).name))

    @property
    def supervisor(self) -> Supervisor:
        """Its programs."""
        return Supervisor(self.places.run / "processes", self.places.logs)

    @property
    def containerd(self) -> Containerd:
        """Its container runtime (mode `node`)."""
        return Containerd(self.places)

    def up(self, wish: Wish) -> None:
        """Brings the cluster to what is wished for."""
        if wish.mode is Mode.NODE:
            packages.check_root()
            packages.check_disk(self.places.state)
            packages.ensure_packages()
        programs = binaries.ensure(kwok=wish.kwok > 0)
        with self._locked():
            record = Record.read(self.places)
            if record and record.mode is not wish.mode:
                self._take_down(record, purge=False)
                record = None
            record = record or self._new_record(wish.mode)
            if wish.fake_gpus is not None and wish.fake_gpus != record.fake_gpus:
                record = replace(record, fake_gpus=wish.fake_gpus)
                record.write(self.places)
            credentials = control_plane.ensure_credentials(self.places, record.addresses)
            if wish.mode is Mode.API:
                self._control_plane(record, programs, credentials, lambda *command: list(command))
            else:
                self._node(record, programs, credentials)
            if wish.kwok:
                if wish.mode is Mode.API:
                    command = control_plane.scheduler(record.mode, programs, credentials)
                    self.supervisor.ensure("kube-scheduler", command)
                simulated.ensure(wish, self.places, self.supervisor, self._api(record, credentials), record)
            for name, process in self.programs().items():
                if process is None:
                    raise StepError(f"{name} ended", self.supervisor.log(name))

    def down(self, purge: bool = False) -> None:
        """Ends everything and removes every trace but the loaded images, which `purge` removes too."""
        if not self.places.state.exists() and not self.places.run.exists():
            return
        with self._locked():
            with step(f"cluster {self.places.name} down"):
                self._take_down(Record.read(self.places), purge)

    def programs(self) -> dict[str, Process | None]:
        """Every program with a record -> its process, None where it ended."""
        return {name: self.supervisor.find(name) for name in self.supervisor.names()}

    def load(self, archive_: Path | IO[bytes], name: str | None = None) -> None:
        """Gives pods an image."""
        self.containerd.load(archive_, name)

    def _control_plane(
        self, record: Record, programs: Programs, credentials: Credentials, place: Callable[..., list[str]]
    ) -> Api:
        addresses, supervisor = record.addresses, self.supervisor
        with step("etcd and API server"):
            supervisor.ensure(
                "etcd", place(*control_plane.etcd(programs, self.places, addresses, credentials))
            )
            supervisor.wait("etcd", lambda: self._etcd_listens(record), START_S)
            command = control_plane.apiserver(record.mode, programs, self.places, addresses, credentials)
            started = supervisor.ensure("kube-apiserver", place(*command))
            api = self._api(record, credentials)
            supervisor.wait("kube-apiserver", api.ready, START_S)
        command = control_plane.controller_manager(record.mode, programs, addresses, credentials)
        supervisor.ensure("kube-controller-manager", place(*command))
        addons.apply_storage(api)
        if started:
            # The first thing that anybody makes is a pod, and it needs this account.
            path = "/api/v1/namespaces/default/serviceaccounts/default"
            supervisor.wait("kube-controller-manager", lambda: api.get(path) is not None, START_S)
        return api

    def _etcd_listens(self, record: Record) -> bool:
        """In an own namespace the port cannot be tried from here; there the API server retries by itself."""
        if record.mode is Mode.NODE:
            return self.supervisor.find("etcd") is not None
        with (
            contextlib.suppress(OSError),
            socket.create_connection(("127.0.0.1", record.addresses.etcd_port), 1),
        ):
            return True
        return False

    def _node(self, record: Record, programs: Programs, credentials: Credentials) -> None:
        addresses, supervisor = record.addresses, self.supervisor
        namespace, group = Namespace(self.places.scope, addresses), ControlGroup(self.places.scope)
        with _lock(self.places.base / ".slots.lock"):
            # Of the whole machine: the first cluster that runs pods notes them, the last one puts them back.
            if not self._kernel_settings.exists():
                self._kernel_settings.write_text(json.dumps(node.kernel_settings()))
        namespace.ensure()
        group.ensure()
        api = self._control_plane(record, programs, credentials, namespace.enter)
        supervisor.ensure(
            "kube-scheduler", namespace.enter(*control_plane.scheduler(record.mode, programs, credentials))
        )
        pause, dns = (archive.reference(name, programs.version) for name in ("pause", "coredns"))
        with step("container runtime"):
            command = self.containerd.configure(addresses, pause)
            supervisor.ensure("containerd", namespace.enter(*command), [self.containerd.configuration])
            supervisor.wait("containerd", self.containerd.ready, START_S)
            self._load_program(programs, "pause", pause)
            self._load_program(programs, "coredns", dns, user=ROOT)
        with step("node ready"):
            command, configuration = node.kubelet(
                programs,
                self.places,
                addresses,
                credentials,
                group=group,
                socket=self.containerd.socket,
            )
            # A node that was Ready before is still called so for 40 s; its kubelet must have said it itself.
            before = datetime.now(UTC).replace(microsecond=0)
            started = supervisor.ensure("kubelet", namespace.enter(*command), [configuration])
            since = before if started else datetime.min.replace(tzinfo=UTC)
            supervisor.ensure(
                "kube-proxy", namespace.enter(*node.proxy(programs, self.places, addresses, credentials))
            )
            supervisor.wait("kubelet", lambda: node.node_ready(api, self.places.name, since), START_S)
            node.claim_gpus(api, self.places.name, record.fake_gpus)
        with step("cluster DNS"):
            addons.apply_dns(api, dns, addresses.dns)
            supervisor.wait("kubelet", lambda: addons.dns_answers(addresses.dns), START_S)

    def _load_program(
        self, programs: Programs, name: str, reference: str, user: int = archive.NOBODY
    ) -> None:
        if reference in self.containerd.images():
            return
        with tempfile.TemporaryFile() as stream:
            archive.write(Path(programs.path(name)), reference, stream, user)
            stream.seek(0)
            self.containerd.load(stream)

    def _api(self, record: Record, credentials: Credentials) -> Api:
        return control_plane.api(credentials, record.addresses)

    def _new_record(self, mode: Mode) -> Record:
        """Chooses addresses that neither the host nor another cluster uses, and writes them down."""
        if mode is Mode.API:
            record = Record(mode, Addresses.on_loopback(*_free_ports(3)))
            record.write(self.places)
            return record
        with _lock(self.places.base / ".slots.lock"):
            taken = {other.addresses.slot for other in self._records()}
            used = netns.used_networks()
            for slot in range(SLOTS):
                addresses = Addresses.of_slot(slot)
                if slot not in taken and netns.free(addresses, used):
                    record = Record(mode, addresses)
                    record.write(self.places)
                    return record
        raise ClusterError(
            f"all of {Addresses.of_slot(0).networks} to slot {SLOTS - 1} are in use on this machine"
        )

    @property
    def _kernel_settings(self) -> Path:
        """Where the machine's settings are noted; below /run, since a reboot resets them."""
        return self.places.run_base / "kernel-settings.json"

    def _records(self) -> list[Record]:
        """Records of all clusters on this machine."""
        names = [path.parent.name for path in self.places.base.glob("*/cluster.json")]
        return [record for name in names if (record := Record.read(Places.of(name)))]

    def _take_down(self, record: Record | None, purge: bool) -> None:
        supervisor, runtime, group = self.supervisor, self.containerd, ControlGroup(self.places.scope)
        volumes = self._volumes() if record and record.mode is Mode.NODE else []
        # First those that would start something anew, then pods, then what pods need.
        supervisor.stop(["kwok", "kubelet", "kube-scheduler", "kube-controller-manager", "kube-proxy"])
        processes.stop(group.processes(), grace_s=3)
        if runtime.socket.exists() and runtime.ready():
            runtime.remove_containers()
        sockets = runtime.shim_sockets()
        # What they would write on the way out is deleted below, so there is little to wait for.
        supervisor.stop(supervisor.names(), grace_s=1)
        processes.stop(self._strays() + runtime.shims())
        processes.stop(group.processes(), grace_s=1)
        for leftover in [*sockets, *runtime.network_results(), *self._container_logs()]:
            leftover.unlink(missing_ok=True)
        mounts.unmount_below(self.places.run, self.places.state)
        if record and record.mode is Mode.NODE:
            Namespace(self.places.scope, record.addresses).remove()
            group.remove()
            with _lock(self.places.base / ".slots.lock"):
                self.places.record.unlink()
                others = self._records()
                if self._kernel_settings.exists() and not any(other.mode is Mode.NODE for other in others):
                    node.restore_kernel_settings(json.loads(self._kernel_settings.read_text()))
                    self._kernel_settings.unlink()
        for volume in volumes:
            shutil.rmtree(volume, ignore_errors=True)
        shutil.rmtree(self.places.run, ignore_errors=True)
        kept = set() if purge else {runtime.root.name, self.places.logs.name}
        for entry in self.places.state.iterdir() if self.places.state.exists() else []:
            if entry.name in kept:
                continue
            if entry.is_dir() and not entry.is_symlink():
                shutil.rmtree(entry)
            else:
                entry.unlink()
        if purge:
            shutil.rmtree(self.places.state, ignore_errors=True)

    def _strays(self) -> list[Process]:
        """Programs of this cluster without a record: `up` was killed between starting and recording one."""
        folders = (f"{self.places.run}/", f"{self.places.state}/")
        return processes.running(
            lambda arguments: (
                Path(arguments[0]).name in OURS
                and any(folder in argument for argument in arguments[1:] for folder in folders)
            )
        )

    def _container_logs(self) -> list[Path]:
        links = CONTAINER_LOGS.iterdir() if CONTAINER_LOGS.exists() else iter(())
        return [
            link for link in links if link.is_symlink() and link.readlink().is_relative_to(self.places.logs)
        ]

    def _volumes(self) -> list[Path]:
        """Folders of the cluster's dynamic volumes, as far as the API server still tells."""
        try:
            record = Record.read(self.places)
            if record is None:
                return []
            credentials = control_plane.ensure_credentials(self.places, record.addresses)
            volumes = self._api(record, credentials).get("/api/v1/persistentvolumes")
        except (OSError, ClusterError):
            return []
        paths = [
            volume["spec"].get("hostPath", {}).get("path", "") for volume in (volumes or {}).get("items", [])
        ]
        return [Path(path) for path in paths if Path(path).parent == HOST_PATH_VOLUMES]

    @contextlib.contextmanager
    def _locked(self) -> Iterator[None]:
        self.places.base.mkdir(parents=True, exist_ok=True)
        with _lock(self.places.base / f".{self.places.name}.lock"):
            for folder in (self.places.state, self.places.run, self.places.logs):
                folder.mkdir(parents=True, exist_ok=True)
            yield


@contextlib.contextmanager
def _lock(path: Path) -> Iterator[None]:
    with path.open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _free_ports(count: int) -> list[int]:
    """Ports on loopback that are free at this moment."""
    sockets = [socket.socket() for _ in range(count)]
    try:
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]
    finally:
        for one in sockets:
            one.close()
