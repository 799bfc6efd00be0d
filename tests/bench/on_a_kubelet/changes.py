"""Changes that reach over several pools, and of the ground below, under load: the tokenizer elsewhere, what
is said by annotation, a voice from Git, an API server or a kubelet that is gone for a while.
"""

import base64
import json
import signal
import tempfile
import time
from collections.abc import Callable, Mapping
from typing import Any

from stepaudio_cluster.api import Cluster
from stepaudio_cluster.make_up import DEPLOYMENT
from stepaudio_cluster.own import OwnCluster
from stepaudio_cluster.settings import DEFAULT_NAME, Wish
from stepaudio_operator import names
from tests.bench.on_a_kubelet.controls import VOLUME, ask, speaks
from tests.bench.on_a_kubelet.ground import condition, shared_claim, until_reason
from tests.bench.on_a_kubelet.scenarios import (
    ONE_THREAD,
    POOLS,
    REPLICAS,
    Raw,
    World,
    change_pods,
    name,
    note_leaving,
    until_replaced,
)
from tests.e2e.load import QUESTION, SAID

VOICE = "Declared"
AWAY_S = 60.0
"""For so long there is no API server: longer than the operator's lease."""
TOO_LONG = 32768
"""Tokens that the chat model does not know positions for."""
WAITS_S = 20.0
"""For so long a pod without room is left waiting."""
LOST_S = 20.0
"""For so long a node goes on counting as lost after a change has begun."""


def restart(world: World) -> Raw:
    """`kubectl annotate`: every pod of every pool is another, within the budget."""
    before = world.uids()
    world.nano.cluster.kubectl(
        "annotate", "--overwrite", "sad", "nano", f"stepaudio.io/restart={time.time_ns()}"
    )
    until_replaced(world, before, *POOLS)
    return {}


def placement(world: World) -> Raw:
    """The tokenizer moves into the TTS pods, and out again."""
    without = tuple(pool for pool in POOLS if pool != "tokenizer")
    before = world.uids("tts", "tokenizer")
    world.patch({"tokenizer": {"placement": "WithTTS", "podTemplate": None}})
    world.until(lambda: note_leaving(world) and not before & world.uids(), "all are others")
    world.until_whole(pools=without)
    left = len(world.pods("tokenizer"))
    before = world.uids("tts")
    world.patch({"tokenizer": {"placement": None, "podTemplate": {"env": ONE_THREAD}}})
    world.until(lambda: world.pods("tokenizer"), "it has a pool again")
    world.scale(REPLICAS, "tokenizer")
    until_replaced(world, before, "tts")
    return {"tokenizer pods meanwhile": left}


def declared_voice(world: World) -> Raw:
    """A voice that stands in Git comes into a new store, is spoken by every pod, is changed, and goes."""
    with tempfile.TemporaryDirectory(prefix="stepaudio-voices-") as folder:
        shared_claim(world, VOLUME, folder)
        _store(world, {"store": {"pvc": {"claimName": VOLUME}}})
        keep_recording(world)
        began = time.monotonic()
        digests = []
        for statement in ("I agree.", "I agree, and for longer."):
            declare(world, statement)
            digests.append(world.until(lambda s=statement: is_stored(world, s), "it is Stored"))
        took = time.monotonic() - began
        told = speaks(world, VOICE)
        refused = ask(world, "DELETE", f"voices/{VOICE}").status_code
        world.nano.cluster.kubectl("delete", "sav", VOLUME)
        world.until(lambda: ask(world, "GET", f"voices/{VOICE}").status_code == 404, "it is gone")
        gone = speaks(world, VOICE)
        _store(world, None)
        world.nano.cluster.kubectl("delete", f"configmap/{VOLUME}", f"pvc/{VOLUME}", f"pv/{VOLUME}")
    return {
        "stored and changed after s": round(took),
        "spoken": told,
        "deleted by the API": refused,
        "after it was deleted": gone,
    }


def api_server(world: World) -> Raw:
    """The API server is killed and comes back; then the operator carries out a change."""
    before, operators = world.uids(), _restarts(world)
    cluster = OwnCluster.of(DEFAULT_NAME)
    process = cluster.supervisor.find("kube-apiserver")
    if process is None:
        raise RuntimeError("no API server of our own runs")
    process.signal(signal.SIGKILL)
    time.sleep(AWAY_S)
    Cluster.up(Wish(DEFAULT_NAME))
    world.until_whole()
    kept = world.uids() == before
    old = world.uids("tokenizer")
    change_pods(world, "tokenizer")
    until_replaced(world, old, "tokenizer")
    return {"away s": AWAY_S, "no pod touched": kept, "operator restarted": _restarts(world) - operators}


def kubelet(world: World) -> Raw:
    """The kubelet says nothing until its node counts as lost; a change begins meanwhile."""
    process = OwnCluster.of(DEFAULT_NAME).supervisor.find("kubelet")
    if process is None:
        raise RuntimeError("no kubelet of our own runs")
    before, lost, old = world.uids(), _lost(world), world.uids("tokenizer")
    began = time.monotonic()
    process.signal(signal.SIGSTOP)
    try:
        world.until(lambda: _lost(world) > lost, "the node counts as lost")
        change_pods(world, "tokenizer")
        world.until(lambda: _reason(world) == "NodeNotReady", "the pool says so")
        time.sleep(LOST_S)
        going = [pod["metadata"]["name"] for pod in world.pods() if "deletionTimestamp" in pod["metadata"]]
        kept = before <= world.uids()
    finally:
        process.signal(signal.SIGCONT)
    silent = time.monotonic() - began
    until_replaced(world, old, "tokenizer")
    return {"silent s": round(silent), "no pod let go": kept and not going}


def retry(world: World) -> Raw:
    """A chat revision that cannot start is rolled back; told to, the pool tries it again, and goes back."""
    before, good = world.uids(), len(world.pods())
    world.patch({"rollout": {"strategy": "Surge", "canary": None}, "chat": {"maxModelLen": TOO_LONG}})
    given_up: list[Raw] = []
    failed: set[str] = set()

    def tried() -> Raw | None:
        failed.update(world.uids("chat") - before)
        return _given_up(world)

    for _ in range(2):
        given_up.append(world.until(tried, "it is given up"))
        world.until(
            lambda: note_leaving(world) and world.uids() == before and len(world.pods()) == good,
            "the good pods are left",
        )
        if len(given_up) == 1:
            world.nano.cluster.kubectl(
                "annotate", "--overwrite", "sad", DEPLOYMENT, f"{names.ANNOTATION_RETRY}={time.time_ns()}"
            )
            world.until(lambda: _given_up(world) != given_up[0], "the quarantine is lifted")
    world.patch({"chat": {"maxModelLen": None}})
    world.until_whole()
    if world.uids() != before or len(failed) != len(given_up):
        raise AssertionError(f"{len(failed)} pods have tried: {given_up}")
    reasons = [entry["reason"] for entry in given_up]
    return {"given up for": reasons, "pods that tried": len(failed), "pods kept": world.uids() == before}


def placement_fails(world: World) -> Raw:
    """The tokenizer is to move into speech pods that find no room, and into some that run out of memory: it
    stays where it is, with all pods that serve.
    """
    before, said = world.uids(), {}
    spec = world.get("sad", DEPLOYMENT)["spec"]
    tokenizer, speech = (spec[component]["podTemplate"] for component in ("tokenizer", "tts"))
    for what, memory, reason in (
        ("no room", "900Gi", "WaitingForCapacity"),
        ("too little memory", "80Mi", "RevisionQuarantined"),
    ):
        resources = {"requests": {"memory": memory}, "limits": {"memory": memory}}
        world.patch(
            {
                "rollout": {"strategy": "Surge", "canary": None},
                "tokenizer": {"placement": "WithTTS", "podTemplate": None},
                "tts": {"podTemplate": {**speech, "resources": resources}},
            }
        )
        until_reason(world, "sap", name("tts"), reason)
        if reason == "WaitingForCapacity":
            time.sleep(WAITS_S)
        said[what] = condition(world.get("sad", DEPLOYMENT), "Ready")["message"]
        if not before <= world.uids():
            raise AssertionError(f"{what}: pods that served have gone")
        back = {"podTemplate": {**speech, "resources": None}}
        world.patch({"tokenizer": {"placement": None, "podTemplate": tokenizer}, "tts": back})
        world.until(lambda: note_leaving(world) and world.uids() == before, "those from before are left")
        world.until_whole()
    return {"said": said, "pods kept": world.uids() == before}


CHANGES: Mapping[str, Callable[[World], Raw]] = {
    "restart": restart,
    "retry": retry,
    "placement": placement,
    "placement-fails": placement_fails,
    "declared-voice": declared_voice,
    "api-server": api_server,
    "kubelet": kubelet,
}


def _given_up(world: World) -> Raw | None:
    """What the chat pool remembers of the revision that it gave up."""
    entries = world.pool("chat").get("status", {}).get("quarantined") or []
    return dict(entries[-1]) if entries else None


def _reason(world: World) -> str:
    """What the tokenizer's pool says of itself."""
    conditions = world.pool("tokenizer")["status"]["conditions"]
    return next(str(c["reason"]) for c in conditions if c["type"] == "Ready")


def _lost(world: World) -> int:
    """How often a pod's node has been taken for lost."""
    told = json.loads(
        world.nano.cluster.kubectl("get", "events", "--field-selector=reason=NodeNotReady", "-o", "json")
    )
    return sum(event.get("count") or 1 for event in told["items"])


def _store(world: World, voices: Any) -> None:
    before = world.uids("tts", "gateway")
    world.patch({"voices": voices})
    until_replaced(world, before, "tts", "gateway")


def keep_recording(world: World) -> None:
    """The ConfigMap that a declared voice names."""
    recording = base64.b64encode(QUESTION.read_bytes()).decode()
    config: Raw = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": VOLUME}}
    world.apply({**config, "binaryData": {"a.wav": recording}})


def declare(world: World, statement: str, deployment: str = DEPLOYMENT) -> None:
    """A voice in Git."""
    voice: Raw = {"apiVersion": "stepaudio.io/v1alpha1", "kind": "StepAudioVoice"}
    voice["metadata"] = {"name": VOLUME}
    voice["spec"] = {
        "deployment": deployment,
        "name": VOICE,
        "wave": {"configMap": {"name": VOLUME, "key": "a.wav"}},
        "transcript": SAID,
        "consent": {"person": "Ada", "statement": statement},
    }
    world.apply(voice)


def is_stored(world: World, statement: str) -> str | None:
    """The recording's digest, where this version of the voice is stored."""
    status = world.get("sav", VOLUME).get("status", {})
    reasons = [c["reason"] for c in status.get("conditions", []) if c["type"] == "Ready"]
    said = status.get("consent", {}).get("statement")
    return status.get("sha256") if reasons == ["Stored"] and said == statement else None


def _restarts(world: World) -> int:
    pods = world.nano.objects("pods", "-n", "step-audio")
    return sum(c["restartCount"] for pod in pods for c in pod["status"].get("containerStatuses", []))
