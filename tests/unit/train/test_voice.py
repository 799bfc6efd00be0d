"""A new voice from recordings: the loss falls, whole or by low-rank changes; what comes out is a model folder
that holds the new voice and the old ones; what cannot be learnt from is named."""

from __future__ import annotations

import io
import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from stepaudio_runtime.audio.encoding import Format, encode
from stepaudio_runtime.checkpoints import layout
from stepaudio_runtime.checkpoints.lm import read_lm
from stepaudio_runtime.checkpoints.nano import generate_random_nano
from stepaudio_runtime.checkpoints.voices import read_voices
from stepaudio_runtime.engine.espeak import Espeak
from stepaudio_runtime.engine.speech import SpeechRequest
from stepaudio_runtime.errors import InputError
from stepaudio_runtime.pods.loading import verify_all
from stepaudio_runtime.train.voice import VoiceJob, add_voice, read_recordings, typical

TEXTS = ["turn on the light", "what is four plus nine", "say three green one", "it is two o'clock"]
STEPS = 5


@pytest.fixture(scope="module")
def models(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("nano")
    generate_random_nano(folder)
    torch.set_num_threads(1)
    return folder


@pytest.fixture(scope="module")
def recordings(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("recordings")
    for number, text in enumerate(TEXTS):
        wave = Espeak().speak(SpeechRequest(text, "en-us+m3"))
        (folder / f"{number}.wav").write_bytes(encode(wave.samples, wave.rate, Format.WAV))
        (folder / f"{number}.txt").write_text(text + "\n")
    return folder


def losses(log: io.StringIO) -> list[float]:
    return [json.loads(line)["total"] for line in log.getvalue().splitlines()]


@pytest.mark.parametrize("full", [True, False])
def test_the_folder_speaks_one_voice_more(full, models, recordings, tmp_path):
    log, out = io.StringIO(), tmp_path / "out"
    add_voice(VoiceJob(recordings, "Anna", models, out, full=full, steps=STEPS, log=log))
    means = losses(log)
    assert means[-1] < 0.9 * means[0]
    old, new = read_voices(models / layout.TTS), read_voices(out / layout.TTS)
    assert [voice.name for voice in new] == [*(voice.name for voice in old), "Anna"]
    assert (new[-1].transcript, new[-1].wav.parent) == (
        typical(read_recordings(recordings)).text,
        out / layout.TTS / layout.SPEAKERS,
    )
    before, after = ({k: v for f in read_lm(m / layout.TTS).files for k, v in load_file(f).items()}
                     for m in (models, out))  # fmt: skip
    assert {k: (v.shape, v.dtype) for k, v in after.items()} == {
        k: (v.shape, v.dtype) for k, v in before.items()
    }
    layer, embedding = "model.layers.0.mlp.up_proj.weight", "model.embed_tokens.weight"
    assert not torch.equal(before[layer], after[layer])
    assert torch.equal(before[embedding], after[embedding]) is not full
    assert [path.name for path in tmp_path.iterdir()] == ["out"], "nothing is left beside it"
    assert any("Anna" in line for line in verify_all(out))


def test_killed_when_it_had_learnt_it_goes_on_by_the_same_command(models, recordings, tmp_path):
    log = io.StringIO()
    job = VoiceJob(recordings, "Anna", models, tmp_path / "out", steps=2, log=log)
    # Where the folder should come is a file: the copy fails after the last step, as a kill would end it.
    in_the_way = tmp_path / "out.part"
    in_the_way.write_text("")
    with pytest.raises(FileExistsError):
        add_voice(job)
    in_the_way.unlink()
    *_, last = losses(log)
    assert add_voice(job) == pytest.approx(last, abs=1e-4)
    assert losses(log)[-1] == last, "nothing is learnt again"
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_what_cannot_be_learnt_from_is_named(models, recordings, tmp_path):
    job = VoiceJob(recordings, "Anna", models, tmp_path / "out")
    for change, words in (
        ({"name": "../Anna"}, "no name"),
        ({"name": "Treble"}, "a voice Treble already"),
        ({"out": recordings}, "exists"),
        ({"recordings": tmp_path}, "0 recordings"),
    ):
        with pytest.raises(InputError, match=words):
            add_voice(VoiceJob(**{**vars(job), **change}))
    silent = tmp_path / "silent"
    silent.mkdir()
    (silent / "a.wav").write_bytes((recordings / "0.wav").read_bytes())
    with pytest.raises(InputError, match=r"a\.txt"):
        read_recordings(silent)
