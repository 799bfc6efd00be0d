"""The whole chain on loopback, through the OpenAI SDK: a wave goes in, text and a wave come out.

Tokenizer, chat, TTS and gateway are their own processes; the gateway is told of them by a routing file.
"""

import base64
import io
import json

import numpy as np
import openai
import pytest
import soundfile

pytestmark = pytest.mark.vllm


@pytest.fixture(scope="module")
def client(pods, tmp_path_factory):
    ready = {component: [pods[component].url] for component in ("chat", "tts", "tokenizer")}
    routing = tmp_path_factory.mktemp("routing") / "routing.json"
    routing.write_text(json.dumps({"generation": 1, "release": "test", "pools": ready}))
    gateway = pods.start("gateway", STEPAUDIO_STATIC_ROUTING=str(routing)).wait_ready()
    with openai.OpenAI(base_url=f"{gateway.url}/v1", api_key="none", max_retries=0, timeout=240) as client:
        yield client


@pytest.fixture(scope="module")
def question() -> str:
    t = np.arange(24_000) / 16_000
    wave = 0.3 * np.sin(2 * np.pi * 200 * t) * np.sin(2 * np.pi * 3 * t)
    file = io.BytesIO()
    soundfile.write(file, wave, 16_000, format="WAV", subtype="PCM_16")
    return base64.b64encode(file.getvalue()).decode()


def test_a_wave_goes_in_and_a_wave_comes_out(client, question):
    content = [{"type": "input_audio", "input_audio": {"data": question, "format": "wav"}}]
    answer = client.chat.completions.create(
        model="step-audio-chat",
        modalities=["text", "audio"],
        audio={"voice": client_voice(client), "format": "wav"},
        messages=[{"role": "user", "content": content}],
        max_tokens=12,
        seed=1,
    )
    audio = answer.choices[0].message.audio
    wave, rate = soundfile.read(io.BytesIO(base64.b64decode(audio.data)))
    assert len(wave) > rate / 10
    assert np.isfinite(wave).all()
    assert np.abs(wave).max() > 1e-3, "not silent"
    assert "<audio_" not in audio.transcript


def test_speech_of_a_text_is_a_wave(client):
    answer = client.audio.speech.create(
        model="step-audio-tts", voice=client_voice(client), input="你好。", response_format="wav"
    )
    wave, rate = soundfile.read(io.BytesIO(answer.content))
    assert rate == 22_050
    assert len(wave) > rate / 10


def client_voice(client: openai.OpenAI) -> str:
    return client.get("/voices", cast_to=object)["data"][0]["id"]
