"""The shipped weights make a whole model folder, the same every time; missing or spoilt ones are named."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from stepaudio_runtime.checkpoints import layout
from stepaudio_runtime.checkpoints.nano import WEIGHTS, generate_nano
from stepaudio_runtime.checkpoints.voices import read_voices
from stepaudio_runtime.errors import ModelFileError
from stepaudio_runtime.pods.loading import verify_all
from tests.unit.checkpoints.test_nano import digests

MAX_BYTES = 60 << 20
"""Of all weights together in the repository."""


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("trained")
    generate_nano(folder)
    return folder


def test_it_is_whole_and_the_same_again(trained: Path, nano: Path, tmp_path: Path) -> None:
    assert len(list(verify_all(trained))) == 3
    of_random = {name for name in digests(nano) if "_prompt.wav" not in name}
    assert {name for name in digests(trained) if "_prompt.wav" not in name} == of_random
    assert [voice.name for voice in read_voices(trained / layout.TTS)] == ["Treble", "Alto"]
    generate_nano(tmp_path)
    assert digests(tmp_path) == digests(trained)


def test_the_weights_are_small() -> None:
    assert sum(path.stat().st_size for path in WEIGHTS.glob("*.safetensors")) < MAX_BYTES


@pytest.mark.parametrize("spoil", [Path.unlink, lambda path: path.write_bytes(path.read_bytes()[:-9])])
def test_weights_that_are_missing_or_cut_are_named(spoil, tmp_path: Path) -> None:
    weights = tmp_path / "weights"
    shutil.copytree(WEIGHTS, weights)
    spoil(weights / "tts.safetensors")
    with pytest.raises(ModelFileError, match=r"tts\.safetensors"):
        generate_nano(tmp_path / "nano", weights)
