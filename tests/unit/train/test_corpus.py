"""A corpus's waves as the stages hear them; a file that is not there, or is another, is named."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import soundfile

from stepaudio_runtime.errors import InputError
from stepaudio_runtime.train.corpus import Utterance, speech

TONE = np.sin(np.arange(22_050) / 9).astype(np.float32) / 2


def utterance(audio: Path) -> Utterance:
    return Utterance(audio, "hello", "Anna", "", "train")


def test_the_words_keep_a_little_silence_and_of_channels_the_mean_is_taken(tmp_path: Path) -> None:
    quiet = np.zeros(22_050, np.float32)
    one = np.concatenate([quiet, TONE, quiet])
    soundfile.write(tmp_path / "one.wav", one, 22_050)
    soundfile.write(tmp_path / "two.wav", np.stack([one, one], axis=1), 22_050)
    mono, stereo = (speech(utterance(tmp_path / f"{name}.wav")) for name in ("one", "two"))
    assert len(mono) == pytest.approx(1.2 * 22_050, abs=5)
    assert np.array_equal(mono, stereo)


@pytest.mark.parametrize(
    ("content", "words"), [(None, "cannot be read"), (b"", "empty"), (b"RIFF and no more", "not audio")]
)
def test_a_wave_that_is_none_is_named(content: bytes | None, words: str, tmp_path: Path) -> None:
    path = tmp_path / "a.wav"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(InputError, match=rf"a\.wav.*{words}"):
        speech(utterance(path))


@pytest.mark.parametrize(
    ("samples", "rate", "words"), [(TONE, 16_000, "16000 Hz"), (TONE * 0, 22_050, "silent")]
)
def test_a_wave_that_is_not_as_it_should_be_is_named(
    samples: np.ndarray, rate: int, words: str, tmp_path: Path
) -> None:
    soundfile.write(tmp_path / "a.wav", samples, rate)
    with pytest.raises(InputError, match=rf"a\.wav.*{words}"):
        speech(utterance(tmp_path / "a.wav"))
