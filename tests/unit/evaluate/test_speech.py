"""The measure of speech tells understanding from none: a teacher is at its floor, its other sentences at the
ceiling; what is not said at all is all wrong; and the figures are those of the sentences."""

import numpy as np

from stepaudio_runtime.audio.wave import Wave
from stepaudio_runtime.engine.espeak import Espeak
from stepaudio_runtime.engine.judge import EnglishJudge, ErrorRate, word_errors
from stepaudio_runtime.engine.speech import SpeechRequest
from stepaudio_runtime.errors import InputError, OutputError
from stepaudio_runtime.evaluate import report
from stepaudio_runtime.evaluate.speech import (
    Listeners,
    Row,
    Said,
    Voice,
    durations,
    floor_and_ceiling,
    measure,
    spread,
    voices_apart,
)
from stepaudio_runtime.evaluate.subject import Spoken, TimedTeacher

TEXTS = [
    "turn on the kitchen light",
    "what is four plus nine",
    "repeat after me seven yellow",
    "the bathroom heater is off",
]
VOICE = Voice("Treble", "en-us+f2")


class Other:
    """Speaks as the teacher does, but another text; of one it has nothing to say."""

    def say(self, request: SpeechRequest) -> Spoken:
        place = TEXTS.index(request.text)
        if place == 3:
            raise OutputError("nothing to say")
        wave = Espeak().speak(SpeechRequest(TEXTS[(place + 2) % 4], "en-us+f2"))
        return Spoken(wave, seconds=wave.duration_s / 4, first_audio_s=0.1)


def test_the_teacher_is_understood_and_the_wrong_words_are_not():
    listeners = Listeners(EnglishJudge(), Espeak())
    voices, tags = [Voice("en-us+f2", "en-us+f2")], ["", "慢速2", "快速2"]
    rows = measure(TimedTeacher(Espeak()), listeners, voices, tags, TEXTS, tagged=2)
    assert [(row.tag, len(row.said)) for row in rows] == [("", 4), ("慢速2", 2), ("快速2", 2)]
    plain = rows[0]
    floor, ceiling = floor_and_ceiling(plain)
    assert plain.errors.rate <= 0.1 and floor.rate <= 0.1 and ceiling.rate > 0.6
    assert all(said.mel_db < 1 for said in plain.said)
    assert report.rates_apart(rows)["en-us+f2"] > 0.25

    [row] = measure(Other(), listeners, [VOICE], [""], TEXTS, tagged=2)
    assert row.errors.rate > 0.6
    unsaid = row.said[3]
    assert (unsaid.fault, unsaid.errors) == ("nothing to say", ErrorRate(deleted=5, units=5))
    assert durations(row, 3) > 1 and durations(row, 4) is None
    [figures] = report.as_data([row], word_errors, {})["rows"]
    assert (figures["unsaid"], figures["first_audio_s"], figures["real_time_factor"]) == (1, 0.1, 0.25)


class Deaf:
    """A judge that refuses one wave of all, the one number `number` that it is given."""

    def __init__(self, number: int) -> None:
        self.left = number

    def words(self, wave: Wave) -> str:
        self.left -= 1
        if self.left == 0:
            raise InputError("the judge answered 400: too short")
        return TEXTS[0]


def test_what_the_judge_refuses_is_one_sentence_s_fault():
    say = TimedTeacher(Espeak())
    [row] = measure(say, Listeners(Deaf(3)), [Voice("en-us")], [""], TEXTS[:1] * 5, tagged=5)
    assert [each.fault for each in row.said] == [None, None, "the judge answered 400: too short", None, None]
    refused = row.said[2]
    assert (refused.errors, refused.spoken is not None) == (ErrorRate(deleted=5, units=5), True)
    assert report.as_data([row], word_errors, {})["rows"][0]["faults"] == 1


def test_what_was_measured_before_a_fault_stays():
    listeners = Listeners(Deaf(2), Espeak())
    [row] = measure(TimedTeacher(Espeak()), listeners, [Voice("en-us", "en-us")], [""], TEXTS[:2], tagged=2)
    first, second = row.said
    assert (first.heard, first.errors.errors, first.reference_heard) == (TEXTS[0], 0, None)
    assert first.mel_db is not None and "400" in first.fault
    assert second.fault is None and second.reference_heard == TEXTS[0]


def said(errors: int, seconds: float, embedding: list[float] | None = None) -> Said:
    wave = Wave(np.zeros(int(seconds * 100), np.float32), 100)
    vector = None if embedding is None else np.array(embedding, np.float32)
    return Said("a b c d", ErrorRate(substituted=errors, units=4), spoken=Spoken(wave, 1), embedding=vector)


def test_figures_are_those_of_the_sentences():
    rows = [Row(VOICE, "快速2", [said(0, 1), said(1, 2)]), Row(VOICE, "慢速2", [said(0, 3), said(0, 3)])]
    data = report.as_data(rows, word_errors, {"subject": "made up", "unit": "word"})
    fast = data["rows"][0]
    assert data["fast_against_slow"] == {"Treble": 0.5}
    assert fast["errors"] == {"rate": 0.125, "substituted": 1, "deleted": 0, "inserted": 0, "units": 8}
    assert fast["interval"] == [0.0, 0.25]
    assert fast["real_time_factor"] == round(2 / 3, 4)
    assert (fast["floor"], fast["mel_db"], fast["similarity"], fast["first_audio_s"]) == (None,) * 4
    assert "| Treble | 快速2 | 2 | 12.5 % |" in report.table(data)
    assert "50% shorter" in report.table(data)


def test_a_set_is_reported_in_its_own_unit_and_with_its_size():
    rows = [Row(VOICE, "", [said(0, 1), said(1, 2)])]
    table = report.table(report.as_data(rows, word_errors, {"unit": "character", "of": 1088}))
    assert "| character errors |" in table
    assert "| Treble | plain | 2 of 1088 | 12.5 % |" in table


def test_voices_apart_compares_each_voice_with_itself_and_the_other():
    one = Row(Voice("a"), "", [said(0, 1, [1, 0]), said(0, 1, [1, 0.1]), said(0, 1, [1, 0])])
    two = Row(Voice("b"), "", [said(0, 1, [0, 1]), said(0, 1, [0.1, 1]), said(0, 1, [0, 1])])
    found = voices_apart([one, two])
    assert set(found) == {"a", "b", "a/b"}
    assert found["a"] > 0.99 and found["b"] > 0.99 and found["a/b"] < 0.2


def test_the_interval_holds_the_rate_and_narrows_with_more_sentences():
    few = Row(VOICE, "", [said(i % 2, 1) for i in range(8)])
    many = Row(VOICE, "", [said(i % 2, 1) for i in range(200)])
    (a, b), (c, d) = spread(few), spread(many)
    assert a < 0.125 < b and c < 0.125 < d
    assert d - c < (b - a) / 3


def test_report_is_written_with_spectrograms(tmp_path):
    rows = measure(
        TimedTeacher(Espeak()),
        Listeners(EnglishJudge(), Espeak()),
        [VOICE_OF_TEACHER],
        [""],
        TEXTS[:2],
        tagged=1,
    )
    report.write(tmp_path, rows, report.as_data(rows, word_errors, {"unit": "word"}))
    names = {file.name for file in tmp_path.iterdir()}
    waves = {f"en-us+f2-{n}-{kind}.wav" for n in (1, 2) for kind in ("spoken", "teacher")}
    assert names == {"report.json", "report.md", "spectrograms.png", *waves}
    assert (tmp_path / "spectrograms.png").read_bytes().startswith(b"\x89PNG")


VOICE_OF_TEACHER = Voice("en-us+f2", "en-us+f2")
