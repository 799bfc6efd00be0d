"""What people do to a running deployment under load: two operators, pause, keys, created voices."""

import hashlib
import tempfile
import time
from collections.abc import Callable, Mapping
from typing import Any

import httpx

from stepaudio_cluster.make_up import RELEASE
from tests.bench.on_a_kubelet.ground import shared_claim
from tests.bench.on_a_kubelet.scenarios import (
    POOLS,
    Raw,
    World,
    change_pods,
    note_leaving,
    until_replaced,
)
from tests.e2e.load import QUESTION, SAID
from tests.e2e.nano import OPERATOR_SELECTOR

KEY, OTHER_KEY = "bench-key", "bench-other-key"
SECRET, VOLUME, VOICE = "bench-keys", "bench-voices", "Bench"
STILL_S = 20.0
"""For so long nothing happens to a deployment that is paused."""
IN_A_ROW = 10
"""So many requests with a new connection each: every gateway has been asked."""


def operators(world: World) -> Raw:
    """A second operator; the leading one is killed while the tokenizer is replaced."""
    kubectl = world.nano.cluster.kubectl

    def replicas(count: int) -> None:
        kubectl("scale", "deployment", "-n", RELEASE, "-l", OPERATOR_SELECTOR, f"--replicas={count}")
        world.until(lambda: _available(world) == count, f"{count} operators")

    replicas(2)
    try:
        first, before = _leader(world), world.uids("tokenizer")
        change_pods(world, "tokenizer")
        world.until(lambda: world.uids("tokenizer") - before, "a new pod")
        kubectl("delete", "pod", "-n", RELEASE, first, "--grace-period=0", "--force")
        second = world.until(lambda: (found := _leader(world)) != first and found, "another operator leads")
        world.until(lambda: note_leaving(world) and not before & world.uids("tokenizer"), "all are others")
        world.until_whole()
        return {"another led": second != first}
    finally:
        replicas(1)


def paused(world: World) -> Raw:
    """While it is paused, a change replaces nothing and a lost pod stays away; then both are made good."""
    before = world.uids()
    victim = min(pod["metadata"]["name"] for pod in world.pods("tokenizer"))
    world.patch({"paused": True})
    world.until(lambda: _reason(world) == "Paused", "it says Paused")
    change_pods(world, "tokenizer")
    world.note_streams()
    world.nano.cluster.kubectl("delete", "pod", victim)
    left = world.uids()
    time.sleep(STILL_S)
    still = world.uids() == left < before
    reason = _reason(world)
    world.patch({"paused": None})
    world.until(
        lambda: note_leaving(world) and not before & world.uids("tokenizer"), "the change is carried out"
    )
    world.until_whole()
    others = {uid for c in POOLS if c != "tokenizer" for uid in world.uids(c)}
    return {"nothing changed": still, "reason": reason, "other pods kept": others < before}


def keys(world: World) -> Raw:
    """The gateways begin to ask for the key that the clients send; a second one comes into the Secret, and
    goes again, without a restart.
    """
    _store_keys(world, KEY)
    world.patch({"gateway": {"auth": {"secretRef": {"name": SECRET}}}})
    world.until(lambda: note_leaving(world) and _accepts(world, "none") == 0, "no key, no answer")
    world.until_whole()
    gateways = world.uids("gateway")
    took = {}
    for what, stored, wanted in (("comes", (KEY, OTHER_KEY), IN_A_ROW), ("goes", (KEY,), 0)):
        began = time.monotonic()
        _store_keys(world, *stored)
        world.until(lambda wanted=wanted: _accepts(world, OTHER_KEY) == wanted, f"the second key {what}")
        took[what] = round(time.monotonic() - began)
    restarted = len(gateways - world.uids("gateway"))
    world.patch({"gateway": {"auth": None}})
    world.until(lambda: note_leaving(world) and _accepts(world, "none") == IN_A_ROW, "no key is asked for")
    world.until_whole()
    world.nano.cluster.kubectl("delete", "secret", SECRET)
    return {"a key after s": took, "gateways restarted by it": restarted}


def voices(world: World) -> Raw:
    """A volume for voices is added; a voice is created, spoken by every speech pod and by one that came
    later, deleted, and gone.
    """
    with tempfile.TemporaryDirectory(prefix="stepaudio-voices-") as folder:
        shared_claim(world, VOLUME, folder)
        before = world.uids("tts", "gateway")
        world.patch({"voices": {"store": {"pvc": {"claimName": VOLUME}}}})
        until_replaced(world, before, "tts", "gateway")
        form = {"name": VOICE, "transcript": SAID, "consent_person": "Ada", "consent_statement": "I agree."}
        made = ask(world, "POST", "voices", data=form, files={"wave": ("a.wav", QUESTION.read_bytes())})
        made.raise_for_status()
        told = speaks(world, VOICE)
        pod = min(pod["metadata"]["name"] for pod in world.pods("tts"))
        world.note_streams()
        world.nano.cluster.kubectl("delete", "pod", pod)
        world.until_whole()
        later = speaks(world, VOICE)
        ask(world, "DELETE", f"voices/{VOICE}").raise_for_status()
        gone = speaks(world, VOICE)
        before = world.uids("tts", "gateway")
        world.patch({"voices": None})
        until_replaced(world, before, "tts", "gateway")
        world.nano.cluster.kubectl("delete", "pvc,pv", VOLUME)
        return {"spoken": told, "by a pod that came later": later, "after it was deleted": gone}


CONTROLS: Mapping[str, Callable[[World], Raw]] = {
    "operators": operators,
    "paused": paused,
    "keys": keys,
    "voices": voices,
}


def _available(world: World) -> int:
    listed = world.nano.objects("deployments", "-n", RELEASE, "-l", OPERATOR_SELECTOR)
    status = listed[0]["status"]
    return (
        int(status.get("availableReplicas", 0))
        if status.get("replicas") == status.get("availableReplicas")
        else -1
    )


def _leader(world: World) -> str:
    """Name of the operator's pod that leads; the holder's identity is its name."""
    (lease,) = world.nano.objects("leases", "-n", RELEASE)
    return str(lease["spec"]["holderIdentity"])


def _reason(world: World) -> str:
    conditions = world.get("sad", "nano")["status"]["conditions"]
    return next(c["reason"] for c in conditions if c["type"] == "Ready")


def _store_keys(world: World, *stored: str) -> None:
    lines = "\n".join(f"sha256:{hashlib.sha256(key.encode()).hexdigest()}" for key in stored)
    secret: Raw = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": SECRET}}
    secret["stringData"] = {"keys": lines}
    world.apply(secret)


def ask(world: World, method: str, path: str, key: str = KEY, **body: Any) -> httpx.Response:
    headers = {"Authorization": f"Bearer {key}"}
    return httpx.request(method, f"{world.url}/{path}", headers=headers, timeout=240, trust_env=False, **body)


def _accepts(world: World, key: str) -> int:
    """How many of some requests with this key are answered, each over a connection of its own."""
    return sum(ask(world, "GET", "models", key).status_code == 200 for _ in range(IN_A_ROW))


def speaks(world: World, voice: str) -> Raw:
    """Status -> how many of some short utterances in a voice had it; every pod takes its turn."""
    body = {"model": "step-audio-tts", "voice": voice, "input": "Three nine five.", "response_format": "wav"}
    answers = [ask(world, "POST", "audio/speech", json=body).status_code for _ in range(4)]
    return {str(status): answers.count(status) for status in sorted(set(answers))}
