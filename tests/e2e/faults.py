"""Deployments that cannot work, each for another reason that is caused, not written: what they say of it.

Every row is a deployment of its own, so that all of them can fail at the same time. Models come from a hub on
this machine, which the cluster's pods reach, and go to volumes that are prepared here.
"""

import contextlib
import json
import os
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from stepaudio_cluster.images import Builder
from stepaudio_cluster.settings import Places, Record
from stepaudio_runtime.checkpoints.nano import generate_nano
from tests.drivers.stand_ins import FULL_CARD, NVML, OLD_DRIVER, StandIn, build
from tests.e2e import gpus
from tests.e2e.nano import Nano
from tests.unit.download.hub import Answer, Hub, models

PREFIX = "fault-"
DRIVER = "/driver"
SPOILT = "CosyVoice-300M-25Hz/flow.pt"
Raw = dict[str, Any]


@dataclass
class Stage:
    """The cluster, and what surrounds the deployments. `hubs` has a hub a row that asks for one."""

    nano: Nano
    images: Builder
    host: str
    folder: Path
    until_end: contextlib.ExitStack
    hubs: dict[str, Hub] = field(default_factory=dict)
    applied: dict[str, float] = field(default_factory=dict)
    """When a row's deployment was applied (monotonic, s)."""
    claims_gpu: bool = False

    def apply(self, thing: Raw) -> None:
        """One object, as `kubectl apply` does."""
        self.nano.cluster.kubectl("apply", "-f", "-", stdin=json.dumps(thing))

    def begin(self, name: str) -> None:
        """Applies the row's deployment."""
        deployment = {
            "apiVersion": "stepaudio.io/v1alpha1",
            "kind": "StepAudioDeployment",
            "metadata": {"name": PREFIX + name},
            "spec": {
                "preset": "nano",
                "runtime": {"version": self.images.version()},
                **ROWS[name].spec(self, name),
            },
        }
        self.applied[name] = time.monotonic()
        self.apply(deployment)

    def condition(self, name: str) -> Mapping[str, str]:
        """`Ready` of the row's deployment."""
        raw = json.loads(self.nano.cluster.kubectl("get", "sad", PREFIX + name, "-o", "json"))
        conditions = {c["type"]: c for c in raw.get("status", {}).get("conditions", [])}
        return dict(conditions.get("Ready", {}))

    def is_well(self, name: str) -> bool:
        """The row's models are there, or where it downloads none all its pods can serve."""
        path = "jsonpath={.status.cache.phase}"
        phase = self.nano.cluster.kubectl("get", "sad", PREFIX + name, "-o", path)
        return phase == "Ready" or self.condition(name).get("status") == "True"

    def end(self, name: str) -> None:
        """Deletes the row's deployment."""
        self.nano.cluster.kubectl("delete", "sad", PREFIX + name, "--cascade=foreground")

    def hub(self, name: str) -> Hub:
        """A hub for this row alone."""
        if name not in self.hubs:
            self.hubs[name] = Hub(models(), hosts=(self.host, self.host))
        return self.hubs[name]

    def volume(self, name: str, size: str | None = None) -> str:
        """A class of storage with one volume that every user may write to, of `size` where that is given."""
        place = self.folder / name
        place.mkdir()
        if size is not None:
            subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(place)], check=True)
        place.chmod(0o777)
        spec = {
            "capacity": {"storage": "1Gi"},
            "accessModes": ["ReadWriteMany"],
            "storageClassName": PREFIX + name,
            "hostPath": {"path": str(place), "type": "Directory"},
        }
        volume = {"apiVersion": "v1", "kind": "PersistentVolume", "metadata": {"name": PREFIX + name}}
        self.apply({**volume, "spec": spec})
        return PREFIX + name

    def offer_gpu(self) -> None:
        """From now until the end the node claims a GPU."""
        if not self.claims_gpu:
            self.until_end.enter_context(gpus.claimed(self.nano.cluster, self.images))
        self.claims_gpu = True

    def claim(self, name: str) -> str:
        """A claim to a volume of the row, which is the folder of its name."""
        wanted = {"accessModes": ["ReadWriteMany"], "resources": {"requests": {"storage": "1Gi"}}}
        claim = {"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"name": PREFIX + name}}
        self.apply({**claim, "spec": {**wanted, "storageClassName": self.volume(name)}})
        return PREFIX + name

    def downloads(self, name: str, size: str | None = None, **source: Any) -> Raw:
        """A spec whose models come from the row's hub to a volume of its own."""
        hub = {"endpoint": self.hub(name).url, **source}
        cache = {"storageClassName": self.volume(name, size), "whenUnused": "Delete"}
        return {**SPEECH, "models": {"source": {"huggingFace": hub}, "cache": cache}}

    def secret(self, name: str, token: str) -> Raw:
        """A reference to a new Secret with that token."""
        secret = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": PREFIX + name}}
        self.apply({**secret, "stringData": {"token": token}})
        return {"tokenSecretRef": {"name": PREFIX + name}}


SPEECH: Raw = {
    "chat": {"enabled": False},
    "tokenizer": {"enabled": False},
    "gateway": {"enabled": False},
}


def _tokenizer(**template: Any) -> Raw:
    """Nothing runs but one tokenizer pod, with this template."""
    return {
        "chat": {"enabled": False},
        "gateway": {"enabled": False},
        "tts": {"replicas": 0},
        "tokenizer": {"replicas": 1, "podTemplate": template},
    }


def _driver(stage: Stage, name: str, stands_in: StandIn, **env: str) -> Raw:
    """A pod's template with a stand-in for a library of the GPU's driver; `env` is the pod's."""
    claim = stage.claim(name)
    build(stands_in, stage.folder / name)
    values = {"LD_LIBRARY_PATH": DRIVER, **env}
    return {
        "volumes": [{"name": "driver", "persistentVolumeClaim": {"claimName": claim, "readOnly": True}}],
        "volumeMounts": [{"name": "driver", "mountPath": DRIVER, "readOnly": True}],
        "env": [{"name": key, "value": value} for key, value in values.items()],
    }


def _on_a_gpu(stage: Stage, **template: Any) -> Raw:
    """One tokenizer pod on a GPU, which only the node's list has."""
    stage.offer_gpu()
    spec = _tokenizer(**template)
    spec["tokenizer"]["gpu"] = {"count": 1}
    return spec


def _full_card(stage: Stage, name: str) -> Raw:
    preload = f"{DRIVER}/{FULL_CARD.library}"
    return _on_a_gpu(stage, **_driver(stage, name, FULL_CARD, LD_PRELOAD=preload))


def _say(stage: Stage, name: str, xid: int) -> None:
    """The row's driver speaks of one card and its last fault (0: none)."""
    new = stage.folder / name / "gpus.new"
    new.write_text(f"NVIDIA-A100 70000000000 85899345920 64 0 {xid}\n")
    new.replace(stage.folder / name / "gpus")


def _lost_card(stage: Stage, name: str) -> Raw:
    template = _driver(stage, name, NVML, FAKE_NVML=f"{DRIVER}/gpus")
    _say(stage, name, xid=79)
    return _tokenizer(**template)


def _unauthorized(stage: Stage, name: str) -> Raw:
    stage.hub(name).token = "right"
    return stage.downloads(name, **stage.secret(name, "wrong"))


def _rate_limited(stage: Stage, name: str) -> Raw:
    stage.hub(name).faults = lambda path: Answer(429, {"Retry-After": "2"})
    return stage.downloads(name)


def _broken(stage: Stage, name: str) -> Raw:
    stage.hub(name).faults = lambda path: Answer(500)
    return stage.downloads(name)


def _spoilt(stage: Stage, name: str) -> Raw:
    stage.hub(name).spoil.add(SPOILT)
    return stage.downloads(name)


def _hub_comes_right(stage: Stage, name: str) -> None:
    stage.hubs[name].faults = lambda path: None
    stage.hubs[name].spoil.clear()


def _no_image(stage: Stage, name: str) -> Raw:
    return {**_tokenizer(), "runtime": {"version": "0.0.0-nowhere"}}


def _truncated(stage: Stage, name: str) -> Raw:
    """Nano models on a volume, one file cut."""
    claim = stage.claim(name)
    generate_nano(stage.folder / name)
    for path in (stage.folder / name).rglob("*"):
        path.chmod(0o755 if path.is_dir() else 0o644)
    os.truncate(stage.folder / name / "Step-Audio-TTS-3B" / SPOILT, 100_000)
    return {**SPEECH, "models": {"source": {"pvc": {"claimName": claim}}}}


def _no_room_for_cache(stage: Stage, name: str) -> Raw:
    """A TTS pod with a megabyte for the keys and values of requests."""
    cache = [{"name": "STEPAUDIO_KV_CACHE_GIB", "value": "0.001"}]
    return {**SPEECH, "tts": {"podTemplate": {"env": cache}}}


@dataclass(frozen=True)
class Row:
    """A reason of docs/failures.md, what causes it, what ends the cause where no person has to, whether it
    costs so little that every test run causes it, and what its message must name.
    """

    reason: str
    spec: Callable[[Stage, str], Raw]
    forgive: Callable[[Stage, str], None] | None = None
    cheap: bool = True
    names: str = ""


ROWS: Mapping[str, Row] = {
    "memory": Row("OutOfMemory", lambda s, n: _tokenizer(resources={"limits": {"memory": "80Mi"}})),
    "image": Row("ImagePullBackOff", _no_image),
    "hub-401": Row("SourceUnauthorized", _unauthorized),
    "hub-404": Row("SourceNotFound", lambda s, n: s.downloads(n, organization="nobody")),
    "hub-429": Row("SourceRateLimited", _rate_limited, forgive=_hub_comes_right),
    "checksum": Row("ChecksumMismatch", _spoilt, forgive=_hub_comes_right),
    "volume-full": Row("VolumeFull", lambda s, n: s.downloads(n, "32k")),
    "hub-500": Row("SourceUnavailable", _broken, forgive=_hub_comes_right, cheap=False),
    "truncated": Row("ModelFileTruncated", _truncated, names=f"Step-Audio-TTS-3B/{SPOILT}"),
    "setting": Row("ConfigInvalid", lambda s, n: {**SPEECH, "tts": {"maxModelLen": 32768}}, cheap=False),
    "cache": Row("NoCacheBlocks", _no_room_for_cache, cheap=False),
    "disk": Row(
        "Evicted", lambda s, n: _tokenizer(resources={"limits": {"ephemeral-storage": "1Ki"}}), cheap=False
    ),
    "xid": Row("GpuFault", _lost_card, forgive=lambda s, n: _say(s, n, xid=0), cheap=False, names="XID 79"),
    "card-memory": Row("CudaOutOfMemory", _full_card, cheap=False, names="CUDA out of memory"),
    "driver": Row("DriverTooOld", lambda s, n: _on_a_gpu(s, **_driver(s, n, OLD_DRIVER)), cheap=False),
    "no-gpu": Row("NoGpu", lambda s, n: _on_a_gpu(s), cheap=False),
}


@contextlib.contextmanager
def staged(nano: Nano) -> Iterator[Stage]:
    """The stage; everything that rows made is gone afterwards."""
    record = Record.read(Places.of(nano.cluster.name))
    assert record is not None, "a cluster of our own has a record"
    images = Builder.detect(nano.up.project, nano.up.logs)
    with contextlib.ExitStack() as until_end:
        folder = Path(until_end.enter_context(tempfile.TemporaryDirectory(prefix="stepaudio-faults-")))
        folder.chmod(0o755)
        stage = Stage(nano, images, record.addresses.host, folder, until_end)
        try:
            yield stage
        finally:
            clear(stage)


def clear(stage: Stage) -> None:
    """Deletes what rows made; volumes are let go before their folders vanish."""
    kubectl, all_of = stage.nano.cluster.kubectl, [PREFIX + name for name in ROWS]
    kubectl("delete", "sad", *all_of, "--ignore-not-found", "--cascade=foreground", check=False)
    kubectl("delete", "secret,pvc,pv", *all_of, "--ignore-not-found", "--wait=false", check=False)
    for hub in stage.hubs.values():
        hub.close()
    for place in stage.folder.iterdir():
        if place.is_mount():
            subprocess.run(["umount", "--lazy", str(place)], check=False)
