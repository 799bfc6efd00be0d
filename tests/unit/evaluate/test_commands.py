"""`stepaudio eval` as a command: its report says which part of a set was measured, in which language and in
what errors were counted; bad arguments are one line."""

import json

import pytest
import soundfile

from stepaudio_runtime.cli import main
from stepaudio_runtime.engine.espeak import Espeak
from stepaudio_runtime.engine.speech import SpeechRequest


def seed_tts(folder, language: str, text: str, lines: int):
    place = folder / language
    place.mkdir()
    wave = Espeak().speak(SpeechRequest("hello", "en-us"))
    soundfile.write(place / "a.wav", wave.samples, wave.rate)
    (place / "meta.lst").write_text(f"1|hello|a.wav|{text}\n" * lines, "utf-8")
    return place / "meta.lst"


def judged(server, monkeypatch) -> list[str]:
    monkeypatch.setenv("KEY", "a key")
    return ["--judge-url", server.url, "--judge-model", "m", "--judge-api-key-env", "KEY"]


def test_a_chinese_list_is_counted_in_characters_and_says_so(server, tmp_path, monkeypatch):
    meta = seed_tts(tmp_path, "zh", "打开厨房的灯", lines=3)
    arguments = ["eval", "speech", "teacher", "-o", str(tmp_path / "out"), "--tags", "", "--sentences", "2"]
    main([*arguments, "--data", f"seed-tts:{meta}", *judged(server, monkeypatch)])
    report = json.loads((tmp_path / "out/report.json").read_text())
    assert [report[name] for name in ("language", "unit", "of", "seed")] == ["zh", "character", 3, 0]
    assert [(row["teacher"], row["sentences"]) for row in report["rows"]] == [("cmn+f2", 2), ("cmn+f5", 2)]
    assert report["rows"][0]["errors"]["units"] == 12


def test_a_language_that_the_list_is_not_in_is_refused(server, tmp_path, monkeypatch, capsys):
    meta = seed_tts(tmp_path, "zh", "打开厨房的灯", lines=1)
    arguments = ["eval", "speech", "teacher", "-o", str(tmp_path / "out"), "--language", "en"]
    with pytest.raises(SystemExit):
        main([*arguments, "--data", f"seed-tts:{meta}", *judged(server, monkeypatch)])
    assert capsys.readouterr().err == f"InvalidRequest: --language en: {meta} is in zh\n"


@pytest.mark.parametrize(
    "arguments",
    [
        ["transcription", "-o", "out", "--sentences", "0"],
        ["speech", "teacher", "-o", "out", "--sentences", "0"],
        ["speech", "teacher", "-o", "out", "--tagged", "0"],
        ["speech", "teacher", "-o", "out", "--threads", "-1"],
    ],
)
def test_numbers_begin_at_one(arguments, capsys):
    with pytest.raises(SystemExit) as ended:
        main(["eval", *arguments])
    assert ended.value.code == 2
    assert "is not at least 1" in capsys.readouterr().err
