"""What deployments beside the one under load stand on: themselves, volumes of this machine, a model hub."""

import contextlib
import json
import tempfile
from collections.abc import Iterator
from pathlib import Path

import psutil

from stepaudio_cluster.images import Builder
from stepaudio_cluster.settings import Places, Record
from stepaudio_runtime.checkpoints.nano import generate_nano
from tests.bench.on_a_kubelet.scenarios import NAMESPACE, Raw, World
from tests.unit.download.hub import Hub

PATIENCE_S = 600.0
REPOSITORIES = ("Step-Audio-Tokenizer", "Step-Audio-TTS-3B", "Step-Audio-Chat")
SIZE = "1Gi"


@contextlib.contextmanager
def applied(world: World, name: str, spec: Raw, namespace: str = NAMESPACE) -> Iterator[None]:
    """A deployment of that name; deleted afterwards."""
    body: Raw = {"apiVersion": "stepaudio.io/v1alpha1", "kind": "StepAudioDeployment"}
    body["metadata"] = {"name": name, "namespace": namespace}
    body["spec"] = {"preset": "nano", "runtime": {"version": version(world)}, **spec}
    world.apply(body)
    try:
        yield
    finally:
        world.nano.cluster.kubectl(
            *("delete", "sad", name, "-n", namespace, "--cascade=foreground", "--ignore-not-found"),
            check=False,
        )


@contextlib.contextmanager
def deployed(world: World, name: str, spec: Raw, namespace: str = NAMESPACE) -> Iterator[None]:
    """The same, Ready."""
    with applied(world, name, spec, namespace):
        until_ready(world, name, namespace)
        yield


def change(world: World, name: str, spec: Raw, namespace: str = NAMESPACE) -> None:
    """Changes fields of such a deployment; None takes one away."""
    world.nano.cluster.kubectl(
        *("patch", "sad", name, "-n", namespace, "--type=merge", "--patch", json.dumps({"spec": spec}))
    )


@contextlib.contextmanager
def hub(world: World) -> Iterator[Hub]:
    """A model hub on this machine that the cluster's pods reach, with the nano models."""
    host = host_address(world)
    with tempfile.TemporaryDirectory(prefix="stepaudio-hub-") as folder:
        generate_nano(Path(folder))
        files = {
            f"stepfun-ai/{repository}": {
                str(path.relative_to(root)): path.read_bytes() for path in root.rglob("*") if path.is_file()
            }
            for repository in REPOSITORIES
            if (root := Path(folder) / repository).is_dir()
        }
    source = Hub(files, hosts=(host, host))
    try:
        yield source
    finally:
        source.close()


def host_address(world: World) -> str:
    """Of this machine, as the cluster's pods reach it."""
    record = Record.read(Places.of(world.nano.cluster.name))
    if record is None:
        raise RuntimeError("only pods of a cluster of this machine's own reach what runs here")
    return record.addresses.host


def version(world: World) -> str:
    """Of the runtime image of this checkout."""
    return Builder.detect(world.nano.up.project, world.nano.up.logs).version()


def volume_of_class(world: World, name: str, folder: str, class_: str = "") -> None:
    """A volume of that name and class, else of its name: a folder here that all may write to."""
    Path(folder).chmod(0o777)
    _volume(world, name, {"hostPath": {"path": folder, "type": "Directory"}}, class_)


def shared_claim(world: World, name: str, folder: str) -> None:
    """A claim of that name, bound to such a volume."""
    volume_of_class(world, name, folder)
    _claim(world, name)


def local_volume(world: World, name: str, folder: str) -> None:
    """A claim of that name, bound to a local volume: that folder of every node there is."""
    Path(folder).chmod(0o777)
    key = "kubernetes.io/hostname"
    nodes = [node["metadata"]["labels"][key] for node in world.nano.objects("nodes")]
    term = {"matchExpressions": [{"key": key, "operator": "In", "values": nodes}]}
    affinity = {"required": {"nodeSelectorTerms": [term]}}
    _volume(world, name, {"local": {"path": folder}, "nodeAffinity": affinity})
    _claim(world, name)


def _claim(world: World, name: str) -> None:
    claim: Raw = {"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"name": name}}
    wanted = {"accessModes": ["ReadWriteMany"], "storageClassName": name}
    world.apply({**claim, "spec": {**wanted, "resources": {"requests": {"storage": SIZE}}}})


def _volume(world: World, name: str, place: Raw, class_: str = "") -> None:
    wanted = {"accessModes": ["ReadWriteMany"], "capacity": {"storage": SIZE}}
    wanted["storageClassName"] = class_ or name
    volume: Raw = {"apiVersion": "v1", "kind": "PersistentVolume", "metadata": {"name": name}}
    world.apply({**volume, "spec": {**wanted, **place}})


def until_ready(world: World, name: str, namespace: str = NAMESPACE) -> None:
    """The deployment says Ready for what is asked for now."""
    world.until(lambda: _reason(world.get("sad", name, namespace), "True"), f"{name} is Ready", PATIENCE_S)


def until_reason(world: World, kind: str, name: str, reason: str) -> None:
    """Ready, or not, for that reason."""
    world.until(lambda: _reason(world.get(kind, name)) == reason, f"{name} is {reason}", PATIENCE_S)


def _reason(thing: Raw, status: str | None = None) -> str | None:
    """Of the condition Ready, where it is about the present generation and has that status."""
    if thing.get("status", {}).get("observedGeneration") != thing["metadata"]["generation"]:
        return None
    found = condition(thing, "Ready")
    return found.get("reason") if status in (None, found.get("status")) else None


def condition(thing: Raw, kind: str) -> Raw:
    """One of its conditions, as it was said last; empty where it has none of that kind."""
    return next((c for c in thing.get("status", {}).get("conditions", []) if c["type"] == kind), {})


def pods_of(world: World, name: str, component: str, namespace: str = NAMESPACE) -> list[Raw]:
    """Pods of that deployment's component, without those that leave."""
    selector = f"stepaudio.io/deployment={name},app.kubernetes.io/component={component}"
    listed = world.nano.objects("pods", "-n", namespace, "-l", selector)
    return [pod for pod in listed if not pod["metadata"].get("deletionTimestamp")]


def uids(pods: list[Raw]) -> set[str]:
    """Of pods."""
    return {pod["metadata"]["uid"] for pod in pods}


def processes_of(pod: Raw) -> Iterator[psutil.Process]:
    """Those of a pod: pods' processes are this machine's."""
    uid = pod["metadata"]["uid"]
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error, OSError):
            if uid in Path(f"/proc/{process.pid}/cgroup").read_text().replace("_", "-"):
                yield process


def process_of(pod: Raw, words: str) -> psutil.Process:
    """The one whose command has these words."""
    for process in processes_of(pod):
        with contextlib.suppress(psutil.Error):
            if words in " ".join(process.cmdline()):
                return process
    raise RuntimeError(f"no process with {words!r} in pod {pod['metadata']['name']}")


def left_of(world: World, name: str) -> list[str]:
    """What carries the deployment's label or its name."""
    kinds = "sap,pods,services,deployments,controllerrevisions,poddisruptionbudgets,serviceaccounts"
    listed = world.nano.objects(kinds, "-l", f"stepaudio.io/deployment={name}")
    there = [f"{thing['kind']}/{thing['metadata']['name']}" for thing in listed]
    return there + ([f"sad/{name}"] if exists(world, "sad", name) else [])


def exists(world: World, kind: str, name: str) -> bool:
    """Whether there is such an object."""
    return bool(world.nano.cluster.kubectl("get", kind, name, "--ignore-not-found", "-o", "name").strip())
