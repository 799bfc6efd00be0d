"""Nodes that pods fail on, and how far pods are with their models, beside the deployment under load."""

import contextlib
import json
import subprocess
import threading
import time
from collections.abc import Callable, Mapping

import httpx
import psutil

from stepaudio_cluster.make_up import cluster_url
from stepaudio_operator import names
from tests.bench.on_a_kubelet.ground import (
    PATIENCE_S,
    applied,
    condition,
    deployed,
    pods_of,
    process_of,
    uids,
    until_ready,
)
from tests.bench.on_a_kubelet.neighbours import OFF, VLLM
from tests.bench.on_a_kubelet.scenarios import Raw, World

STALL_S = 20
CHAT_ONLY = {"tts": OFF}


def avoided(world: World) -> Raw:
    """An engine hangs twice on the only node: a pod is made in its place that would rather be elsewhere, and
    runs there for want of another. Forgiven, the next one has no such wish.
    """
    kubectl, pool = world.nano.cluster.kubectl, names.pool("striker", names.CHAT)
    spec = {**CHAT_ONLY, "health": {"stallTimeout": f"{STALL_S}s"}}
    with deployed(world, "striker", spec), cluster_url(world.nano.cluster, "striker-gateway") as url:
        (first,) = pods_of(world, "striker", "chat")
        began = time.monotonic()
        _hang(world, first, url)
        said = world.until(lambda: _said(world, pool, "EngineStalled"), "it says why", PATIENCE_S)
        until_ready(world, "striker")
        kept = uids(pods_of(world, "striker", "chat")) == uids([first])
        _hang(world, first, url)
        second = _another(world, {first["metadata"]["uid"]})
        until_ready(world, "striker")
        took = time.monotonic() - began
        note = world.until(lambda: _notes(world, pool), "an Event names the node")
        kubectl("annotate", "--overwrite", "sap", pool, f"{names.ANNOTATION_FORGIVE}={time.time_ns()}")
        world.until(lambda: not _strikes(world, pool), "the strikes are forgiven")
        kubectl("delete", "pod", second["metadata"]["name"])
        third = _another(world, uids([first, second]))
        until_ready(world, "striker")
    node = first["spec"]["nodeName"]
    wishes = [_keeps_away(pod, node) for pod in (first, second, third)]
    if wishes != [False, True, False] or not kept or node not in note:
        raise AssertionError(f"keeps away {wishes}, first strike left it {kept}, {note}")
    return {"said": said, "event": note, "pods that would rather be elsewhere": wishes, "took s": round(took)}


def loads(world: World) -> Raw:
    """While a speech model is loaded, its pool's status and its deployment's words say how far it is."""
    pool, spec = names.pool("loader", names.TTS), {"chat": OFF, "tokenizer": OFF, "gateway": OFF}
    with applied(world, "loader", spec):
        world.until(lambda: pods_of(world, "loader", "tts"), "it has a pod")
        shown = "{.status.loading[0].percent}"
        with (
            _Followed(world, "sap", pool, shown) as percents,
            _Followed(world, "sad", "loader", _READY) as words,
        ):
            until_ready(world, "loader")
        again = world.get("sap", pool)["status"].get("loading")
    steps = [int(line) for line in percents.lines if line]
    said = [line for line in words.lines if "has loaded" in line]
    if not steps or not said or steps != sorted(set(steps)) or len(steps) > 10 or again:
        raise AssertionError(f"steps {steps}, words {words.lines}, left {again}")
    return {"steps in per cent": steps, "said": said[-1]}


NODES: Mapping[str, Callable[[World], Raw]] = {"node-avoided": avoided, "loads": loads}

_READY = '{.status.conditions[?(@.type=="Ready")].message}'


class _Followed:
    """The different values of a part of an object, in turn, while the block runs."""

    def __init__(self, world: World, kind: str, name: str, path: str) -> None:
        cluster = world.nano.cluster
        self._command = [cluster.program("kubectl"), f"--kubeconfig={cluster.kubeconfig}", "get", kind, name]
        self._command += ["--watch", "-o", f'jsonpath={path}{{"\\n"}}']
        self.lines: list[str] = []

    def __enter__(self) -> "_Followed":
        self._process = subprocess.Popen(self._command, stdout=subprocess.PIPE, text=True)
        self._thread = threading.Thread(target=self._read, name="followed")
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._process.terminate()
        self._process.wait()
        self._thread.join()

    def _read(self) -> None:
        for line in self._process.stdout or ():
            if [line.strip()] != self.lines[-1:]:
                self.lines.append(line.strip())


def _hang(world: World, pod: Raw, url: str) -> None:
    """vLLM's process stops with a request in flight, until the pod has ended by itself."""
    engine = process_of(pod, VLLM)
    engine.suspend()
    body = {"model": "step-audio-chat", "messages": [{"role": "user", "content": "hello"}]}
    httpx.post(f"{url}/chat/completions", json=body, timeout=240, trust_env=False)
    with contextlib.suppress(psutil.NoSuchProcess):  # what is stopped hears nothing but this
        engine.kill()


def _another(world: World, before: set[str]) -> Raw:
    """The pod that has come in the place of these."""

    def come() -> Raw | None:
        pods = pods_of(world, "striker", "chat")
        return next((pod for pod in pods if pod["metadata"]["uid"] not in before), None)

    return dict(world.until(come, "another pod", PATIENCE_S))


def _said(world: World, pool: str, reason: str) -> str:
    ready = condition(world.get("sap", pool), "Ready")
    return str(ready["message"]) if ready.get("reason") == reason else ""


def _strikes(world: World, pool: str) -> list[Raw]:
    """Of nodes; what is forgiven has no node's name."""
    held = world.get("sap", pool)["status"].get("recovery", {}).get("strikes", [])
    return [strike for strike in held if strike["node"] != "-"]


def _notes(world: World, pool: str) -> str:
    """What the Event says of a node that is avoided; empty where there is none."""
    chosen = f"--field-selector=reason=NodeAvoided,involvedObject.name={pool}"
    events = json.loads(world.nano.cluster.kubectl("get", "events", chosen, "-o", "json"))["items"]
    return str(events[-1]["message"]) if events else ""


def _keeps_away(pod: Raw, node: str) -> bool:
    """Whether the pod would rather not be on this node."""
    affinity = pod["spec"].get("affinity", {}).get("nodeAffinity", {})
    preferred = affinity.get("preferredDuringSchedulingIgnoredDuringExecution", [])
    return any(
        field["operator"] == "NotIn" and node in field["values"]
        for each in preferred
        for field in each["preference"].get("matchFields", [])
    )
