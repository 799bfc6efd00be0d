"""Endpoints over real HTTP: speech is timed and tried again, recordings are transcribed and counted, and
conversations held and judged; what a server does wrong is said, and does not end the measurement."""

import json

import pytest

from stepaudio_runtime.audio.encoding import Format, encode
from stepaudio_runtime.engine.espeak import Espeak
from stepaudio_runtime.engine.speech import STYLES, SpeechRequest
from stepaudio_runtime.errors import ConfigError, InputError, OutputError
from stepaudio_runtime.evaluate import abilities, transcription
from stepaudio_runtime.evaluate.abilities import Ability, ChatEndpoint, Verdict
from stepaudio_runtime.evaluate.endpoint import Endpoint, SpokenEndpoint, TranscriptionEndpoint
from stepaudio_runtime.evaluate.recordings import Recording, dictated

TEXTS = ["turn on the kitchen light", "what is four plus nine", "the bathroom heater is off"]


def endpoint(url: str, key: str = "a key") -> Endpoint:
    return Endpoint(url, "a-model", "KEY", {"KEY": key})


def test_speech_is_timed_from_its_first_sample(server):
    request = SpeechRequest(TEXTS[0], "en-us+f2", STYLES["快速1"], seed=5)
    server.faults.append((503, {"Retry-After": "0"}))
    spoken = SpokenEndpoint(endpoint(server.url)).say(request)
    assert spoken.first_audio_s is not None
    # The server holds the rest back for a tenth of a second after the first samples.
    assert 0.05 < spoken.first_audio_s < spoken.seconds - 0.05
    assert len(spoken.wave.samples) == len(Espeak().speak(request).samples)
    [body] = server.asked
    assert body == {
        "model": "a-model",
        "input": f"(快速1){TEXTS[0]}",
        "voice": "en-us+f2",
        "response_format": "wav",
        "seed": 5,
    }


def test_recordings_are_transcribed_and_faults_count_as_errors(server):
    items = dictated(Espeak(), ["en-us+f2"], TEXTS, "en")
    server.faults.append((400, {}))
    found = transcription.listen(TranscriptionEndpoint(endpoint(server.url)), items)
    assert [each.heard for each in found] == ["", *TEXTS[1:]]
    assert "400" in found[0].fault
    data = transcription.as_data(found, "en", {"data": "domain"})
    assert (data["recordings"], data["failed"], data["units"], data["deleted"]) == (3, 1, 15, 5)
    assert data["rate"] == round(5 / 15, 4) < 0.7 < data["ceiling"]
    assert "| 3 | 33.3 % |" in transcription.table(data)
    assert "| 3 of 2620 | 33.3 % |" in transcription.table({**data, "of": 2620})


def test_a_recording_that_cannot_be_read_does_not_end_the_measurement(server, tmp_path):
    wave = Espeak().speak(SpeechRequest(TEXTS[0], "en-us+f2"))
    (tmp_path / "whole.wav").write_bytes(encode(wave.samples, wave.rate, Format.WAV))
    (tmp_path / "broken.wav").write_bytes(b"RIFF")
    items = [Recording(n, TEXTS[0], "en", tmp_path / f"{n}.wav") for n in ("broken", "gone", "whole")]
    found = transcription.listen(TranscriptionEndpoint(endpoint(server.url)), items)
    assert [(each.heard, each.audio_s > 0) for each in found] == [("", False), ("", False), (TEXTS[0], True)]
    assert ["broken.wav" in found[0].fault, "gone.wav" in found[1].fault] == [True, True]
    assert transcription.as_data(found, "en", {})["failed"] == 2


def test_chinese_is_counted_in_characters():
    assert transcription.counted("zh")("打开厨房的灯", "打开 厨房 灯").rate == pytest.approx(1 / 6)


def test_a_wrong_key_and_a_missing_one_end_the_measurement(server):
    with pytest.raises(ConfigError, match="401"):
        SpokenEndpoint(endpoint(server.url, "wrong")).say(SpeechRequest("hello", "en-us+f2"))
    with pytest.raises(ConfigError, match="KEY"):
        TranscriptionEndpoint(endpoint(server.url, ""))


def test_conversations_are_held_and_judged(server, tmp_path):
    for number, text in enumerate(TEXTS):
        wave = Espeak().speak(SpeechRequest(text, "en-us+f2"))
        (tmp_path / f"{number}.wav").write_bytes(encode(wave.samples, wave.rate, Format.WAV))
    turns = [{"audio": f"{n}.wav", "text": text} for n, text in enumerate(TEXTS)]
    wrong = [{"audio": "0.wav", "text": "something else was said"}]
    lines = [
        {"id": 1, "ability": "reasoning", "turns": turns},
        {"id": 2, "ability": "reasoning", "turns": wrong},
        {"id": 3, "ability": "singing", "turns": turns[:1]},
    ]
    file = tmp_path / "conversations.jsonl"
    file.write_text("\n".join(map(json.dumps, lines)))
    model = judge = ChatEndpoint(endpoint(server.url))
    outcomes = abilities.run(abilities.read_conversations(file), model, judge)
    assert outcomes[0].answers == tuple(TEXTS)
    assert [outcome.verdict for outcome in outcomes] == [
        Verdict(factual=True, relevant=True, score=5),
        Verdict(factual=False, relevant=False, score=1),
        Verdict(factual=True, relevant=True, score=5),
    ]
    data = abilities.as_data(outcomes)
    assert data["abilities"] == {
        "reasoning": {"conversations": 2, "unjudged": 0, "factual": 0.5, "relevant": 0.5, "score": 3.0},
        "singing": {"conversations": 1, "unjudged": 0, "factual": 1.0, "relevant": 1.0, "score": 5.0},
    }
    # The third turn was asked with the two before it and their answers.
    third = server.asked[2]["messages"]
    assert [message["role"] for message in third] == ["user", "assistant"] * 2 + ["user"]
    assert (third[1]["content"], third[3]["content"]) == (TEXTS[0], TEXTS[1])


def test_no_answer_counts_as_the_worst(server, tmp_path):
    wave = Espeak().speak(SpeechRequest(TEXTS[0], "en-us+f2"))
    (tmp_path / "a.wav").write_bytes(encode(wave.samples, wave.rate, Format.WAV))
    turns = (abilities.Turn(tmp_path / "a.wav", TEXTS[0]),)
    server.faults.append((400, {}))
    [outcome] = abilities.run(
        [abilities.Conversation("1", Ability.GAMING, turns)],
        ChatEndpoint(endpoint(server.url)),
        ChatEndpoint(endpoint(server.url)),
    )
    assert outcome.verdict is None and "400" in outcome.fault
    assert abilities.as_data([outcome])["all"] == {
        "conversations": 1, "unjudged": 1, "factual": 0.0, "relevant": 0.0, "score": 1.0,
    }  # fmt: skip


@pytest.mark.parametrize(
    "said", ["", "good", "{}", '{"factual": 1, "relevant": true, "score": 3}',
             '{"factual": true, "relevant": true, "score": 9}'],
)  # fmt: skip
def test_a_judge_that_is_not_clear_gives_no_verdict(said):
    with pytest.raises(OutputError, match="judge"):
        abilities.verdict(said)


def test_a_bad_line_is_named(tmp_path):
    file = tmp_path / "conversations.jsonl"
    file.write_text('{"id": 1, "ability": "cooking", "turns": []}')
    with pytest.raises(InputError, match="line 1"):
        abilities.read_conversations(file)
