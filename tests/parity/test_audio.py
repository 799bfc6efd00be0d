"""The audio functions give the reference's numbers: resampling, level, trimming, mels and filter banks."""

import numpy as np
import pytest

from stepaudio_runtime.audio.fbank import fbank, speaker_features
from stepaudio_runtime.audio.loudness import normalise_peak, trim
from stepaudio_runtime.audio.mel import (
    PROMPT_FFT,
    PROMPT_MELS,
    PROMPT_RATE,
    WHISPER_FFT,
    WHISPER_MELS,
    WHISPER_RATE,
    prompt_mel,
    slaney_filters,
    whisper_mel,
)
from stepaudio_runtime.audio.resample import resample, resampled_length
from stepaudio_runtime.codec.repetition import forbid_repetition


@pytest.mark.cases("audio_utils", r"resample\.[^.]+")
def test_resampling_equals_the_windowed_sinc_of_the_reference(case, close):
    rate, to_rate = case["rates"].tolist()
    out = resample(case["in"].numpy(), rate, to_rate)
    close(out, case["out"], 5e-6, f"{rate} to {to_rate} Hz")
    assert len(out) == resampled_length(len(case["in"]), rate, to_rate)


@pytest.mark.cases("audio_utils", r"trim\.[^.]+")
def test_trimming_keeps_the_same_samples(case):
    np.testing.assert_array_equal(trim(case["in"].numpy()), case["out"].numpy())


@pytest.mark.cases("audio_utils", r"energy\.[^.]+")
def test_peak_normalisation_is_equal_to_the_bit(case):
    np.testing.assert_array_equal(normalise_peak(case["in"].numpy()), case["out"].numpy())


@pytest.mark.cases("audio_utils", r"repetition\.[^.]+")
def test_the_repetition_rule_forbids_the_same_ids(case):
    scores = case["scores"].numpy()
    np.testing.assert_array_equal(forbid_repetition(case["ids"].numpy(), scores), case["out"].numpy())
    np.testing.assert_array_equal(scores, case["scores"].numpy())


@pytest.mark.cases("mel22k", r"[^.]+(?=\.in\.|\.out\.)")
def test_prompt_mel(case, close):
    close(prompt_mel(case["in.wave"].numpy()[0])[None], case["out.mel"], 2e-4, "mel")


@pytest.mark.cases("whisper_mel", r"[^.]+(?=\.in\.|\.out\.)")
def test_log_mel_of_the_semantic_tokenizer(case, close):
    close(whisper_mel(case["in.wave"].numpy()), case["out.mel"], 3e-4, "mel")


@pytest.mark.parametrize(
    ("stem", "rate", "n_fft", "n_mels"),
    [
        ("mel22k", PROMPT_RATE, PROMPT_FFT, PROMPT_MELS),
        ("whisper_mel", WHISPER_RATE, WHISPER_FFT, WHISPER_MELS),
    ],
)
def test_mel_filters(golden, close, stem, rate, n_fft, n_mels):
    close(slaney_filters(rate, n_fft, n_mels), golden.tensors(stem)["filterbank"], 1e-6, "filters")


def test_nothing_in_the_file_of_audio_functions_goes_uncompared(golden):
    kinds = {name.partition(".")[0] for name in golden.tensors("audio_utils")}
    assert kinds == {"resample", "trim", "energy", "repetition"}


@pytest.mark.cases("spk_fbank", r"[^.]+(?=\.in\.|\.out\.)")
def test_filter_bank_of_the_speaker_embedding(case, close):
    wave = case["in.wave"].numpy()[0]
    close(fbank(wave, "povey"), case["out.fbank"], 3e-3, "fbank")
    close(speaker_features(wave), case["out.feat"], 3e-3, "feat")
