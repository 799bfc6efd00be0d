"""A teacher behind real HTTP: the data are those of the same teacher at home, though the server falters; what
it refuses is refused, and what ends a run says why."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from stepaudio_runtime.engine.run import run
from stepaudio_runtime.engine.shards import read_records, read_shards
from stepaudio_runtime.errors import StepAudioError

RECIPE = """
name: remote
licence: Apache-2.0
texts: [{domain: en, split: train, count: 6}]
voices: [VOICES]
styles: ["", 快速1]
combinations: 1
teacher: TEACHER
"""
SAME = ("key", "text", "voice", "style", "seed", "rate", "duration_s", "refused")
AT_HOME = "{kind: espeak}"


def recipe(folder: Path, name: str, teacher: str, voices: str = "en-us+f2") -> Path:
    path = folder / f"{name}.yaml"
    path.write_text(RECIPE.replace("TEACHER", teacher).replace("VOICES", voices))
    return path


def remote(url: str, attempts: int = 3) -> str:
    fields = f"url: '{url}', model: a-model, api_key_env: TEACHER_KEY, concurrency: 3, attempts: {attempts}"
    return "{kind: speech, " + fields + "}"


@pytest.fixture(autouse=True)
def key(monkeypatch):
    monkeypatch.setenv("TEACHER_KEY", "a key")


def test_data_are_those_of_the_same_teacher_at_home(server, tmp_path):
    server.faults += [(429, {"Retry-After": "0"}), (503, {})]
    run(recipe(tmp_path, "home", AT_HOME), tmp_path / "home", workers=1, say=print)
    run(recipe(tmp_path, "away", remote(server.url)), tmp_path / "away", workers=1, say=print)
    assert server.faults == []
    away, home = list(read_shards(tmp_path / "away")), list(read_shards(tmp_path / "home"))
    for one, other in zip(away, home, strict=True):
        assert {name: one.record[name] for name in SAME} == {name: other.record[name] for name in SAME}
        # A WAV file more on the way: each sample is rounded to 16 bits once more.
        assert np.abs(one.wave.samples - other.wave.samples).max() < 3 / 32768
    assert len(away) == 6
    assert {body["model"] for body in server.asked} == {"a-model"}


def test_a_voice_it_does_not_have_is_refused_sample_by_sample(server, tmp_path):
    run(recipe(tmp_path, "r", remote(server.url), "en-us+f2, nobody"), tmp_path / "out", workers=1, say=print)
    refused = {r["voice"]: r["refused"] for r in read_records(tmp_path / "out")}
    assert refused["en-us+f2"] is None
    assert refused["nobody"][0] == "teacher" and "no voice 'nobody'" in refused["nobody"][1]


def test_a_wrong_key_ends_the_run_and_a_right_one_goes_on(server, tmp_path, monkeypatch):
    made = recipe(tmp_path, "r", remote(server.url))
    monkeypatch.setenv("TEACHER_KEY", "wrong")
    with pytest.raises(StepAudioError, match="401") as ended:
        run(made, tmp_path / "out", workers=1, say=print)
    assert ended.value.reason == "ConfigInvalid"
    monkeypatch.setenv("TEACHER_KEY", "a key")
    assert run(made, tmp_path / "out", workers=1, say=print).exists()


def test_a_key_that_no_header_can_carry_is_named_and_not_quoted(server, tmp_path, monkeypatch):
    monkeypatch.setenv("TEACHER_KEY", "pass\nphrase")
    with pytest.raises(StepAudioError, match="TEACHER_KEY") as ended:
        run(recipe(tmp_path, "r", remote(server.url)), tmp_path / "out", workers=1, say=print)
    assert ended.value.reason == "ConfigInvalid" and "phrase" not in str(ended.value)
    assert server.asked == []


def test_nobody_there_ends_the_run_as_unavailable(tmp_path):
    with pytest.raises(StepAudioError, match="cannot be reached") as ended:
        run(recipe(tmp_path, "r", remote("http://127.0.0.1:9", 1)), tmp_path / "out", workers=1, say=print)
    assert ended.value.reason == "Unavailable"
