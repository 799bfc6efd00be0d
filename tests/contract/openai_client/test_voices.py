"""Voices through the API: created with consent from a recording and its words, given or transcribed; seen by
every gateway and after a restart; shown, listed, deleted; the own ones are read only; bad input is a 4xx.
"""

import hashlib
import io
import json
import subprocess
import sys

import numpy as np
import openai
import pytest
import soundfile

from stepaudio_runtime.audio.watermark import detect

CONSENT = {"consent_person": "Li Hua", "consent_statement": "I agree to my voice being imitated."}


def speech(seconds: float = 2.0, rate: int = 16_000, level: float = 0.4) -> bytes:
    t = np.arange(round(seconds * rate)) / rate
    wave = sum(np.sin(2 * np.pi * 150 * n * t) / n for n in range(1, 20)) * np.sin(2 * np.pi * 2.2 * t)
    out = io.BytesIO()
    soundfile.write(out, level * wave / max(1e-9, np.abs(wave).max()), rate, format="WAV")
    return out.getvalue()


def create(client: openai.OpenAI, wave: bytes | None = None, **fields):
    files = [("wave", ("me.wav", speech() if wave is None else wave))]
    if proof := fields.pop("consent_recording", None):
        files.append(("consent_recording", ("consent.wav", proof)))
    body = {k: v for k, v in ({"name": "Ada", "transcript": "hello world"} | CONSENT | fields).items() if v}
    headers = {"Content-Type": "multipart/form-data"}
    return client.post("/voices", body=body, files=files, options={"headers": headers}, cast_to=object)


def names(client: openai.OpenAI) -> list[str]:
    return [voice["id"] for voice in client.get("/voices", cast_to=object)["data"]]


@pytest.fixture
def pools(stack):
    return {pod.component: [pod.url] for pod in (stack.tokenizer, stack.chat, stack.tts)}


@pytest.fixture
def start(start_gateway, tmp_path, pools):
    """Starts gateways on one voice store."""

    def begin(only: tuple[str, ...] = ("chat", "tokenizer", "tts"), **env: str) -> openai.OpenAI:
        settings = {"STEPAUDIO_VOICES_URL": f"file://{tmp_path}/voices"} | env
        return start_gateway({pool: pools[pool] for pool in only}, **settings).client()

    return begin


def test_a_voice_is_created_spoken_with_and_deleted_on_any_gateway(start, stack):
    one, other = start(), start()
    wave, proof = speech(2.5), speech(1.5)
    made = create(one, wave, consent_recording=proof)
    expected = {
        "id": "Ada",
        "object": "voice",
        "name": "Ada",
        "created_at": made["created_at"],
        "transcript": "hello world",
        "transcribed": False,
        "duration_s": 2.5,
        "sha256": hashlib.sha256(wave).hexdigest(),
        "consent": {
            "person": "Li Hua",
            "statement": "I agree to my voice being imitated.",
            "recording_sha256": hashlib.sha256(proof).hexdigest(),
        },
    }
    assert made == expected
    assert other.get("/voices/Ada", cast_to=object) == expected
    assert names(other) == ["lulu", "Ada"]

    stack.tts.created.add("Ada")
    assert other.audio.speech.create(
        model="step-audio-tts", voice="Ada", input="hi", response_format="pcm"
    ).content
    assert stack.tts.requests == [{"input": "hi", "voice": "Ada"}]

    assert other.delete("/voices/Ada", cast_to=object) == {
        "id": "Ada",
        "object": "voice.deleted",
        "deleted": True,
    }
    assert names(one) == ["lulu"]
    for gone in (one.get, one.delete):
        with pytest.raises(openai.NotFoundError) as error:
            gone("/voices/Ada", cast_to=object)
        assert (error.value.code, error.value.param) == ("voice_not_found", "voice")


def test_speech_in_a_created_voice_is_marked_unless_that_is_switched_off(start, stack):
    stack.tts.created.add("Ada")
    said = {"model": "step-audio-tts", "input": "a text that takes two seconds or more to say.."}
    marked, plain = start(), start(STEPAUDIO_WATERMARK="off")
    heard = {
        (voice, client is marked, kind): client.audio.speech.create(
            voice=voice, response_format=kind, **said
        ).content
        for client in (marked, plain)
        for voice in ("Ada", "lulu")
        for kind in ("wav", "flac")
    }
    for kind in ("wav", "flac"):  # a stream, and a whole file
        unmarked = heard["lulu", True, kind]
        assert heard["Ada", False, kind] == heard["lulu", False, kind] == unmarked
        assert heard["Ada", True, kind] != unmarked
        wave, rate = soundfile.read(io.BytesIO(heard["Ada", True, kind]), dtype="float32")
        assert detect(wave, rate).found
        wave, rate = soundfile.read(io.BytesIO(unmarked), dtype="float32")
        assert not detect(wave, rate).found


def test_voices_survive_a_restart(start):
    create(start(), name="小明")
    assert names(start()) == ["lulu", "小明"]


def test_a_name_is_the_same_however_its_accents_are_written(start, stack):
    composed, apart = "José", "Jose\u0301"
    client = start(STEPAUDIO_VOICE_ALIASES=f"Josefa\u0300={apart}")
    assert create(client, name=apart)["id"] == composed
    stack.tts.created.add(composed)
    for voice in (apart, composed, "Josefa\u0300", "Josefà"):
        client.audio.speech.create(model="step-audio-tts", voice=voice, input="hi")
    assert [request["voice"] for request in stack.tts.requests] == [composed] * 4
    assert client.get(f"/voices/{apart}", cast_to=object)["id"] == composed
    assert client.delete(f"/voices/{apart}", cast_to=object)["id"] == composed
    assert names(client) == ["lulu"]


def test_without_a_transcript_the_chat_model_writes_it(start, stack):
    made = create(start(), speech(2.0), transcript="")
    assert (made["transcript"], made["transcribed"]) == ("heard 83 codes at 152 Hz", True)
    assert [request["seconds"] for request in stack.tokenizer.requests] == [2.0]


def test_without_a_transcript_and_a_chat_model_there_is_no_voice(start):
    with pytest.raises(openai.BadRequestError) as error:
        create(start(only=("tts",)), transcript="")
    assert (error.value.code, error.value.param) == ("transcript_required", "transcript")


def test_without_a_store_there_is_no_voice(stack):
    with pytest.raises(openai.BadRequestError) as error:
        create(stack.client)
    assert error.value.code == "unsupported_by_deployment"
    with pytest.raises(openai.NotFoundError):
        stack.client.get("/voices/Ada", cast_to=object)
    assert stack.client.get("/voices/lulu", cast_to=object) == {"id": "lulu", "name": "lulu"}


def test_bad_input_is_a_clear_4xx(start):
    client = start(STEPAUDIO_VOICE_ALIASES="narrator=lulu")
    noise = np.random.default_rng(0).bytes(5_000)
    cases = [
        ({"wave": speech(level=0)}, 400, "audio_silent", "wave"),
        ({"wave": speech(0.1)}, 400, "audio_too_short", "wave"),
        ({"wave": speech(600, rate=8_000)}, 400, "audio_too_long", "wave"),
        ({"wave": noise}, 400, "invalid_audio", "wave"),
        ({"wave": b""}, 400, "audio_empty", "wave"),
        ({"transcript": "word " * 300}, 400, "invalid_transcript", "transcript"),
        ({"transcript": "..."}, 400, "invalid_transcript", "transcript"),
        ({"name": "../etc"}, 400, "invalid_name", "name"),
        ({"name": "x" * 65}, 400, "invalid_name", "name"),
        ({"name": "LiRAP"}, 400, "reserved_name", "name"),
        ({"name": "lulu"}, 400, "reserved_name", "name"),
        ({"name": "narrator"}, 400, "reserved_name", "name"),
        ({"name": "alloy"}, 400, "reserved_name", "name"),
        ({"name": ""}, 400, "missing_required_parameter", "name"),
        ({"consent_person": ""}, 400, "missing_required_parameter", "consent_person"),
        ({"consent_statement": ""}, 400, "missing_required_parameter", "consent_statement"),
        ({"consent_statement": "  "}, 400, "invalid_value", "consent_statement"),
        ({"consent_recording": speech(level=0)}, 400, "audio_silent", "consent_recording"),
        ({"nonsense": "1"}, 400, "unknown_parameter", "nonsense"),
    ]
    found = []
    for fields, *_ in cases:
        with pytest.raises(openai.APIStatusError) as error:
            create(client, **fields)
        found.append((fields, error.value.status_code, error.value.code, error.value.param))
    assert found == cases
    assert names(client) == ["lulu", "narrator"]


def test_a_name_is_given_once_and_their_number_is_bounded(start):
    client = start(STEPAUDIO_MAX_VOICES="2")
    create(client, name="Ada")
    for name, code in (("Ada", "voice_exists"), ("Bo", None), ("Cy", "too_many_voices")):
        if code is None:
            create(client, name=name)
            continue
        with pytest.raises(openai.ConflictError) as error:
            create(client, name=name)
        assert error.value.code == code


def test_the_models_own_voices_are_read_only(start):
    client = start()
    with pytest.raises(openai.PermissionDeniedError) as error:
        client.delete("/voices/lulu", cast_to=object)
    assert error.value.code == "voice_is_fixed"
    assert names(client) == ["lulu"]


def test_the_command_line_does_the_same(start, tmp_path):
    url = str(start().base_url).removesuffix("/v1/")
    wave = tmp_path / "me.wav"
    wave.write_bytes(speech())

    def voices(*arguments: str) -> tuple[int, str, str]:
        command = [sys.executable, "-m", "stepaudio_runtime.cli", "voices", "--url", url, *arguments]
        done = subprocess.run(command, check=False, capture_output=True, text=True)
        return done.returncode, done.stdout, done.stderr

    agreed = ("--consent-person", "Li Hua", "--consent-statement", "I agree.", "--transcript", "hello world")
    status, out, _ = voices("create", "Li Hua", str(wave), *agreed)
    made = json.loads(out)
    assert (status, made["id"], made["consent"]["person"]) == (0, "Li Hua", "Li Hua")
    assert voices("list") == (0, "lulu\nLi Hua\n", "")
    assert json.loads(voices("show", "Li Hua")[1]) == made
    assert voices("delete", "Li Hua") == (0, "Li Hua is deleted\n", "")
    status, out, err = voices("show", "Li Hua")
    assert (status, out) == (1, "")
    assert "The voice `Li Hua` does not exist." in err


def test_a_store_that_fails_is_a_503(start):
    client = start(STEPAUDIO_VOICES_URL="s3://voices", AWS_ENDPOINT_URL="http://127.0.0.1:9")
    for call in (lambda: create(client), lambda: names(client)):
        with pytest.raises(openai.InternalServerError) as error:
            call()
        assert (error.value.status_code, error.value.response.headers["Retry-After"]) == (503, "5")
