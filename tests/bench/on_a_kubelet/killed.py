"""Pods that work on a volume are killed in the middle, beside the deployment under load: training data and
models come to the same end.
"""

import hashlib
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path

from stepaudio_operator import names
from stepaudio_runtime.engine.shards import read_records
from tests.bench.on_a_kubelet.ground import (
    applied,
    change,
    hub,
    pods_of,
    process_of,
    uids,
    until_ready,
    until_reason,
    volume_of_class,
)
from tests.bench.on_a_kubelet.neighbours import LIGHT, OFF, data_figures, data_job
from tests.bench.on_a_kubelet.scenarios import Raw, World
from tests.unit.download.hub import COMMIT, LARGE, Cut, Fault

SAMPLES = 30
"""Fewer than a shard has: until the end each lies in a file of its own."""
KILLED_AT = (8, 16)
"""Samples that are there when a pod is killed, and when the next one is deleted."""
CLASS, FIRST, SECOND = "bench-models", "bench-models-1", "bench-models-2"
PIECE = 400_000
"""Bytes that the hub sends before it cuts a connection."""
SLOWLY_S = 0.3
ENOUGH = 6_000_000
"""Bytes that have come when the download is killed."""


def data(world: World) -> Raw:
    """The pod that makes training data is killed, the next one deleted: what was made stays as it was, and
    the data become whole.
    """
    with data_job(world, SAMPLES) as (name, folder):
        began = time.monotonic()
        world.until(lambda: len(_made(folder)) >= KILLED_AT[0], f"{KILLED_AT[0]} samples")
        first = _working(world, name)
        process_of(first, "data run").kill()
        kept = _made(folder)
        world.until(lambda: len(_made(folder)) >= max(KILLED_AT[1], len(kept) + 4), "more samples")
        second = _working(world, name)
        kept_by_second = _made(folder)
        world.nano.cluster.kubectl("delete", "pod", second["metadata"]["name"])
        until_reason(world, "sadj", name, "DataMade")
        took = time.monotonic() - began
        status = world.get("sadj", name)["status"]
        (manifest,) = folder.rglob("manifest.json")
        records = list(read_records(manifest.parent))
    spoken = {(record["text"], record["voice"]) for record in records}
    if not kept.items() <= kept_by_second.items() or first["metadata"]["uid"] == second["metadata"]["uid"]:
        raise AssertionError("samples that were made have been made again")
    if status["samples"] + status["refused"] != SAMPLES or len(records) != SAMPLES:
        raise AssertionError(f"{len(records)} records of {SAMPLES}: {status}")
    return {
        **data_figures(status),
        "made when it was killed, when it was deleted": [len(kept), len(kept_by_second)],
        "texts and voices": len(spoken),
        "took s": round(took),
    }


def download(world: World) -> Raw:
    """The pod that fills a volume is killed in the middle, beside a hub that cuts its connections: whole
    files are not fetched again. Then another revision: the pod of the first one serves until its volume is
    filled.
    """
    with (
        hub(world) as source,
        tempfile.TemporaryDirectory(prefix="stepaudio-models-") as one,
        tempfile.TemporaryDirectory(prefix="stepaudio-models-") as other,
    ):
        volume_of_class(world, FIRST, one, CLASS)
        volume_of_class(world, SECOND, other, CLASS)

        def cuts(path: str) -> Fault:
            time.sleep(SLOWLY_S)
            return Cut(PIECE)

        def models(revision: str) -> Raw:
            hub_ = {"endpoint": source.url, "revisions": {"tokenizer": revision}}
            cache = {"storageClassName": CLASS, "size": "1Gi", "whenUnused": "Delete"}
            return {"models": {"source": {"huggingFace": hub_}, "cache": cache}}

        source.faults = cuts
        with applied(world, "fetcher", {**models("main"), **LIGHT, "gateway": OFF}):
            world.until(lambda: source.sent > ENOUGH, "much of it has come")
            pod, there = _loading(world), _stored(one, other)
            if pod is None or not there:
                raise AssertionError("the download is over, or no file is whole yet")
            process_of(pod, "models fetch").kill()
            killed_at, asked = source.sent, len(source.seen)
            until_ready(world, "fetcher")
            again = {path for _, path, _ in source.seen[asked:] if path.startswith("/store/")}
            sent = source.sent
            wanted = sum(_volume(one, other).values())
            before = uids(pods_of(world, "fetcher", "tokenizer"))
            change(world, "fetcher", models(COMMIT))
            world.until(lambda: source.sent > sent, "the other revision is on its way")
            kept = uids(pods_of(world, "fetcher", "tokenizer")) == before
            world.until(
                lambda: (now := uids(pods_of(world, "fetcher", "tokenizer"))) and not now & before,
                "another pod",
            )
            filled = source.sent
            until_ready(world, "fetcher")
        claims = [FIRST, SECOND]
        world.until(lambda: not world.nano.objects("pvc", "-l", names.LABEL_MODELS), "the volumes are gone")
        world.nano.cluster.kubectl("delete", "pv", *claims)
    if any(path.endswith(name) for name in there for path in again) or not kept:
        raise AssertionError(f"fetched again: {again} of {there}; kept {kept}")
    return {
        "sent when it was killed": round(killed_at / wanted, 2),
        "sent in all": round(sent / wanted, 2),
        "requests for files": sum(path.startswith("/store/") for _, path, _ in source.seen),
        "served until the other revision was there": kept and filled - sent >= 0.9 * wanted,
    }


KILLED: Mapping[str, Callable[[World], Raw]] = {"data-killed": data, "download-killed": download}


def _made(folder: Path) -> dict[str, str]:
    """Name and digest of every sample that is on the volume."""
    found = {}
    for path in folder.rglob("work/*.made"):
        found[path.name] = hashlib.sha256(path.read_bytes()).hexdigest()
    return found


def _working(world: World, name: str) -> Raw:
    """The pod that makes data now."""

    def running() -> Raw | None:
        pods = world.nano.objects("pods", "-l", f"{names.LABEL_DATA_JOB}={name}")
        return next((p for p in pods if p["status"]["phase"] == "Running"), None)

    return dict(world.until(running, "a pod makes data"))


def _loading(world: World) -> Raw | None:
    """The pod that fills a volume now."""
    pods = world.nano.objects("pods", "-l", names.LABEL_MODELS)
    return next((p for p in pods if p["status"]["phase"] == "Running"), None)


def _volume(*folders: str) -> dict[str, int]:
    """Path and size of the whole files in the one folder that has some."""
    for folder in folders:
        found = {
            str(path.relative_to(folder)): path.stat().st_size
            for path in Path(folder).rglob("*")
            if path.is_file() and ".stepaudio" not in path.parts
        }
        if found:
            return found
    return {}


def _stored(*folders: str) -> list[str]:
    """Those that are large enough to come from the hub's store."""
    return [path for path, size in _volume(*folders).items() if size >= LARGE]
