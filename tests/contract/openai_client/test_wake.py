"""A pool that sleeps: a request for it is held until a pod is there, or sent away with the time to come back,
as the routing object says; the operator is told that somebody asks, also when nobody waits any more.

The gateway is a real process; pods come and go in its routing file.
"""

import json
import threading
import time

import httpx
import pytest

from tests.contract.openai_client.conftest import launch

SPEECH = {"model": "step-audio-tts", "voice": "lulu", "input": "hello"}
CHAT = {"model": "step-audio-chat", "messages": [{"role": "user", "content": "say hello"}]}
HOLD, AWAY = {"holdSeconds": 30, "retryAfterSeconds": 90}, {"holdSeconds": None, "retryAfterSeconds": 45}


@pytest.fixture(scope="module")
def gateway(tmp_path_factory):
    """One for all tests: each says anew which pods there are."""
    started = launch(tmp_path_factory.mktemp("gateway"), {})
    yield started
    started.process.kill()
    started.process.wait()


def route(gateway, wake, **pods):
    pools = {pool: [pods[pool].url] if pool in pods else [] for pool in wake}
    generation = gateway.status()["routingGeneration"] + 1
    gateway.routing.write_text(json.dumps({"generation": generation, "pools": pools, "wake": wake}))
    deadline = time.monotonic() + 20
    while gateway.status()["routingGeneration"] != generation:
        assert time.monotonic() < deadline
        time.sleep(0.02)


def speak(gateway, **options):
    return httpx.post(f"{gateway.url}/v1/audio/speech", json=SPEECH, timeout=60, **options)


class Asking(threading.Thread):
    """Posts, and keeps the answer."""

    def __init__(self, gateway, path, body):
        super().__init__(daemon=True)
        self.url, self.body, self.answer = f"{gateway.url}{path}", body, None
        self.start()

    def run(self):
        self.answer = httpx.post(self.url, json=self.body, timeout=60)

    def end(self):
        self.join(40)
        return self.answer


def test_one_request_wakes_all_the_pools_that_it_will_need(gateway, new_chat_pod, new_tts_pod, eventually):
    wake = dict.fromkeys(("tokenizer", "chat", "tts"), HOLD)
    route(gateway, wake)
    spoken = {**CHAT, "modalities": ["text", "audio"], "audio": {"voice": "lulu", "format": "wav"}}
    asking = Asking(gateway, "/v1/chat/completions", spoken)
    # Nothing is to be heard, so the tokenizer sleeps on.
    eventually(lambda: gateway.status()["waiting"] == {"chat": 1, "tts": 0})
    route(gateway, wake, chat=new_chat_pod(), tts=new_tts_pod())
    assert asking.end().json()["choices"][0]["message"]["audio"]["transcript"] == "hello"


def test_a_request_is_held_until_the_pool_is_awake(gateway, new_tts_pod, eventually):
    route(gateway, {"tts": HOLD})
    asking = [Asking(gateway, "/v1/audio/speech", SPEECH) for _ in range(3)]
    eventually(lambda: gateway.status()["waiting"] == {"tts": 3})
    assert gateway.status()["inFlight"] == 3
    pod = new_tts_pod()
    route(gateway, {"tts": HOLD}, tts=pod)
    assert [one.end().status_code for one in asking] == [200, 200, 200]
    assert len(pod.requests) == 3
    assert gateway.status()["waiting"] == {"tts": 0}  # for a minute


def test_a_request_that_is_not_held_is_told_when_to_come_back(gateway, new_tts_pod):
    route(gateway, {"tts": AWAY})
    began = time.monotonic()
    answer = speak(gateway)
    assert time.monotonic() - began < 10
    assert (answer.status_code, answer.headers["Retry-After"]) == (503, "45")
    assert answer.json()["error"]["message"] == "the tts pods sleep and are being woken"
    assert gateway.status()["waiting"] == {"tts": 0}  # for the operator, which asks a little later
    route(gateway, {"tts": AWAY}, tts=new_tts_pod())
    assert speak(gateway).status_code == 200


def test_a_request_is_held_no_longer_than_the_routing_object_says(gateway):
    route(gateway, {"tts": {"holdSeconds": 1, "retryAfterSeconds": 45}})
    began = time.monotonic()
    answer = speak(gateway)
    assert 1 <= time.monotonic() - began < 15
    assert (answer.status_code, answer.headers["Retry-After"]) == (503, "45")


def test_a_client_that_goes_is_not_waited_for(gateway, eventually):
    route(gateway, {"tts": HOLD})
    with pytest.raises(httpx.ReadTimeout):
        httpx.post(f"{gateway.url}/v1/audio/speech", json=SPEECH, timeout=0.7)
    eventually(lambda: gateway.status()["waiting"] == {"tts": 0} and not gateway.status()["inFlight"])


def test_asking_for_the_voices_waits_for_nobody(gateway):
    route(gateway, {"tts": HOLD})
    assert httpx.get(f"{gateway.url}/v1/voices").status_code == 503


def test_a_pool_without_pods_that_never_sleeps_is_unavailable_at_once(gateway):
    route(gateway, {"tts": None})
    answer = speak(gateway)
    assert (answer.status_code, answer.headers["Retry-After"]) == (503, "5")
    assert gateway.status()["waiting"] == {"tts": 0}
