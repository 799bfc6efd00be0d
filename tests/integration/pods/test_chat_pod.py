"""The chat pod: ids in, ids out through the agent; streams, disconnects, refusals; vLLM's metrics."""

import hashlib
import json

import pytest

pytestmark = pytest.mark.vllm

LONG = 1500  # tokens
SEVERAL = 400


def completion(pod, **fields):
    info = pod.http.get("/stepaudio/model").json()
    body = {"model": info["model"], "prompt": [1, 4, 60, 61], "max_tokens": 8, "temperature": 0, **fields}
    return {"return_token_ids": True, "ignore_eos": True, **body}


def test_the_gateway_learns_the_model_from_the_pod(pods, models):
    http = pods["chat"].http
    config = json.loads((models / "Step-Audio-Chat" / "config.json").read_text())
    assert http.get("/stepaudio/model").json() == {
        "model": "step-audio-chat",
        "audio_offset": config["audio_token_offset"],
        "vocab_size": config["vocab_size"],
        "bos": 1,
        "eot": 3,
        "bot": 4,
        "max_model_len": 2048,
    }
    answer = http.get("/stepaudio/tokenizer.model")
    content = (models / "Step-Audio-Chat" / "tokenizer.model").read_bytes()
    assert (answer.content, answer.headers["etag"]) == (content, f'"{hashlib.sha256(content).hexdigest()}"')


def test_a_stream_gives_the_ids_of_the_whole_answer(pods):
    pod = pods["chat"]
    whole = pod.http.post("/v1/completions", json=completion(pod, max_tokens=SEVERAL)).json()["choices"][0][
        "token_ids"
    ]
    streamed: list[int] = []
    with pod.http.stream(
        "POST", "/v1/completions", json=completion(pod, max_tokens=SEVERAL, stream=True)
    ) as answer:
        assert answer.headers["content-type"].startswith("text/event-stream")
        lines = [line.removeprefix("data: ") for line in answer.iter_lines() if line]
    assert lines[-1] == "[DONE]"
    for line in lines[:-1]:
        streamed += json.loads(line)["choices"][0]["token_ids"]
    assert (len(whole), streamed) == (SEVERAL, whole)
    # Ids that a busy machine makes before the last ones are sent come together.
    assert len(lines) > 2, "the ids came in several chunks"


def test_a_client_that_leaves_stops_the_engine(pods):
    pod = pods["chat"]
    before = pod.metric("vllm:generation_tokens_total")
    with pod.http.stream(
        "POST", "/v1/completions", json=completion(pod, stream=True, max_tokens=LONG)
    ) as answer:
        lines = answer.iter_lines()  # held: collected, it would close the connection
        next(lines)
        assert pod.status()["inFlight"] == 1
    pod.wait_until("end of the request", lambda: pod.status()["inFlight"] == 0)
    pod.wait_until("idle engine", lambda: pod.metric("vllm:num_requests_running") == 0)
    assert 0 < pod.metric("vllm:generation_tokens_total") - before < LONG


@pytest.mark.parametrize(
    ("fields", "status"),
    [
        ({"prompt": [10**6]}, 400),
        ({"prompt": "text"}, 400),
        ({"prompt": [5] * 3000}, 400),
        ({"max_tokens": -1}, 400),
        ({"model": "other"}, 404),
    ],
)
def test_refusals_have_openais_shape_and_the_engine_survives(pods, fields, status):
    pod = pods["chat"]
    answer = pod.http.post("/v1/completions", json=completion(pod, **fields))
    assert answer.status_code == status
    assert set(answer.json()["error"]) >= {"message", "type", "param", "code"}
    assert pod.http.post("/v1/completions", json=completion(pod)).status_code == 200


def test_a_body_that_is_no_json_is_a_400(pods):
    answer = pods["chat"].http.post("/v1/completions", content=b"{")
    assert (answer.status_code, answer.json()["error"]["code"]) == (400, "invalid_json")
