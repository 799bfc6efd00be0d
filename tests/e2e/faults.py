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
from tests.e2e.nano import Nano
from tests.unit.download.hub import Answer, Hub, models

PREFIX = "fault-"
SPOILT = "CosyVoice-300M-25Hz/flow.pt"
Raw = dict[str, Any]


@dataclass
class Stage:
    """The cluster, and what surrounds the deployments. `hubs` has a hub a row that asks for one."""

    nano: Nano
    version: str
    host: str
    folder: Path
    hubs: dict[str, Hub] = field(default_factory=dict)
    applied: dict[str, float] = field(default_factory=dict)
    """When a row's deployment was applied (monotonic, s)."""

    def apply(self, thing: Raw) -> None:
        """One object, as `kubectl apply` does."""
        self.nano.cluster.kubectl("apply", "-f", "-", stdin=json.dumps(thing))

    def begin(self, name: str) -> None:
        """Applies the row's deployment."""
        deployment = {
            "apiVersion": "stepaudio.io/v1alpha1",
            "kind": "StepAudioDeployment",
            "metadata": {"name": PREFIX + name},
            "spec": {"preset": "nano", "runtime": {"version": self.version}, **ROWS[name].spec(self, name)},
        }
        self.applied[name] = time.monotonic()
        self.apply(deployment)

    def condition(self, name: str) -> Mapping[str, str]:
        """`Ready` of the row's deployment."""
        raw = json.loads(self.nano.cluster.kubectl("get", "sad", PREFIX + name, "-o", "json"))
        conditions = {c["type"]: c for c in raw.get("status", {}).get("conditions", [])}
        return dict(conditions.get("Ready", {}))

    def cache_phase(self, name: str) -> str:
        """Of the row's models."""
        path = "jsonpath={.status.cache.phase}"
        return self.nano.cluster.kubectl("get", "sad", PREFIX + name, "-o", path)

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


def _tokenizer(resources: Raw) -> Raw:
    """Nothing runs but one tokenizer pod, with these resources."""
    return {
        "chat": {"enabled": False},
        "gateway": {"enabled": False},
        "tts": {"replicas": 0},
        "tokenizer": {"replicas": 1, "podTemplate": {"resources": resources}},
    }


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


def _forgive(hub: Hub) -> None:
    """What a hub does by itself some time."""
    hub.faults = lambda path: None
    hub.spoil.clear()


def _no_image(stage: Stage, name: str) -> Raw:
    return {**_tokenizer({}), "runtime": {"version": "0.0.0-nowhere"}}


def _truncated(stage: Stage, name: str) -> Raw:
    """Nano models on a volume, one file cut."""
    class_ = stage.volume(name)
    generate_nano(stage.folder / name)
    for path in (stage.folder / name).rglob("*"):
        path.chmod(0o755 if path.is_dir() else 0o644)
    os.truncate(stage.folder / name / "Step-Audio-TTS-3B" / SPOILT, 100_000)
    wanted = {"accessModes": ["ReadWriteMany"], "resources": {"requests": {"storage": "1Gi"}}}
    claim = {"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"name": PREFIX + name}}
    stage.apply({**claim, "spec": {**wanted, "storageClassName": class_}})
    return {**SPEECH, "models": {"source": {"pvc": {"claimName": PREFIX + name}}}}


def _no_room_for_cache(stage: Stage, name: str) -> Raw:
    """A TTS pod with a megabyte for the keys and values of requests."""
    cache = [{"name": "STEPAUDIO_KV_CACHE_GIB", "value": "0.001"}]
    return {**SPEECH, "tts": {"podTemplate": {"env": cache}}}


@dataclass(frozen=True)
class Row:
    """A reason of docs/failures.md, what causes it, whether it comes right when the hub does, whether it
    costs so little that every test run causes it, and what its message must name.
    """

    reason: str
    spec: Callable[[Stage, str], Raw]
    recovers: bool = False
    cheap: bool = True
    names: str = ""


ROWS: Mapping[str, Row] = {
    "memory": Row("OutOfMemory", lambda s, n: _tokenizer({"limits": {"memory": "80Mi"}})),
    "image": Row("ImagePullBackOff", _no_image),
    "hub-401": Row("SourceUnauthorized", _unauthorized),
    "hub-404": Row("SourceNotFound", lambda s, n: s.downloads(n, organization="nobody")),
    "hub-429": Row("SourceRateLimited", _rate_limited, recovers=True),
    "checksum": Row("ChecksumMismatch", _spoilt, recovers=True),
    "volume-full": Row("VolumeFull", lambda s, n: s.downloads(n, "32k")),
    "hub-500": Row("SourceUnavailable", _broken, recovers=True, cheap=False),
    "truncated": Row("ModelFileTruncated", _truncated, names=f"Step-Audio-TTS-3B/{SPOILT}"),
    "setting": Row("ConfigInvalid", lambda s, n: {**SPEECH, "tts": {"maxModelLen": 32768}}, cheap=False),
    "cache": Row("NoCacheBlocks", _no_room_for_cache, cheap=False),
    "disk": Row("Evicted", lambda s, n: _tokenizer({"limits": {"ephemeral-storage": "1Ki"}}), cheap=False),
}


@contextlib.contextmanager
def staged(nano: Nano) -> Iterator[Stage]:
    """The stage; everything that rows made is gone afterwards."""
    record = Record.read(Places.of(nano.cluster.name))
    assert record is not None, "a cluster of our own has a record"
    version = Builder.detect(nano.up.project, nano.up.logs).version()
    with tempfile.TemporaryDirectory(prefix="stepaudio-faults-") as folder:
        Path(folder).chmod(0o755)
        stage = Stage(nano, version, record.addresses.host, Path(folder))
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


def forgive(stage: Stage, name: str) -> None:
    """The row's hub comes right."""
    _forgive(stage.hubs[name])
