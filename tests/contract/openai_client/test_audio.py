"""Speech, transcriptions, models and voices through the OpenAI SDK."""

import io

import numpy as np
import openai
import pytest
import soundfile


def frequency(wave, rate):
    return np.count_nonzero(np.diff(np.signbit(wave))) / 2 / (len(wave) / rate)


@pytest.mark.parametrize(
    ("kind", "media_type", "magic"),
    [
        ("wav", "audio/wav", b"RIFF"),
        ("flac", "audio/flac", b"fLaC"),
        ("mp3", "audio/mpeg", None),
        ("opus", "audio/ogg", b"OggS"),
        ("aac", "audio/aac", None),
        ("pcm", "audio/pcm; rate=24000; channels=1", None),
    ],
)
def test_speech_in_every_format_has_the_right_pitch_and_length(stack, kind, media_type, magic):
    answer = stack.client.audio.speech.create(
        model="step-audio-tts", voice="lulu", input="twenty characters ..", response_format=kind
    )
    assert answer.response.headers["content-type"] == media_type
    assert stack.tts.requests == [{"input": "twenty characters ..", "voice": "lulu"}]
    data = answer.content
    assert magic is None or data.startswith(magic)
    if kind == "aac":
        import av

        with av.open(io.BytesIO(data)) as file:
            wave = np.concatenate([frame.to_ndarray()[0] for frame in file.decode(audio=0)])
            rate = file.streams.audio[0].rate
    elif kind == "pcm":
        wave, rate = np.frombuffer(data, "<i2"), 24000
    else:
        wave, rate = soundfile.read(io.BytesIO(data))
    assert len(wave) / rate == pytest.approx(1.0, abs=0.1 if kind in ("aac", "mp3") else 0.01)
    middle = wave[rate // 4 : rate * 3 // 4]
    assert frequency(middle, rate) == pytest.approx(440, rel=0.01)


def test_speech_defaults_to_mp3_and_takes_openai_voices_as_the_default_voice(stack):
    answer = stack.client.audio.speech.create(model="step-audio-tts", voice="alloy", input="hello", speed=1.0)
    assert answer.response.headers["content-type"] == "audio/mpeg"
    assert stack.tts.requests == [{"input": "hello"}]


@pytest.mark.parametrize(
    ("change", "param", "error"),
    [
        ({"input": " \n"}, "input", openai.BadRequestError),
        ({"input": "x" * 4097}, "input", openai.BadRequestError),
        ({"speed": 1.5}, "speed", openai.BadRequestError),
        ({"speed": 9}, "speed", openai.BadRequestError),
        ({"response_format": "midi"}, "response_format", openai.BadRequestError),
        ({"voice": "nobody"}, "voice", openai.BadRequestError),
        ({"voice": "nobody", "response_format": "pcm"}, "voice", openai.BadRequestError),
        ({"voice": ""}, "voice", openai.BadRequestError),
        ({"instructions": "whisper"}, "instructions", openai.BadRequestError),
        ({"stream_format": "sse"}, "stream_format", openai.BadRequestError),
        ({"model": "step-audio-chat"}, "model", openai.NotFoundError),
    ],
)
def test_speech_that_is_not_served_is_refused_by_name(stack, change, param, error):
    asked = {"model": "step-audio-tts", "voice": "lulu", "input": "hello"} | change
    with pytest.raises(error) as refused:
        stack.client.audio.speech.create(**asked)
    assert refused.value.param == param


@pytest.mark.parametrize(("rate", "kind"), [(8000, "WAV"), (22050, "OGG"), (48000, "MP3"), (16000, "FLAC")])
def test_transcription_hears_the_file(stack, tone, rate, kind):
    answer = stack.client.audio.transcriptions.create(
        model="step-audio-chat",
        file=("a.bin", tone(0.72, rate, 440, 1, kind)),
        language="en",
        prompt="names: Ann",
    )
    heard = answer.text.split()
    assert (heard[0], heard[2], heard[-1]) == ("heard", "codes", "Hz")
    assert int(heard[-2]) == pytest.approx(440, abs=8)
    assert answer.usage.input_tokens > answer.usage.input_token_details.audio_tokens >= 30
    assert stack.chat.requests[0]["temperature"] == 0


def test_transcription_as_text_and_by_form_fields(stack, tone):
    answer = stack.client.audio.transcriptions.create(
        model="step-audio-chat", file=("a.wav", tone(0.72)), response_format="text", temperature=0.3
    )
    assert answer == "heard 30 codes at 440 Hz\n"
    assert stack.chat.requests[0]["temperature"] == 0.3


@pytest.mark.parametrize(
    ("change", "param", "error"),
    [
        ({"response_format": "srt"}, "response_format", openai.BadRequestError),
        ({"file": ("a.wav", b"")}, "file", openai.BadRequestError),
        ({"file": ("a.wav", b"RIFF but no more")}, "file", openai.BadRequestError),
        ({"stream": True}, "stream", openai.BadRequestError),
        ({"temperature": 7}, "temperature", openai.BadRequestError),
        ({"timestamp_granularities": ["word"]}, "timestamp_granularities", openai.BadRequestError),
        ({"model": "whisper-1"}, "model", openai.NotFoundError),
    ],
)
def test_transcription_that_is_not_served_is_refused_by_name(stack, tone, change, param, error):
    asked = {"model": "step-audio-chat", "file": ("a.wav", tone())} | change
    with pytest.raises(error) as refused:
        stack.client.audio.transcriptions.create(**asked)
    assert refused.value.param == param


def test_models_and_voices_are_listed(stack):
    assert [model.id for model in stack.client.models.list()] == ["step-audio-chat", "step-audio-tts"]
    assert stack.client.models.retrieve("step-audio-tts").owned_by == "stepfun"
    with pytest.raises(openai.NotFoundError) as unknown:
        stack.client.models.retrieve("gpt-4o")
    assert unknown.value.code == "model_not_found"
    voices = stack.client.get("/voices", cast_to=object)
    assert voices == {"object": "list", "data": [{"id": "lulu", "name": "lulu"}]}


def test_a_deployment_without_a_pool_says_so(stack, start_gateway):
    speech_only = start_gateway({"tts": [stack.tts.url]}).client()
    assert [model.id for model in speech_only.models.list()] == ["step-audio-tts"]
    with pytest.raises(openai.NotFoundError):
        speech_only.chat.completions.create(
            model="step-audio-chat", messages=[{"role": "user", "content": "hello"}]
        )
    assert speech_only.audio.speech.create(model="step-audio-tts", voice="lulu", input="hi").content
