"""Folders of LibriSpeech, Aishell-1 and SEED-TTS are read as they are published; what is missing is named."""

from pathlib import Path

import numpy as np
import pytest
import soundfile

from stepaudio_runtime.errors import InputError
from stepaudio_runtime.evaluate.recordings import Prompted, Recording, aishell, draw, librispeech, seed_tts


def sound(path: Path, seconds: float = 0.5) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, np.full(int(16_000 * seconds), 0.1, np.float32), 16_000)
    return path


def test_librispeech(tmp_path):
    chapter = tmp_path / "LibriSpeech/test-clean/1089/134686"
    first, second = (sound(chapter / f"1089-134686-000{n}.flac") for n in (0, 1))
    text = "1089-134686-0000 HE HOPED THERE WOULD BE STEW\n1089-134686-0001 STUFF IT INTO YOU\n"
    (chapter / "1089-134686.trans.txt").write_text(text)
    found = librispeech(tmp_path)
    assert found == [
        Recording("1089-134686-0000", "HE HOPED THERE WOULD BE STEW", "en", first),
        Recording("1089-134686-0001", "STUFF IT INTO YOU", "en", second),
    ]
    assert (found[0].wave().rate, found[0].wave().duration_s) == (16_000, 0.5)
    second.unlink()
    with pytest.raises(InputError, match=second.name):
        librispeech(tmp_path)


def test_aishell_leaves_out_waves_without_words_and_other_splits(tmp_path):
    wave = sound(tmp_path / "wav/test/S0764/BAC009S0764W0121.wav")
    sound(tmp_path / "wav/test/S0764/BAC009S0764W0122.wav")
    sound(tmp_path / "wav/train/S0002/BAC009S0002W0122.wav")
    (tmp_path / "transcript").mkdir()
    text = "BAC009S0764W0121 甚至 出现 交易 几乎 停滞 的 情况\nBAC009S0002W0122 而 对 楼市\n"
    (tmp_path / "transcript/aishell_transcript_v0.8.txt").write_text(text, "utf-8")
    assert aishell(tmp_path) == [
        Recording("BAC009S0764W0121", "甚至 出现 交易 几乎 停滞 的 情况", "zh", wave)
    ]


def test_seed_tts(tmp_path):
    prompt = sound(tmp_path / "en/prompt-wavs/common_voice_en_1.wav")
    line = "common_voice_en_1-common_voice_en_2|We asked twenty people.|prompt-wavs/common_voice_en_1.wav"
    meta = tmp_path / "en/meta.lst"
    meta.write_text(f"{line}|Get the trust fund early.\n{line}|And again.|wavs/common_voice_en_2.wav\n")
    key = "common_voice_en_1-common_voice_en_2"
    said = Recording(key, "We asked twenty people.", "en", prompt)
    assert seed_tts(meta) == [
        Prompted(key, "Get the trust fund early.", "en", said),
        Prompted(key, "And again.", "en", said),
    ]
    meta.write_text("one|two\n")
    with pytest.raises(InputError, match="line 1"):
        seed_tts(meta)


def test_the_language_of_a_list_is_its_folder_s_and_no_other_is_guessed(tmp_path):
    for name in ("zh", "hard"):
        sound(tmp_path / name / "a.wav")
        (tmp_path / name / "meta.lst").write_text("1|你好。|a.wav|今天天气好。\n", "utf-8")
    assert [line.language for line in seed_tts(tmp_path / "zh/meta.lst")] == ["zh"]
    with pytest.raises(InputError, match="'hard' is none of en and zh; keep the list"):
        seed_tts(tmp_path / "hard/meta.lst")


def test_a_set_is_drawn_from_by_its_seed_and_over_all_of_it():
    speakers = [f"{speaker}-{number:02d}" for speaker in "abcde" for number in range(40)]
    drawn = draw(speakers, 100, seed=0)
    assert drawn == sorted(set(drawn)) and len(drawn) == 100
    assert {each[0] for each in drawn} == set("abcde")
    assert draw(speakers, 100, seed=0) == drawn != draw(speakers, 100, seed=1)
    assert draw(speakers, 1000, seed=0) == speakers


@pytest.mark.parametrize("reader", [librispeech, aishell])
def test_an_empty_folder_is_an_error(reader, tmp_path):
    with pytest.raises(InputError, match="holds no"):
        reader(tmp_path)
