"""A wave goes in through the API of a real cluster and a wave comes out; bad input gets an error."""

import base64
import io
import json
from collections.abc import Iterator
from pathlib import Path

import httpx
import numpy as np
import pytest
import soundfile
from openai import BadRequestError, OpenAI

from stepaudio_cluster.make_up import page_url
from stepaudio_runtime.audio.wave import Wave
from stepaudio_runtime.engine.domain.texts import Language, Split, sentences
from stepaudio_runtime.engine.domain.tools import FUNCTIONS
from stepaudio_runtime.engine.espeak import Espeak
from stepaudio_runtime.engine.judge import EnglishJudge, total, word_errors
from stepaudio_runtime.engine.speech import SpeechRequest
from tests.e2e.nano import Nano

pytestmark = [pytest.mark.node, pytest.mark.usefixtures("calm")]

QUESTION = Path(__file__).parents[2] / "examples/hello.wav"
ASKED, ANSWER = "please say three nine five", "Three nine five."
SPOKEN = 8
"""Unseen sentences of the domain."""
WORST_WORD_ERRORS = 0.5
"""Of so few sentences; noise and wrong sentences are near 1, and `stepaudio eval` measures on a hundred."""


@pytest.fixture(scope="module")
def client(nano: Nano) -> Iterator[OpenAI]:
    with nano.client() as client:
        yield client


def input_audio(data: bytes, format_: str = "wav") -> list[dict[str, object]]:
    audio = {"data": base64.b64encode(data).decode(), "format": format_}
    return [{"role": "user", "content": [{"type": "input_audio", "input_audio": audio}]}]


def wave(seconds: float, rate: int, channels: int = 1) -> bytes:
    time = np.arange(int(seconds * rate)) / rate
    tone = 0.3 * np.sin(2 * np.pi * 220 * time)
    sink = io.BytesIO()
    soundfile.write(sink, np.stack([tone] * channels, axis=1), rate, format="WAV", subtype="PCM_16")
    return sink.getvalue()


def test_make_up_saved_an_audible_reply(nano: Nano) -> None:
    samples, rate = soundfile.read(nano.reply)
    assert rate in {22050, 24000}
    assert len(samples) >= 256, "at least one frame of the mel"
    assert np.isfinite(samples).all()
    assert np.abs(samples).max() > 0.001


def test_wave_in_text_and_wave_out(client: OpenAI) -> None:
    answer = client.chat.completions.create(
        model="step-audio-chat",
        modalities=["text", "audio"],
        audio={"voice": "alloy", "format": "wav"},
        max_completion_tokens=32,
        temperature=0,
        messages=input_audio(QUESTION.read_bytes()),  # type: ignore[arg-type]
    )
    message = answer.choices[0].message
    assert message.audio is not None
    assert message.audio.transcript
    assert "<audio_" not in message.audio.transcript
    samples, _ = soundfile.read(io.BytesIO(base64.b64decode(message.audio.data)))
    assert np.abs(samples).max() > 0.001
    assert answer.usage is not None
    # 2.2 s of speech are about 90 audio ids; the model must have seen them.
    assert answer.usage.prompt_tokens > 85
    assert message.audio.transcript == ANSWER


def test_text_streams(client: OpenAI) -> None:
    stream = client.chat.completions.create(
        model="step-audio-chat",
        max_completion_tokens=12,
        stream=True,
        messages=[{"role": "user", "content": "Hello"}],
    )
    chunks = [chunk.choices[0] for chunk in stream if chunk.choices]
    assert chunks[-1].finish_reason in {"stop", "length"}
    assert len(chunks) > 2


def test_speech_is_made_from_text(client: OpenAI) -> None:
    spoken = client.audio.speech.create(
        model="step-audio-tts", voice="alloy", input="Good morning.", response_format="wav"
    )
    samples, _ = soundfile.read(io.BytesIO(spoken.content))
    assert np.abs(samples).max() > 0.001


def test_speech_is_transcribed(client: OpenAI) -> None:
    heard = client.audio.transcriptions.create(
        model="step-audio-chat", file=("hello.wav", QUESTION.read_bytes())
    )
    assert heard.text == ASKED


def test_speech_is_understood_by_a_recogniser(client: OpenAI) -> None:
    judge, errors = EnglishJudge(), []
    for sentence in sentences(Language.ENGLISH, Split.UNSEEN, SPOKEN):
        spoken = client.audio.speech.create(
            model="step-audio-tts", voice="alloy", input=sentence.text, response_format="wav"
        )
        samples, rate = soundfile.read(io.BytesIO(spoken.content), dtype="float32")
        padded = np.pad(samples, rate // 4)
        errors.append(word_errors(sentence.text, judge.words(Wave(padded, rate))))
    assert total(errors).rate < WORST_WORD_ERRORS


def test_a_spoken_request_calls_a_tool(client: OpenAI) -> None:
    asked = Espeak().speak(SpeechRequest("turn off the bedroom lamp", "en-us+f2"))
    sink = io.BytesIO()
    soundfile.write(sink, np.pad(asked.samples, asked.rate // 5), asked.rate, format="WAV", subtype="PCM_16")
    answer = client.chat.completions.create(
        model="step-audio-chat",
        temperature=0,
        tools=[{"type": "function", "function": function} for function in FUNCTIONS.values()],  # type: ignore[misc]
        messages=input_audio(sink.getvalue()),  # type: ignore[arg-type]
    )
    choice = answer.choices[0]
    assert choice.finish_reason == "tool_calls"
    assert choice.message.tool_calls is not None
    call = choice.message.tool_calls[0].function  # type: ignore[union-attr]
    assert (call.name, json.loads(call.arguments)) == (
        "switch",
        {"room": "bedroom", "thing": "lamp", "state": "off"},
    )


@pytest.mark.parametrize(("rate", "channels"), [(8000, 1), (22050, 2), (44100, 1), (48000, 2), (192000, 1)])
def test_any_rate_mono_or_stereo_is_heard(client: OpenAI, rate: int, channels: int) -> None:
    answer = client.chat.completions.create(
        model="step-audio-chat",
        max_completion_tokens=2,
        messages=input_audio(wave(0.5, rate, channels)),  # type: ignore[arg-type]
    )
    assert answer.choices[0].finish_reason in {"stop", "length"}


@pytest.mark.parametrize(
    "data",
    [b"", b"RIFF", b"this is no audio" * 100, wave(0, 16000), wave(31, 8000)],
    ids=["empty", "cut header", "not audio", "no samples", "too long"],
)
def test_bad_audio_is_a_4xx_with_an_openai_error(client: OpenAI, data: bytes) -> None:
    with pytest.raises(BadRequestError) as refused:
        client.chat.completions.create(model="step-audio-chat", messages=input_audio(data))  # type: ignore[arg-type]
    body = refused.value.body
    assert isinstance(body, dict)
    assert {"message", "type", "param", "code"} <= set(body)


def test_the_web_page_is_where_make_up_says(client: OpenAI) -> None:
    shown = httpx.get(page_url(str(client.base_url).rstrip("/")))
    assert (shown.status_code, shown.headers["Content-Type"]) == (200, "text/html; charset=utf-8")
    assert "Step-Audio" in shown.text


def test_an_unknown_route_and_a_broken_body_get_openai_errors(client: OpenAI) -> None:
    base = str(client.base_url)
    unknown = httpx.get(f"{base}nothing")
    broken = httpx.post(f"{base}chat/completions", content=b"{")
    assert (unknown.status_code, broken.status_code) == (404, 400)
    assert set(unknown.json()["error"]) == set(broken.json()["error"]) == {"message", "type", "param", "code"}
