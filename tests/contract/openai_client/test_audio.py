"""Transcriptions, models and voices through the OpenAI SDK."""

import openai
import pytest


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
    ("kind", "expected"),
    [
        ("srt", "1\n00:00:00,000 --> 00:00:00,720\nheard 30 codes at 440 Hz\n\n"),
        ("vtt", "WEBVTT\n\n00:00:00.000 --> 00:00:00.720\nheard 30 codes at 440 Hz\n\n"),
    ],
)
def test_transcription_as_subtitles_is_one_cue_over_the_recording(stack, tone, kind, expected):
    answer = stack.client.audio.transcriptions.create(
        model="step-audio-chat", file=("a.wav", tone(0.72)), response_format=kind
    )
    assert answer == expected


def test_transcription_as_verbose_json_has_one_segment(stack, tone):
    answer = stack.client.audio.transcriptions.create(
        model="step-audio-chat",
        file=("a.wav", tone(0.72)),
        response_format="verbose_json",
        timestamp_granularities=["segment"],
        language="en",
    )
    text = "heard 30 codes at 440 Hz"
    assert answer.to_dict() == {
        "task": "transcribe",
        "language": "en",
        "duration": 0.72,
        "text": text,
        "segments": [{"id": 0, "start": 0.0, "end": 0.72, "text": text}],
        "usage": {"type": "duration", "seconds": 1},
    }


def test_transcription_streams_the_words_as_they_are_written_down(stack, tone):
    stream = stack.client.audio.transcriptions.create(
        model="step-audio-chat", file=("a.wav", tone(0.72)), stream=True
    )
    *deltas, done = list(stream)
    assert {event.type for event in deltas} == {"transcript.text.delta"}
    assert len(deltas) > 3
    assert "".join(event.delta for event in deltas) == "heard 30 codes at 440 Hz"
    assert (done.type, done.text) == ("transcript.text.done", "heard 30 codes at 440 Hz")
    assert done.usage.total_tokens == done.usage.input_tokens + done.usage.output_tokens


@pytest.mark.parametrize(
    ("change", "param", "error"),
    [
        ({"response_format": "diarized_json"}, "response_format", openai.BadRequestError),
        ({"response_format": "srt", "stream": True}, "response_format", openai.BadRequestError),
        ({"file": ("a.wav", b"")}, "file", openai.BadRequestError),
        ({"file": ("a.wav", b"RIFF but no more")}, "file", openai.BadRequestError),
        ({"stream": "maybe"}, "stream", openai.BadRequestError),
        ({"include": ["logprobs"]}, "include", openai.BadRequestError),
        ({"temperature": 7}, "temperature", openai.BadRequestError),
        ({"timestamp_granularities": ["word"]}, "timestamp_granularities[0]", openai.BadRequestError),
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


def test_other_names_of_models_and_voices_are_served_and_listed(stack, start_gateway):
    client = start_gateway(
        {"tts": [stack.tts.url]},
        STEPAUDIO_MODEL_ALIASES="tts-1=step-audio-tts, whisper-1=step-audio-chat",
        STEPAUDIO_VOICE_ALIASES="alloy=lulu, nova=nobody",
    ).client()
    # whisper-1 stands for a model that this deployment does not have, nova for a voice that is not there.
    assert [(model.id, model.root) for model in client.models.list()] == [
        ("step-audio-tts", "step-audio-tts"),
        ("tts-1", "step-audio-tts"),
    ]
    assert client.get("/voices", cast_to=object)["data"] == [
        {"id": "lulu", "name": "lulu"},
        {"id": "alloy", "name": "alloy", "alias_of": "lulu"},
    ]
    client.audio.speech.create(model="tts-1", voice="alloy", input="hi")
    client.audio.speech.create(model="tts-1", voice={"id": "echo"}, input="hi")
    assert stack.tts.requests == [{"input": "hi", "voice": "lulu"}, {"input": "hi"}]
    with pytest.raises(openai.BadRequestError) as unknown:
        client.audio.speech.create(model="tts-1", voice="nova", input="hi")
    assert unknown.value.param == "voice"
    with pytest.raises(openai.NotFoundError):
        client.audio.speech.create(model="tts-2", voice="alloy", input="hi")


def test_a_deployment_without_a_pool_says_so(stack, start_gateway):
    speech_only = start_gateway({"tts": [stack.tts.url]}).client()
    assert [model.id for model in speech_only.models.list()] == ["step-audio-tts"]
    with pytest.raises(openai.NotFoundError):
        speech_only.chat.completions.create(
            model="step-audio-chat", messages=[{"role": "user", "content": "hello"}]
        )
    assert speech_only.audio.speech.create(model="step-audio-tts", voice="lulu", input="hi").content
