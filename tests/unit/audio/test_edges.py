"""Waves at the edge have defined results: empty, one sample, a window less one, silence, very quiet."""

import numpy as np
import pytest

from stepaudio_runtime.audio.fbank import fbank, frame_count, speaker_features
from stepaudio_runtime.audio.frontend import Cmvn, OnlineFrontend, offline_features, parse_cmvn
from stepaudio_runtime.audio.loudness import normalise_peak, trim
from stepaudio_runtime.audio.mel import PROMPT_MIN_SAMPLES, WHISPER_MIN_SAMPLES, prompt_mel, whisper_mel
from stepaudio_runtime.errors import AudioError

CMVN = Cmvn(np.zeros(560, np.float32), np.ones(560, np.float32))
LENGTHS = [0, 1, 239, 399, 400, 559, 560, 880, 4_000]


def waves(samples):
    noise = np.random.default_rng(samples).normal(0, 1, samples).astype(np.float32)
    return {"silent": noise * 0, "quiet": noise * np.float32(1e-7), "loud": noise.clip(-1, 1)}


@pytest.mark.parametrize("kind", ["silent", "quiet", "loud"])
@pytest.mark.parametrize("samples", LENGTHS)
def test_features_of_short_and_quiet_waves(samples, kind):
    wave = waves(samples)[kind]
    frames = frame_count(samples)
    found = {
        "povey": fbank(wave, "povey"),
        "hamming": fbank(wave, "hamming"),
        "speaker": speaker_features(wave),
        "offline": offline_features(wave, CMVN),
        "online": OnlineFrontend(CMVN).push(wave, last=True),
        "level": normalise_peak(wave),
        "trimmed": trim(wave),
    }
    assert {name: values.shape for name, values in found.items() if name not in ("online", "trimmed")} == {
        "povey": (frames, 80),
        "hamming": (frames, 80),
        "speaker": (frames, 80),
        "offline": (-(-frames // 6), 560),
        "level": (samples,),
    }
    assert all(np.isfinite(values).all() for values in found.values())
    assert np.abs(found["level"]).max(initial=0) <= 0.999


@pytest.mark.parametrize(
    ("mel", "least"), [(prompt_mel, PROMPT_MIN_SAMPLES), (whisper_mel, WHISPER_MIN_SAMPLES)]
)
def test_mels_say_when_a_wave_is_too_short(mel, least):
    assert np.isfinite(mel(np.zeros(least, np.float32))).all()
    for samples in (0, 1, least - 1):
        with pytest.raises(AudioError):
            mel(np.zeros(samples, np.float32))


def test_silence_counts_as_speech_and_is_kept():
    assert len(trim(np.zeros(2_400, np.float32))) == 2_400 + 4_320


@pytest.mark.parametrize(
    ("quiet_db", "start"),
    [
        (-18.5, 128),  # the frame at 0 is half padding, zeros: 3 dB lower
        (-19.9, 256),
        (-20.1, 3_840),  # the first frame that reaches into the loud part
    ],
)
def test_speech_starts_with_the_first_frame_within_20_db_of_the_loudest(quiet_db, start):
    quiet = np.full(4_000, 10 ** (quiet_db / 20), np.float32)
    found = trim(np.concatenate([quiet, np.ones(4_000, np.float32)]))
    begin = start - 800  # 50 ms are kept
    assert np.flatnonzero(found)[0] == max(0, -begin)
    assert np.flatnonzero(found == 1)[0] == 4_000 - begin


def test_quiet_waves_are_raised_as_if_they_peaked_at_a_hundredth():
    np.testing.assert_allclose(
        normalise_peak(np.array([0.001, -0.005], np.float32)), [0.0999, -0.4995], rtol=1e-6
    )


def test_a_stream_refuses_samples_after_its_end():
    frontend = OnlineFrontend(CMVN)
    frontend.push(np.zeros(100, np.float32), last=True)
    with pytest.raises(ValueError, match="after the last"):
        frontend.push(np.zeros(100, np.float32), last=True)


def test_a_damaged_cmvn_file_says_what_is_wrong():
    with pytest.raises(ValueError, match="AddShift"):
        parse_cmvn("")
    short = "<Nnet>\n<AddShift> 2 2\n<LearnRateCoef> 0 [ 1 2 ]\n<Rescale> 2 2\n<LearnRateCoef> 0 [ 1 2 ]\n"
    with pytest.raises(ValueError, match="560"):
        parse_cmvn(short)
