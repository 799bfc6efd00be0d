"""The TTS pod on nano models: sound of the right length from codes and from text as it is made, seeds, clear
refusals, and nothing done for clients that leave."""

import json

import numpy as np
import pytest

from stepaudio_runtime.codec.layout import mel_frames

pytestmark = pytest.mark.vllm

CODES = [*range(100, 102), *range(2000, 2003)] * 10


def speech(pod, **body):
    return pod.http.post("/v1/speech", json=body)


def samples(answer) -> np.ndarray:
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"] == "audio/L16; rate=22050; channels=1"
    assert answer.headers["x-sample-rate"] == "22050"
    return np.frombuffer(answer.content, "<i2")


def test_codes_become_sound_of_their_length(pods):
    answer = speech(pods["tts"], codes=CODES, seed=1)
    wave = samples(answer)
    assert len(wave) == mel_frames(len(CODES), 41.67) * 256
    assert np.abs(wave.astype(int)).max() > 30, "not silent"


def test_text_becomes_sound_and_a_seed_repeats_it(pods):
    pod = pods["tts"]
    first, again, other = (speech(pod, input="打开厨房的灯。", seed=seed) for seed in (7, 7, 8))
    wave = samples(first)
    assert len(wave) > 22_050 / 2
    assert len(wave) % 256 == 0
    assert np.abs(wave.astype(int)).max() > 30, "not silent"
    assert again.content == first.content
    assert samples(other).tobytes() != first.content


def test_samples_come_while_the_rest_is_being_made(pods):
    pod = pods["tts"]
    made_before = pod.metric("stepaudio_speech_audio_seconds_total")
    body = {"input": "four plus seven is eleven. " * 8, "seed": 3}
    with pod.http.stream("POST", "/v1/speech", json=body) as answer:
        pieces = [len(piece) / 2 for piece in answer.iter_raw()]  # samples; a piece may end inside one
    assert len(pieces) > 3
    assert pieces[0] < sum(pieces) / 4
    pod.wait_until("end", lambda: pod.metric("stepaudio_speech_open") == 0)
    made_s = pod.metric("stepaudio_speech_audio_seconds_total") - made_before
    assert made_s == pytest.approx(sum(pieces) / 22_050)


def test_every_sentence_of_a_text_is_spoken(pods):
    pod = pods["tts"]
    sentences = ["The timer is set for ten minutes.", "Seven plus eight is fifteen.", "The lamp is off."]
    alone = [len(samples(speech(pod, input=sentence, seed=1))) for sentence in sentences]
    together = len(samples(speech(pod, input=" ".join(sentences), seed=1)))
    assert together == pytest.approx(sum(alone), rel=0.25)
    assert together > sum(alone) - min(alone) / 2, "one of them is missing"


def test_every_listed_voice_speaks_differently(pods):
    pod = pods["tts"]
    voices = pod.http.get("/v1/voices").json()["data"]
    assert all(set(voice) == {"id", "name"} for voice in voices)
    waves = {speech(pod, codes=CODES, voice=voice["id"], seed=1).content for voice in voices}
    assert len(waves) == len(voices) > 0


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"input": ""}, "input"),
        ({"input": "长" * 1_000_000}, None),
        ({"input": "长" * 20_001}, "input"),
        ({"input": "😀 \u200b\x00 ..."}, "input"),
        ({"input": "(高兴1) ..."}, "input"),
        ({"codes": [0] * 8193}, "codes"),
        ({"codes": [5120]}, "codes"),
        ({"codes": []}, "codes"),
        ({"input": "hi", "voice": "alloy"}, "voice"),
    ],
)
def test_refusals_name_the_field(pods, body, param):
    answer = speech(pods["tts"], **body)
    error = answer.json()["error"]
    assert (answer.status_code, error["type"], error["param"]) == (400, "invalid_request_error", param)


@pytest.mark.parametrize("text", ["好😀👍🏽", "o\x00k\x07\u202e", "0=", "１２３", "<|EOT|> <audio_7>"])
def test_odd_texts_are_spoken(pods, text):
    assert len(samples(speech(pods["tts"], input=text, seed=1))) > 0


def test_half_a_character_is_refused_with_its_place(pods):
    body = json.dumps({"input": "\ud83d ok"})  # escaped
    answer = pods["tts"].http.post("/v1/speech", content=body, headers={"Content-Type": "application/json"})
    assert (answer.status_code, answer.json()["error"]) == (
        400,
        {
            "message": "the body is not JSON: unexpected end of hex escape at line 1 column 18",
            "type": "invalid_request_error",
            "param": None,
            "code": "invalid_json",
        },
    )


def test_an_unknown_voice_is_told_the_known_ones(pods):
    pod = pods["tts"]
    message = speech(pod, input="hi", voice="alloy").json()["error"]["message"]
    assert all(voice["id"] in message for voice in pod.http.get("/v1/voices").json()["data"])


def test_a_client_that_leaves_is_not_worked_for(pods):
    pod = pods["tts"]
    with pytest.raises(Exception, match="timed out"):
        pod.http.post("/v1/speech", json={"input": "字" * 200, "seed": 1}, timeout=0.3)
    pod.wait_until("end of the request", lambda: pod.status()["inFlight"] == 0)
    assert 'route="/v1/speech",status="499"' in pod.http.get("/metrics").text
