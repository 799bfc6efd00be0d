"""Other deployments beside the one under load: one that sleeps, two that share a download, models on the
node's own disk, training data, an engine that hangs, and a deletion while no operator runs.

Each is small, has a name of its own, and is gone afterwards.
"""

import contextlib
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import httpx
import psutil
import yaml

from stepaudio_cluster.make_up import RELEASE, cluster_url
from tests.bench.on_a_kubelet.ground import (
    PATIENCE_S,
    change,
    deployed,
    exists,
    hub,
    left_of,
    local_volume,
    pods_of,
    process_of,
    uids,
    until_ready,
    until_reason,
    version,
    volume_of_class,
)
from tests.bench.on_a_kubelet.scenarios import Raw, World
from tests.e2e.load import QUESTION
from tests.e2e.nano import OPERATOR_SELECTOR
from tests.unit.download.hub import COMMIT

OFF = {"enabled": False}
LIGHT = {"chat": OFF, "tts": {"replicas": 0}}
"""Of a deployment in which only the tokenizer has pods, and the gateway."""
VLLM = "vllm_server"
"""In the command of vLLM's process in a pod."""
STALL_S = 30
SAMPLES = 24


def asleep(world: World) -> Raw:
    """A tokenizer that nobody asks goes to sleep; a request is held by its gateway until it is awake."""
    rules = {"min": 0, "max": 1, "downWindow": "20s", "hold": "3m"}
    spec = {**LIGHT, "tokenizer": {"autoscaling": rules}}
    with deployed(world, "sleeper", spec):
        began = time.monotonic()
        until_reason(world, "sap", "sleeper-tokenizer", "Asleep")
        fell = time.monotonic() - began
        world.until(lambda: not pods_of(world, "sleeper", "tokenizer"), "its pod is gone")
        began = time.monotonic()
        with cluster_url(world.nano.cluster, "sleeper-gateway") as url:
            file = {"file": ("a.wav", QUESTION.read_bytes(), "audio/wav")}
            answer = httpx.post(f"{url}/audio/tokens", files=file, timeout=240, trust_env=False)
        answer.raise_for_status()
        return {
            "asleep after s": round(fell),
            "answered after s": round(time.monotonic() - began),
            "codes": len(answer.json()["codes"]),
        }


def shared_models(world: World) -> Raw:
    """Two deployments that want the same models share a volume and a download; pods wait for it; it goes with
    the last of the two, since both say so.
    """
    with hub(world) as source, tempfile.TemporaryDirectory(prefix="stepaudio-shared-") as folder:
        volume_of_class(world, "bench-shared", folder)
        cache = {"storageClassName": "bench-shared", "size": "1Gi", "whenUnused": "Delete"}
        models = {"source": {"huggingFace": {"endpoint": source.url}}, "cache": cache}
        spec = {"models": models, **LIGHT, "gateway": OFF}
        with deployed(world, "first", spec), deployed(world, "second", spec):
            claims = [
                claim["metadata"]["name"]
                for claim in world.nano.objects("pvc")
                if claim["spec"].get("storageClassName") == "bench-shared"
            ]
            sent, whole = source.sent, _bytes_in(folder)
        world.until(lambda: not exists(world, "pvc", claims[0]), "the volume is gone with the last of them")
        world.nano.cluster.kubectl("delete", "pv", "bench-shared")
    if len(claims) != 1 or not 0.95 * whole <= sent <= 1.05 * whole:
        raise AssertionError(f"claims {claims}, {sent} bytes sent of {whole}")
    return {"volumes": len(claims), "sent of what is there": round(sent / whole, 3)}


def node_local(world: World) -> Raw:
    """Models on the node's own disk: a Job brings them to where the pod is, which waits for it; another
    revision comes before the pod of the first one goes; both folders go with the deployment.
    """
    name = "bench-disks"
    with hub(world) as source, tempfile.TemporaryDirectory(prefix="stepaudio-disk-") as folder:
        local_volume(world, name, folder)
        cache = {"nodeLocal": {"claimName": name}, "whenUnused": "Delete"}

        def models(revision: str) -> Raw:
            hub_ = {"endpoint": source.url, "revisions": {"tokenizer": revision}}
            return {"source": {"huggingFace": hub_}, "cache": cache}

        spec = {"models": models("main"), **LIGHT, "gateway": OFF}
        with deployed(world, "local", spec):
            before = uids(pods_of(world, "local", "tokenizer"))
            folders = [_folders(folder)]
            change(world, "local", {"models": models(COMMIT)})
            world.until(lambda: len(_folders(folder)) == 2, "the other revision's folder", PATIENCE_S)
            kept = before <= uids(pods_of(world, "local", "tokenizer"))
            world.until(
                lambda: not before & uids(pods_of(world, "local", "tokenizer")), "another pod", PATIENCE_S
            )
            until_ready(world, "local")
            folders.append(_folders(folder))
        world.until(lambda: not _folders(folder), "the node's folders are gone", PATIENCE_S)
        world.nano.cluster.kubectl("delete", f"pvc/{name}", f"pv/{name}")
    return {"folders, in turn": [len(found) for found in folders], "served until it was there": kept}


def training_data(world: World) -> Raw:
    """examples/data/job.yaml, smaller: the deployment under load is the teacher and the tokenizer."""
    with data_job(world, SAMPLES) as (name, folder):
        began = time.monotonic()
        until_reason(world, "sadj", name, "DataMade")
        took = time.monotonic() - began
        status = world.get("sadj", name)["status"]
        world.nano.cluster.kubectl("delete", "sadj", name)
        manifests = len(list(folder.rglob("manifest.json")))
    return {
        **data_figures(status),
        "took s": round(took),
        "data left when the job was deleted": manifests == 1,
    }


@contextlib.contextmanager
def data_job(world: World, samples: int) -> Iterator[tuple[str, Path]]:
    """A data job as the example's, of so many samples: its name, and the folder that is its volume; both are
    gone afterwards.
    """
    job = yaml.safe_load((world.nano.up.project / "examples/data/job.yaml").read_text())
    name = job["metadata"]["name"]
    with tempfile.TemporaryDirectory(prefix="stepaudio-data-") as folder:
        volume_of_class(world, "bench-data", folder)
        job["spec"]["recipe"]["texts"] = [{"domain": "en", "split": "train", "count": samples}]
        job["spec"]["output"]["volume"]["storageClassName"] = "bench-data"
        job["spec"]["output"]["volume"]["accessMode"] = "ReadWriteMany"
        job["spec"]["runtime"] = {"version": version(world)}
        world.apply(job)
        try:
            yield name, Path(folder)
        finally:
            kubectl = world.nano.cluster.kubectl
            kubectl("delete", "sadj", name, "--cascade=foreground", "--ignore-not-found", check=False)
            kubectl("delete", f"pvc/{name}-data", "pv/bench-data", check=False)


def data_figures(status: Raw) -> Raw:
    """What a data job says of its data."""
    return {what: status.get(what) for what in ("samples", "refused", "seconds")}


def hanging(world: World) -> Raw:
    """An engine of another chat model is stopped with a request in flight: its pod ends by itself, says
    why, and serves again.
    """
    spec = {"tts": OFF, "health": {"stallTimeout": f"{STALL_S}s"}}
    body = {"model": "step-audio-chat", "messages": [{"role": "user", "content": "hello"}]}
    with deployed(world, "hanger", spec), cluster_url(world.nano.cluster, "hanger-gateway") as url:

        def asked() -> int:
            answer = httpx.post(f"{url}/chat/completions", json=body, timeout=240, trust_env=False)
            return answer.status_code

        (pod,) = pods_of(world, "hanger", "chat")
        engine = process_of(pod, VLLM)
        engine.suspend()
        began = time.monotonic()
        status, ended = asked(), time.monotonic() - began
        with contextlib.suppress(psutil.NoSuchProcess):  # what is stopped hears nothing but this
            engine.kill()
        said = world.until(lambda: _why_not_ready(world, "hanger"), "it says why", PATIENCE_S)
        until_ready(world, "hanger")
        return {
            "the request's status": status,
            "ended after s": round(ended),
            "said": said,
            "served again after s": round(time.monotonic() - began),
            "then": asked(),
        }


def without_operator(world: World) -> Raw:
    """A deployment is deleted while no operator runs: its objects go, what others made stays."""
    kubectl = world.nano.cluster.kubectl
    spec = LIGHT
    with deployed(world, "orphan", spec):
        kubectl("create", "configmap", "orphan-notes", "--from-literal=whose=theirs")
        _scale_operator(world, 0)
        try:
            began = time.monotonic()
            kubectl("delete", "sad", "orphan", "--wait=false")
            world.until(lambda: not left_of(world, "orphan"), "its objects are gone", PATIENCE_S)
            took = time.monotonic() - began
        finally:
            _scale_operator(world, 1)
        stayed = exists(world, "configmap", "orphan-notes")
        kubectl("delete", "configmap", "orphan-notes")
    return {"gone after s": round(took), "others' objects stay": stayed}


NEIGHBOURS: Mapping[str, Callable[[World], Raw]] = {
    "asleep": asleep,
    "shared-models": shared_models,
    "node-local": node_local,
    "training-data": training_data,
    "hanging": hanging,
    "without-operator": without_operator,
}


def _folders(disk: str) -> list[str]:
    """Folders of models on a node's disk."""
    return sorted(path.name for path in Path(disk).iterdir() if path.is_dir())


def _bytes_in(folder: str) -> int:
    return sum(path.stat().st_size for path in Path(folder).rglob("*") if path.is_file())


def _why_not_ready(world: World, name: str) -> str | None:
    """Reason and words of the deployment's condition, once they are about its engine."""
    conditions = {c["type"]: c for c in world.get("sad", name)["status"]["conditions"]}
    ready = conditions["Ready"]
    said = f"{ready['reason']}: {ready['message']}"
    return said if ready["status"] == "False" and "stall" in said.lower() else None


def _scale_operator(world: World, replicas: int) -> None:
    kubectl = world.nano.cluster.kubectl
    kubectl("scale", "deployment", "-n", RELEASE, "-l", OPERATOR_SELECTOR, f"--replicas={replicas}")
    world.until(lambda: len(world.nano.operator_pods()) == replicas, f"{replicas} operators")
    if replicas:
        kubectl("rollout", "status", "deployment", "-n", RELEASE, "-l", OPERATOR_SELECTOR)
