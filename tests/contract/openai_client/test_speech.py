"""Speech through the OpenAI SDK: every format, as bytes and as events, decoded again for pitch and length;
streamed while it is made; faster, slower, louder; refused by name where it is not served.
"""

import base64
import io
import json

import av
import numpy as np
import openai
import pytest
import soundfile

FORMATS = ["wav", "flac", "mp3", "opus", "aac", "pcm"]
TYPES = {
    "wav": "audio/wav",
    "flac": "audio/flac",
    "mp3": "audio/mpeg",
    "opus": "audio/ogg",
    "aac": "audio/aac",
    "pcm": "audio/pcm; rate=24000; channels=1",
}
TEXT = "twenty characters .."  # the fake pod speaks it for a second, at 440 Hz


def decoded(data, kind):
    """Samples in [-1, 1] and rate of what a client got."""
    if kind == "pcm":
        return np.frombuffer(data, "<i2") / 32768, 24_000
    with av.open(io.BytesIO(data)) as file:
        rate = file.streams.audio[0].rate
        planar = av.AudioResampler(format="flt", layout="mono", rate=rate)
        frames = [part for frame in file.decode(audio=0) for part in planar.resample(frame)]
        return np.concatenate([frame.to_ndarray().reshape(-1) for frame in frames]), rate


def pitch(wave, rate):
    spectrum = np.abs(np.fft.rfft(wave * np.hanning(len(wave))))
    return np.argmax(spectrum) * rate / len(wave)


def check(data, kind, *, seconds=1.0, hertz=440):
    wave, rate = decoded(data, kind)
    assert len(wave) / rate == pytest.approx(seconds, abs=0.1 if kind in ("aac", "mp3") else 0.03)
    assert pitch(wave, rate) == pytest.approx(hertz, rel=0.01)


def events(client, **asked):
    """The events of a spoken answer, read line by line as a client of OpenAI's does."""
    with client.audio.speech.with_streaming_response.create(
        model="step-audio-tts", voice="lulu", stream_format="sse", **asked
    ) as answer:
        assert answer.headers["content-type"].startswith("text/event-stream")
        for line in answer.iter_lines():
            if line:
                assert line.startswith("data: ")
                yield json.loads(line[6:])


@pytest.mark.parametrize("kind", FORMATS)
def test_speech_in_every_format_has_the_right_pitch_and_length(stack, kind):
    answer = stack.client.audio.speech.create(
        model="step-audio-tts", voice="lulu", input=TEXT, response_format=kind
    )
    assert answer.response.headers["content-type"] == TYPES[kind]
    assert stack.tts.requests == [{"input": TEXT, "voice": "lulu"}]
    check(answer.content, kind)
    if kind in ("wav", "flac", "opus", "mp3"):
        wave, rate = soundfile.read(io.BytesIO(answer.content))
        assert len(wave) / rate == pytest.approx(1, abs=0.1)


@pytest.mark.parametrize("kind", FORMATS)
def test_speech_as_events_carries_the_same_file_and_its_usage(stack, kind):
    *deltas, done = events(stack.client, input=TEXT, response_format=kind)
    assert {event["type"] for event in deltas} == {"speech.audio.delta"}
    check(b"".join(base64.b64decode(event["audio"]) for event in deltas), kind)
    # The fake pod says 5 tokens of text; a second of speech is 41 2/3 codes.
    usage = {"input_tokens": 5, "output_tokens": 42, "total_tokens": 47}
    assert done == {"type": "speech.audio.done", "usage": usage}


@pytest.mark.parametrize("kind", FORMATS)
@pytest.mark.parametrize("stream_format", ["audio", "sse"])
def test_speech_is_streamed_while_it_is_made(stack, kind, stream_format):
    stack.tts.hold.clear()  # "halting" speech stops in the middle until it is set
    with stack.client.audio.speech.with_streaming_response.create(
        model="step-audio-tts",
        voice="lulu",
        input="halting characters..",
        response_format=kind,
        stream_format=stream_format,
    ) as answer:
        parts = answer.iter_bytes(1)
        begun = b"".join(next(parts) for _ in range(400))
        assert not stack.tts.hold.is_set()
        stack.tts.hold.set()
        data = begun + b"".join(parts)
    if stream_format == "sse":
        found = [json.loads(line[6:]) for line in data.splitlines() if line]
        assert found[-1]["type"] == "speech.audio.done"
        data = b"".join(base64.b64decode(event["audio"]) for event in found[:-1])
    check(data, kind)


def test_a_pod_that_breaks_off_breaks_the_stream_and_not_the_gateway(stack):
    found = list(events(stack.client, input="break characters ..", response_format="pcm"))
    assert found[0]["type"] == "speech.audio.delta"
    assert found[-1]["error"]["code"] == "upstream_failed"
    with pytest.raises(openai.APIConnectionError):
        stack.client.audio.speech.create(
            model="step-audio-tts", voice="lulu", input="break characters ..", response_format="mp3"
        )
    check(stack.client.audio.speech.create(model="step-audio-tts", voice="lulu", input=TEXT).content, "mp3")


@pytest.mark.parametrize("speed", [0.25, 0.5, 1.5, 4.0])
@pytest.mark.parametrize("kind", ["pcm", "opus"])
def test_speed_changes_the_length_and_not_the_pitch(stack, speed, kind):
    answer = stack.client.audio.speech.create(
        model="step-audio-tts", voice="lulu", input=TEXT, response_format=kind, speed=speed
    )
    assert stack.tts.requests == [{"input": TEXT, "voice": "lulu"}]
    wave, rate = decoded(answer.content, kind)
    assert len(wave) / rate == pytest.approx(1 / speed, abs=0.01)
    assert pitch(wave, rate) == pytest.approx(440, rel=0.01)


@pytest.mark.parametrize(("volume", "peak"), [(0, 0), (0.5, 0.244), (1, 0.488), (1.5, 0.732), (4, 1)])
def test_volume_is_a_factor_that_never_clips(stack, volume, peak):
    answer = stack.client.audio.speech.create(
        model="step-audio-tts",
        voice="lulu",
        input=TEXT,
        response_format="wav",
        extra_body={"volume": volume},
    )
    wave, rate = decoded(answer.content, "wav")
    assert np.abs(wave).max() == pytest.approx(peak, abs=0.01)
    if volume:
        assert pitch(wave, rate) == pytest.approx(440, rel=0.01)


@pytest.mark.parametrize("stream", [False, True])
def test_spoken_chat_answers_take_speed_and_volume(stack, stream):
    asked = {
        "model": "step-audio-chat",
        "messages": [{"role": "user", "content": "say twenty characters .."}],
        "modalities": ["text", "audio"],
        "audio": {"voice": "lulu", "format": "pcm16", "speed": 2.0, "volume": 0.5},
    }
    if stream:
        deltas = [
            getattr(chunk.choices[0].delta, "audio", None)
            for chunk in stack.client.chat.completions.create(**asked, stream=True)
        ]
        data = b"".join(base64.b64decode(audio.data) for audio in deltas if audio and audio.data)
    else:
        answer = stack.client.chat.completions.create(**asked)
        data = base64.b64decode(answer.choices[0].message.audio.data)
    wave, rate = decoded(data, "pcm")
    assert len(wave) / rate == pytest.approx(0.5, abs=0.01)
    assert pitch(wave, rate) == pytest.approx(440, rel=0.02)
    assert np.abs(wave).max() == pytest.approx(0.244, abs=0.02)


@pytest.mark.parametrize(
    ("asked", "wire", "noted"),
    [
        (
            {"extra_body": {"emotion": "happy", "language": "yue", "rate": "慢速2"}},
            "(粤语)(高兴1)(慢速2)hello",
            "",
        ),
        ({"extra_body": {"style": "rap"}}, "(RAP)hello", ""),
        ({"input": "(Humming (哼唱))hello"}, "(哼唱)hello", ""),
        ({"instructions": "Speak in a very cheerful tone."}, "(高兴2)hello", ""),
        ({"instructions": "sad, like a ghost"}, "(悲伤1)hello", "ghost"),
        ({"input": "(whispering) hello"}, "whispering, hello", ""),
    ],
)
@pytest.mark.parametrize("kind", ["wav", "flac"])
def test_controls_reach_the_pod_as_tags_in_front_of_the_text(stack, asked, wire, noted, kind):
    asked = {"model": "step-audio-tts", "voice": "lulu", "input": "hello", "response_format": kind} | asked
    answer = stack.client.audio.speech.create(**asked)
    assert stack.tts.requests == [{"input": wire, "voice": "lulu"}]
    assert noted in answer.response.headers.get("x-notes", "")
    assert bool(noted) == ("x-notes" in answer.response.headers)


@pytest.mark.parametrize("stream", [False, True])
def test_controls_of_a_spoken_answer(stack, stream):
    asked = {
        "model": "step-audio-chat",
        "messages": [{"role": "user", "content": "say (happy) hello"}],
        "modalities": ["text", "audio"],
        "audio": {"voice": "lulu", "format": "pcm16", "rate": "fast", "instructions": "用四川话说"},
        "stream": stream,
    }
    answer = stack.client.chat.completions.create(**asked)
    if stream:
        list(answer)
    assert stack.tts.requests == [{"input": "(四川话)(高兴1)(快速1)hello", "voice": "lulu"}]
    asked["audio"] |= {"rate": "hasty"}
    with pytest.raises(openai.BadRequestError) as refused:
        stack.client.chat.completions.create(**asked)
    assert refused.value.param == "audio.rate"
    assert "very_fast" in refused.value.message


def test_a_strict_gateway_refuses_what_it_does_not_know(stack, start_gateway):
    client = start_gateway({"tts": [stack.tts.url]}, STEPAUDIO_CONTROLS="strict").client()
    for change, param in (
        ({"input": "(whispering) hello"}, "input"),
        ({"instructions": "sad, like a ghost"}, "instructions"),
        ({"input": "(happy)hello", "instructions": "sad"}, "instructions"),
    ):
        with pytest.raises(openai.BadRequestError) as refused:
            client.audio.speech.create(
                **{"model": "step-audio-tts", "voice": "lulu", "input": "hello"} | change
            )
        assert refused.value.param == param
    assert stack.tts.requests == []


def test_speech_defaults_to_mp3_and_takes_openai_voices_as_the_default_voice(stack):
    answer = stack.client.audio.speech.create(model="step-audio-tts", voice="alloy", input="hello", speed=1.0)
    assert answer.response.headers["content-type"] == "audio/mpeg"
    assert stack.tts.requests == [{"input": "hello"}]


@pytest.mark.parametrize(
    ("change", "param", "error"),
    [
        ({"input": " \n"}, "input", openai.BadRequestError),
        ({"input": "x" * 4097}, "input", openai.BadRequestError),
        ({"speed": 0.2}, "speed", openai.BadRequestError),
        ({"speed": 9}, "speed", openai.BadRequestError),
        ({"extra_body": {"volume": -1}}, "volume", openai.BadRequestError),
        ({"response_format": "midi"}, "response_format", openai.BadRequestError),
        ({"voice": "nobody"}, "voice", openai.BadRequestError),
        ({"voice": "nobody", "response_format": "pcm"}, "voice", openai.BadRequestError),
        ({"voice": "nobody", "stream_format": "sse"}, "voice", openai.BadRequestError),
        ({"voice": ""}, "voice", openai.BadRequestError),
        ({"instructions": "x" * 5000}, "instructions", openai.BadRequestError),
        ({"extra_body": {"emotion": "hungry"}}, "emotion", openai.BadRequestError),
        ({"input": "(happy)"}, "input", openai.BadRequestError),
        ({"stream_format": "midi"}, "stream_format", openai.BadRequestError),
        ({"model": "step-audio-chat"}, "model", openai.NotFoundError),
    ],
)
def test_speech_that_is_not_served_is_refused_by_name(stack, change, param, error):
    asked = {"model": "step-audio-tts", "voice": "lulu", "input": "hello"} | change
    with pytest.raises(error) as refused:
        stack.client.audio.speech.create(**asked)
    assert refused.value.param == param
