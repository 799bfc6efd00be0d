"""What happens when pods, clients or the gateway itself go away: failover, abort, drain, limits, keys."""

import hashlib
import json
import signal
import socket
import threading
import time
from unittest.mock import ANY

import httpx
import openai
import pytest

MODEL = "step-audio-chat"


def say(text):
    return [{"role": "user", "content": text}]


def dead_url():
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return f"http://127.0.0.1:{listener.getsockname()[1]}"


def test_a_pod_that_cannot_be_reached_is_passed_over(stack, start_gateway):
    pools = {"tts": [dead_url(), stack.tts.url]}
    client = start_gateway(pools).client()
    for _ in range(6):
        assert client.audio.speech.create(model="step-audio-tts", voice="lulu", input="hi").content
    assert len(stack.tts.requests) == 6


def test_a_pod_that_is_full_or_draining_is_passed_over(stack, new_chat_pod, start_gateway):
    other = new_chat_pod()
    client = start_gateway({"chat": [stack.chat.url, other.url]}).client()
    for status in (503, 429):
        stack.chat.refuse = (status, {"Retry-After": "9"})
        for number in range(4):
            answer = client.chat.completions.create(model=MODEL, messages=say(f"say {number}"))
            assert answer.choices[0].message.content == str(number)
    assert len(other.requests) == 8


@pytest.mark.parametrize(
    ("status", "error"), [(429, openai.RateLimitError), (503, openai.InternalServerError)]
)
def test_when_no_pod_takes_it_the_client_is_told_when_to_come_back(stack, status, error):
    stack.chat.refuse = (status, {"Retry-After": "9"})
    with pytest.raises(error) as refused:
        stack.client.chat.completions.create(model=MODEL, messages=say("say hello"), stream=True)
    assert (refused.value.status_code, refused.value.response.headers["Retry-After"]) == (status, "9")
    assert refused.value.body["message"]


def test_nothing_ready_and_not_serving_are_503_with_retry_after(stack, start_gateway, eventually):
    gateway = start_gateway({"chat": []})
    with pytest.raises(openai.InternalServerError) as refused:
        gateway.client().chat.completions.create(model=MODEL, messages=say("say hello"))
    assert (refused.value.status_code, refused.value.response.headers["Retry-After"]) == (503, "5")
    assert gateway.status() == {
        "component": "gateway",
        "revision": "1f0c22aa",
        "phase": "Ready",
        "ready": True,
        "gpus": [],
        "draining": False,
        "inFlight": 0,
        "load": {"bytesLoaded": 0, "bytesTotal": 0, "etaSeconds": None},
        "lately": {"inFlight": ANY, "queueSeconds": None, "firstAudioSeconds": None},
        "routingGeneration": 3,
        "waiting": {"chat": 0},
        "reason": "Ready",
        "message": "",
    }
    routing = {
        "generation": 4,
        "serving": False,
        "retryAfterSeconds": 30,
        "pools": {"chat": [stack.chat.url]},
    }
    gateway.routing.write_text(json.dumps(routing))
    eventually(lambda: gateway.status()["routingGeneration"] == 4)
    with pytest.raises(openai.InternalServerError) as refused:
        gateway.client().chat.completions.create(model=MODEL, messages=say("say hello"))
    assert refused.value.response.headers["Retry-After"] == "30"


def test_a_pod_that_breaks_off_is_a_502_or_an_error_event(stack):
    for text in ("say break the answer is short", "say fault the answer is short"):
        with pytest.raises(openai.InternalServerError) as failed:
            stack.client.chat.completions.create(model=MODEL, messages=say(text))
        assert (failed.value.status_code, failed.value.code) == (502, "upstream_failed")
        stream = stack.client.chat.completions.create(model=MODEL, messages=say(text), stream=True)
        with pytest.raises(openai.APIError) as failed:
            list(stream)
        assert failed.value.code == "upstream_failed"


def test_a_pod_that_fails_is_a_502_without_its_words(stack):
    stack.tts.refuse = (500, {})
    with pytest.raises(openai.InternalServerError) as failed:
        stack.client.audio.speech.create(model="step-audio-tts", voice="lulu", input="hi")
    assert failed.value.body["message"] == "the tts pod failed (status 500)"


@pytest.mark.parametrize("streamed", [False, True])
def test_a_client_that_goes_ends_the_generation(stack, eventually, streamed):
    body = {"model": MODEL, "messages": say("count 400 slow"), "stream": streamed}
    body["messages"] = say("say slow " + "hello " * 120)
    with httpx.Client() as client:
        request = client.build_request("POST", f"{stack.gateway.url}/v1/chat/completions", json=body)
        if streamed:
            response = client.send(request, stream=True)
            next(response.iter_lines())
            response.close()
        else:
            with pytest.raises(httpx.ReadTimeout):
                client.post(request.url, json=body, timeout=0.5)
    eventually(lambda: len(stack.chat.aborted) == 1)
    eventually(lambda: stack.gateway.status()["inFlight"] == 0)


def test_a_client_that_goes_ends_the_speech(stack, eventually):
    stack.tts.hold.clear()
    with pytest.raises(httpx.ReadTimeout):
        httpx.post(
            f"{stack.gateway.url}/v1/audio/speech",
            json={"model": "step-audio-tts", "input": "hello"},
            timeout=0.5,
        )
    eventually(lambda: stack.gateway.status()["inFlight"] == 0)
    stack.tts.hold.set()


def test_sigterm_drains(stack, start_gateway, eventually):
    gateway = start_gateway({"chat": [stack.chat.url]})
    connected = gateway.client()
    connected.models.list()
    stack.chat.hold.clear()
    answers = []

    def ask():
        stream = gateway.client().chat.completions.create(
            model=MODEL, messages=say("say hello to the world"), stream=True
        )
        answers.append("".join(chunk.choices[0].delta.content or "" for chunk in stream))

    asking = threading.Thread(target=ask)
    asking.start()
    eventually(lambda: gateway.status()["inFlight"] == 1)
    gateway.process.send_signal(signal.SIGTERM)
    eventually(lambda: gateway.status()["draining"])
    assert httpx.get(f"{gateway.url}/readyz").status_code == 503
    assert httpx.get(f"{gateway.url}/healthz").status_code == 200
    # Who holds a connection has not heard that the gateway leaves: it is served, and told to connect anew.
    answer = connected.with_raw_response.models.list()
    assert (answer.status_code, answer.headers["Connection"]) == (200, "close")

    def refused():
        answer = httpx.post(f"{gateway.url}/v1/chat/completions", json={}, timeout=5)
        return answer.status_code == 503 and answer.headers["Retry-After"]

    eventually(refused)
    assert gateway.process.poll() is None
    stack.chat.hold.set()
    asking.join(20)
    assert answers == ["hello to the world"]
    assert gateway.process.wait(20) == 0


def test_the_bound_on_work_in_flight_is_a_429(stack, start_gateway, eventually):
    gateway = start_gateway({"tts": [stack.tts.url]}, STEPAUDIO_MAX_IN_FLIGHT="1")
    stack.tts.hold.clear()

    def speak():
        return gateway.client().audio.speech.create(model="step-audio-tts", voice="lulu", input="hi")

    first = threading.Thread(target=speak)
    first.start()
    eventually(lambda: gateway.status()["inFlight"] == 1)
    with pytest.raises(openai.RateLimitError) as refused:
        speak()
    assert refused.value.response.headers["Retry-After"]
    stack.tts.hold.set()
    first.join(20)
    assert speak().content


def test_a_request_that_takes_too_long_is_a_504_and_ends_upstream(stack, start_gateway, eventually):
    gateway = start_gateway({"chat": [stack.chat.url]}, STEPAUDIO_REQUEST_TIMEOUT_S="1")
    with pytest.raises(openai.InternalServerError) as late:
        gateway.client().chat.completions.create(model=MODEL, messages=say("say slow " + "hello " * 120))
    assert (late.value.status_code, late.value.code) == (504, "timeout")
    eventually(lambda: len(stack.chat.aborted) == 1)


def test_a_body_beyond_the_bound_is_a_413(stack, start_gateway):
    gateway = start_gateway({"chat": [stack.chat.url]}, STEPAUDIO_MAX_BODY_MIB="0.1")
    with pytest.raises(openai.APIStatusError) as refused:
        gateway.client().chat.completions.create(model=MODEL, messages=say("x" * 200_000))
    assert (refused.value.status_code, refused.value.code) == (413, "request_too_large")

    def pieces():  # no Content-Length: bounded while it arrives
        for _ in range(200):
            yield b"x" * 1000

    answer = httpx.post(f"{gateway.url}/v1/chat/completions", content=pieces())
    assert (answer.status_code, answer.json()["error"]["code"]) == (413, "request_too_large")


def test_keys_are_checked_and_followed(stack, start_gateway, tmp_path, eventually):
    keys = tmp_path / "keys"
    keys.mkdir()
    (keys / "team").write_text(f"# team\nsha256:{hashlib.sha256(b'one').hexdigest()}\nnonsense\n")
    gateway = start_gateway({"chat": [stack.chat.url]}, STEPAUDIO_API_KEYS_DIR=str(keys))
    assert [m.id for m in gateway.client(api_key="one").models.list()] == [MODEL]
    with pytest.raises(openai.AuthenticationError) as refused:
        gateway.client(api_key="two").models.list()
    assert refused.value.code == "invalid_api_key"
    assert httpx.get(f"{gateway.url}/v1/models").status_code == 401
    assert httpx.post(f"{gateway.url}/v1/anything", content=b"x").status_code == 401
    assert httpx.get(f"{gateway.url}/healthz").status_code == 200
    (keys / "team").write_text(f"sha256:{hashlib.sha256(b'two').hexdigest()}\n")

    def accepts(key):
        return httpx.get(f"{gateway.url}/v1/models", headers={"Authorization": f"Bearer {key}"}).is_success

    eventually(lambda: accepts("two") and not accepts("one"))


def test_a_key_may_hold_any_characters(stack, start_gateway, tmp_path):
    keys = [key.encode() for key in ("schlüssel", "密钥", "voilà", "a b", "ключ=/+_-:;", "k" * 4000)]
    (tmp_path / "keys").mkdir()
    lines = [f"sha256:{hashlib.sha256(key).hexdigest()}\n" for key in keys]
    (tmp_path / "keys" / "team").write_text("".join(lines))
    gateway = start_gateway({"chat": [stack.chat.url]}, STEPAUDIO_API_KEYS_DIR=str(tmp_path / "keys"))

    def status(sent):
        headers = {b"Authorization": b"Bearer " + sent}
        return httpx.get(f"{gateway.url}/v1/models", headers=headers).status_code

    assert [status(key) for key in keys] == [200] * len(keys)
    assert [status(wrong) for wrong in (keys[0] + b"x", b"\xff\xa0")] == [401, 401]


def test_unknown_routes_and_methods_have_openai_errors(stack):
    unknown = httpx.get(f"{stack.gateway.url}/v1/nothing")
    wrong = httpx.get(f"{stack.gateway.url}/v1/chat/completions")
    assert (unknown.status_code, unknown.json()["error"]["code"]) == (404, "unknown_url")
    assert (wrong.status_code, wrong.json()["error"]["code"]) == (405, "method_not_allowed")


def test_request_ids_are_taken_or_made_and_metrics_count(stack):
    url = f"{stack.gateway.url}/v1/models"
    assert httpx.get(url, headers={"X-Request-Id": "mine-1"}).headers["X-Request-Id"] == "mine-1"
    made = httpx.get(url, headers={"X-Request-Id": "bad id\tx"}).headers["X-Request-Id"]
    assert made.startswith("req_")
    stack.client.chat.completions.create(model=MODEL, messages=say("say hello"))

    def text():
        return httpx.get(f"{stack.gateway.url}/metrics").text

    deadline = time.monotonic() + 10
    wanted = (
        'stepaudio_requests_total{route="/v1/chat/completions",status="200"}',
        'stepaudio_gateway_first_byte_seconds_count{route="/v1/chat/completions"}',
        'stepaudio_gateway_upstream_seconds_count{pool="chat"}',
        'stepaudio_gateway_endpoints{pool="chat"} 1.0',
        "stepaudio_gateway_routing_generation 3.0",
        "stepaudio_in_flight 0.0",
    )
    while not all(line in text() for line in wanted):
        assert time.monotonic() < deadline, [line for line in wanted if line not in text()]


def test_a_missing_setting_leaves_last_words_and_exits_78(tmp_path):
    import os
    import subprocess
    import sys

    env = {k: v for k, v in os.environ.items() if not k.startswith("STEPAUDIO_")}
    done = subprocess.run(
        [sys.executable, "-m", "stepaudio_runtime.cli", "serve", "gateway"],
        check=False,
        env=env,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 78
    assert "STEPAUDIO_ROUTING_CONFIGMAP" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_conversation_stays_on_its_replica_and_load_spreads(new_chat_pod, start_gateway):
    pods = [new_chat_pod() for _ in range(3)]
    client = start_gateway({"chat": [pod.url for pod in pods]}).client()
    for number in range(12):
        messages = say(f"say {number}")
        for _ in range(3):
            answer = client.chat.completions.create(model=MODEL, messages=messages)
            messages = [*messages, {"role": "assistant", "content": answer.choices[0].message.content}]
            messages += say("say more")
    assert sum(len(pod.requests) for pod in pods) == 36
    assert all(len(pod.requests) % 3 == 0 for pod in pods)
    assert sum(bool(pod.requests) for pod in pods) > 1
