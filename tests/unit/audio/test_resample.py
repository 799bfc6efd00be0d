"""Resampling: lengths, tones, bounds of memory for odd rates, and its edges; no stored vectors needed."""

from math import ceil, gcd

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stepaudio_runtime.audio import resample as module
from stepaudio_runtime.audio.resample import resample, resampled_length
from stepaudio_runtime.errors import AudioError

rates = st.integers(8_000, 192_000) | st.sampled_from(
    [8_000, 16_000, 22_050, 24_000, 44_100, 48_000, 192_000]
)


def direct(wave, rate, to_rate):
    """The definition, one output at a time in float64: a Hann-windowed sinc around the output's position."""
    old, new = rate // gcd(rate, to_rate), to_rate // gcd(rate, to_rate)
    cutoff = 0.99 * min(1.0, new / old)
    out = np.zeros(ceil(len(wave) * new / old))
    for n in range(len(out)):
        t = (np.arange(len(wave)) - n * old / new) * cutoff
        near = np.abs(t) < 6
        window = np.cos(t[near] * np.pi / 12) ** 2
        out[n] = (wave[near] * np.sinc(t[near]) * window).sum() * cutoff
    return out


@given(rate=rates, to_rate=rates, samples=st.integers(0, 60), seed=st.integers(0, 99))
@settings(deadline=None, max_examples=25)
def test_it_is_the_windowed_sinc(rate, to_rate, samples, seed):
    wave = np.random.default_rng(seed).uniform(-1, 1, samples).astype(np.float32)
    found = resample(wave, rate, to_rate)
    assert found.dtype == np.float32
    assert len(found) == resampled_length(samples, rate, to_rate) == ceil(samples * to_rate / rate)
    if rate != to_rate:
        np.testing.assert_allclose(found, direct(wave, rate, to_rate), atol=2e-6)


@pytest.mark.parametrize(
    ("rate", "to_rate"), [(44_100, 16_000), (8_000, 16_000), (192_000, 16_000), (44_099, 16_000)]
)
def test_a_tone_stays_and_what_lies_above_the_new_limit_goes(rate, to_rate):
    time = np.arange(rate) / rate
    kept = np.sin(2 * np.pi * 1_000 * time).astype(np.float32)
    found = resample(kept, rate, to_rate)[500:-500]
    expected = np.sin(2 * np.pi * 1_000 * np.arange(to_rate) / to_rate)[500:-500]
    np.testing.assert_allclose(found, expected, atol=5e-3)
    if rate > 2 * to_rate:
        gone = np.sin(2 * np.pi * 15_000 * time).astype(np.float32)
        assert np.abs(resample(gone, rate, to_rate)[500:-500]).max() < 1e-2


def test_blocks_do_not_show(monkeypatch):
    wave = np.random.default_rng(0).uniform(-1, 1, 20_000).astype(np.float32)
    whole = resample(wave, 44_100, 16_000)
    monkeypatch.setattr(module, "_BLOCK_VALUES", 1_000)
    np.testing.assert_array_equal(resample(wave, 44_100, 16_000), whole)


def test_equal_rates_change_nothing():
    wave = np.random.default_rng(0).uniform(-1, 1, 100).astype(np.float32)
    np.testing.assert_array_equal(resample(wave, 16_000, 16_000), wave)


@pytest.mark.parametrize(("rate", "to_rate"), [(0, 16_000), (16_000, 0), (-8_000, 16_000)])
def test_rates_that_are_none_are_refused(rate, to_rate):
    with pytest.raises(AudioError):
        resample(np.zeros(10, np.float32), rate, to_rate)
