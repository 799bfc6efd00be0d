"""Numbers of pods that follow what is asked for, beside the deployment under load: a pool that sleeps, whose
gateway sends requests away until it is awake, and one that gets a second pod and loses it again.
"""

import io
import threading
import time
from collections.abc import Callable, Mapping

import httpx
import numpy as np
import soundfile

from stepaudio_cluster.make_up import cluster_url
from tests.bench.on_a_kubelet.ground import PATIENCE_S, deployed, pods_of, until_reason
from tests.bench.on_a_kubelet.neighbours import LIGHT
from tests.bench.on_a_kubelet.scenarios import Raw, World
from tests.e2e.load import QUESTION

POOL = "scaler-tokenizer"
CLIENTS = 4
SECONDS = 20
"""Of the sound that those send."""


def sent_away(world: World) -> Raw:
    """A tokenizer sleeps, and its gateway is not to hold requests: a request is told when to come again, and
    is answered then.
    """
    rules = {"min": 0, "max": 1, "downWindow": "20s"}
    with deployed(world, "dozer", {**LIGHT, "tokenizer": {"autoscaling": rules}}):
        until_reason(world, "sap", "dozer-tokenizer", "Asleep")
        world.until(lambda: not pods_of(world, "dozer", "tokenizer"), "its pod is gone")
        with cluster_url(world.nano.cluster, "dozer-gateway") as url:
            began = time.monotonic()
            first = _asked(url, QUESTION.read_bytes())
            took = time.monotonic() - began
            again = int(first.headers["Retry-After"])
            time.sleep(again)
            second = _asked(url, QUESTION.read_bytes())
    if (first.status_code, second.status_code) != (503, 200):
        raise AssertionError(f"{first.status_code} {first.text}, then {second.status_code} {second.text}")
    return {
        "at first": first.status_code,
        "after s": round(took, 1),
        "said": first.json()["error"]["message"],
        "retry after s": again,
        "then": second.status_code,
    }


def up_and_down(world: World) -> Raw:
    """Four clients at once give a tokenizer a second pod, and their silence takes it away again."""
    rules = {"min": 1, "max": 2, "inFlight": 1, "upWindow": "15s", "downWindow": "30s"}
    spec = {**LIGHT, "tokenizer": {"autoscaling": rules}}
    answers: list[int] = []
    quiet = threading.Event()
    with (
        deployed(world, "scaler", spec),
        cluster_url(world.nano.cluster, "scaler-gateway") as url,
    ):

        def client() -> None:
            while not quiet.is_set():
                answers.append(_asked(url, _tone()).status_code)

        threads = [threading.Thread(target=client, name="client") for _ in range(CLIENTS)]
        began = time.monotonic()
        for thread in threads:
            thread.start()
        try:
            world.until(lambda: _serving(world) == (2, 2), "a second pod serves", PATIENCE_S)
            grown = time.monotonic() - began
        finally:
            quiet.set()
            for thread in threads:
                thread.join()
        began = time.monotonic()
        world.until(lambda: _serving(world) == (1, 1), "one pod is left", PATIENCE_S)
        shrunk = time.monotonic() - began
        why = world.get("sap", POOL)["status"]["autoscaling"]["reason"]
    if set(answers) != {200}:
        raise AssertionError(f"answers {answers}")
    return {
        "two serve after s": round(grown),
        "requests": len(answers),
        "one again after s": round(shrunk),
        "why": why,
    }


SCALING: Mapping[str, Callable[[World], Raw]] = {"sent-away": sent_away, "autoscaled": up_and_down}


def _asked(url: str, wave: bytes) -> httpx.Response:
    file = {"file": ("a.wav", wave, "audio/wav")}
    return httpx.post(f"{url}/audio/tokens", files=file, timeout=240, trust_env=False)


def _serving(world: World) -> tuple[int, int]:
    """Pods that are wanted, and that serve."""
    pool = world.get("sap", POOL)
    return pool["spec"].get("replicas", 0), pool["status"].get("readyReplicas", 0)


def _tone() -> bytes:
    sink = io.BytesIO()
    wave = 0.3 * np.sin(2 * np.pi * 220 * np.arange(SECONDS * 16_000) / 16_000)
    soundfile.write(sink, wave, 16_000, format="WAV", subtype="PCM_16")
    return sink.getvalue()
