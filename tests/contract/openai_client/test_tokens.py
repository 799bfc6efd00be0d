"""Recordings to audio codes and codes back to speech, through the OpenAI SDK's own transport: behind the key,
within the bounds, every wrong field named."""

import hashlib
from concurrent.futures import ThreadPoolExecutor

import httpx
import openai
import pytest

from tests.contract.openai_client.test_speech import check

TOKENS = "/v1/audio/tokens"


def encode(client, file, **fields):
    return client.post("/audio/tokens", cast_to=object, files={"file": ("a", file)}, body=fields,
                       options={"headers": {"Content-Type": "multipart/form-data"}})  # fmt: skip


def test_a_recording_becomes_codes_and_codes_become_speech(stack, tone):
    answer = encode(stack.client, tone(0.72, 44_100, 440, 2, "FLAC"), trim="true", gain="2.5")
    assert answer.keys() == {"object", "codes", "linguistic", "semantic", "duration_s"}
    assert answer["object"] == "audio.tokens"
    assert answer["codes"][0] == pytest.approx(440, abs=8)
    assert answer["duration_s"] == pytest.approx(0.72, abs=1e-3)
    assert stack.tokenizer.requests == [{"rate": 44_100, "trim": 1, "gain": 2.5, "seconds": 0.72}]

    spoken = stack.client.post(
        "/audio/speech",
        cast_to=httpx.Response,
        body={
            "model": "step-audio-tts",
            "codes": answer["codes"] + [7] * 12,
            "voice": "lulu",
            "seed": 3,
            "response_format": "wav",
        },
    )
    assert stack.tts.requests == [{"codes": answer["codes"] + [7] * 12, "voice": "lulu", "seed": 3}]
    check(spoken.content, "wav", seconds=42 * 0.024, hertz=300)


@pytest.mark.parametrize(
    ("change", "param", "code"),
    [
        ({"codes": []}, "codes", "invalid_value"),
        ({"codes": [5120]}, "codes[0]", "invalid_value"),
        ({"codes": [1, -1]}, "codes[1]", "invalid_value"),
        ({"codes": [1.5]}, "codes[0]", "invalid_value"),
        ({"codes": [True]}, "codes[0]", "invalid_value"),
        ({"codes": "1 2 3"}, "codes", "invalid_value"),
        ({"codes": [1] * 8193}, "codes", "invalid_value"),
        ({"input": "hello"}, "input", "input_or_codes"),
        ({"emotion": "happy"}, "emotion", "unsupported_parameter"),
        ({"instructions": "slowly"}, "instructions", "unsupported_parameter"),
        ({"codes": None}, "input", "missing_required_parameter"),
    ],
)
def test_wrong_codes_are_refused_by_name(stack, change, param, code):
    with pytest.raises(openai.BadRequestError) as refused:
        stack.client.post(
            "/audio/speech", cast_to=object, body={"model": "step-audio-tts", "codes": [1, 2]} | change
        )
    assert (refused.value.param, refused.value.code) == (param, code)
    assert stack.tts.requests == []


@pytest.mark.parametrize(
    ("fields", "seconds", "param"),
    [
        ({"gain": "0"}, 0.6, "gain"),
        ({"gain": "loud"}, 0.6, "gain"),
        ({"trim": "perhaps"}, 0.6, "trim"),
        ({"rate": "16000"}, 0.6, "rate"),
        ({}, 0.05, "file"),
        ({}, 5.5, "file"),
    ],
)
def test_a_recording_that_cannot_be_encoded_is_refused_by_name(stack, tone, fields, seconds, param):
    with pytest.raises(openai.BadRequestError) as refused:
        encode(stack.client, tone(seconds), **fields)
    assert refused.value.param == param


def test_tokens_are_behind_the_key_and_need_their_pools(stack, start_gateway, tone, tmp_path):
    (tmp_path / "keys").write_text(f"sha256:{hashlib.sha256(b'secret').hexdigest()}\n")
    gateway = start_gateway(
        {"tokenizer": [stack.tokenizer.url]},
        STEPAUDIO_API_KEYS_DIR=str(tmp_path),
        STEPAUDIO_MAX_IN_FLIGHT="2",  # an answer has come a moment before its place is free
    )
    with pytest.raises(openai.AuthenticationError):
        encode(gateway.client(), tone())
    client = gateway.client(api_key="secret")
    assert encode(client, tone())["codes"]
    with pytest.raises(openai.NotFoundError):
        client.post("/audio/speech", cast_to=object, body={"model": "step-audio-tts", "codes": [1]})
    speech_only = start_gateway({"tts": [stack.tts.url]}).client()
    with pytest.raises(openai.BadRequestError) as refused:
        encode(speech_only, tone())
    assert (refused.value.param, refused.value.code) == ("file", "unsupported_by_deployment")


def test_too_much_at_once_is_told_when_to_come_back(stack, start_gateway, tone, eventually):
    gateway = start_gateway({"tokenizer": [stack.tokenizer.url]}, STEPAUDIO_MAX_IN_FLIGHT="1")
    stack.tokenizer.hold.clear()
    url, files = f"{gateway.url}{TOKENS}", {"file": ("a.wav", tone())}
    with ThreadPoolExecutor(1) as pool:
        first = pool.submit(httpx.post, url, files=files, timeout=60)
        eventually(lambda: len(stack.tokenizer.requests) == 1)
        second = httpx.post(url, files=files, timeout=60)
        stack.tokenizer.hold.set()
        assert first.result().status_code == 200
    assert second.status_code == 429
    assert int(second.headers["Retry-After"]) >= 1
