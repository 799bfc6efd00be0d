"""However a stream is cut, its ids are those of the whole wave: at the same gain, in the same windows."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stepaudio_runtime.audio.loudness import normalise_peak
from stepaudio_runtime.audio.resample import Resampler, resample
from stepaudio_runtime.tokenizer.dual import preprocess
from stepaudio_runtime.tokenizer.stream import Level, Stream
from stepaudio_runtime.tokenizer.windows import WindowCutter, Windows, whole, windowed

RATES = st.sampled_from([8_000, 11_025, 16_000, 22_050, 24_000, 44_100, 48_000, 96_000, 192_000])
cuts = st.lists(st.integers(0, 12_000), min_size=1, max_size=8)
windows = st.builds(
    lambda hop, more: Windows(640 * (hop + more), 640 * hop), st.integers(6, 20), st.integers(0, 30)
)


def noise(samples, seed=0):
    return np.random.default_rng(seed).normal(0, 0.1, samples).astype(np.float32)


def split(wave, sizes):
    return np.split(wave, np.cumsum(sizes)[:-1])


@given(rate=RATES | st.integers(8_000, 192_000), to_rate=RATES, sizes=cuts, seed=st.integers(0, 99))
@settings(deadline=None, max_examples=60)
def test_a_stream_is_resampled_as_its_whole_wave(rate, to_rate, sizes, seed):
    wave, resampler = noise(sum(sizes), seed), Resampler(rate, to_rate)
    found = [resampler.push(part, last=i == len(sizes) - 1) for i, part in enumerate(split(wave, sizes))]
    np.testing.assert_array_equal(np.concatenate(found), resample(wave, rate, to_rate))


def test_a_resampler_lags_by_its_reach_only():
    resampler, given = Resampler(48_000, 16_000), 0
    for pushed in range(1, 100):
        given += len(resampler.push(noise(480), last=False))
        assert pushed * 160 - given <= 7  # 19 samples at 48 kHz


@given(sizes=cuts, windows=windows, seed=st.integers(0, 99))
@settings(deadline=None, max_examples=60)
def test_windows_do_not_depend_on_the_cut_and_every_id_is_new_once(sizes, windows, seed):
    wave, cutter = noise(sum(sizes), seed), WindowCutter(windows)
    found = [
        piece
        for i, part in enumerate(split(wave, sizes))
        for piece in cutter.push(part, last=i == len(sizes) - 1)
    ]
    expected = windowed(wave, windows)
    assert [(piece.skip, len(piece.wave)) for piece in found] == [
        (piece.skip, len(piece.wave)) for piece in expected
    ]
    for piece, other in zip(found, expected, strict=True):
        np.testing.assert_array_equal(piece.wave, other.wave)
    assert all(len(piece.wave) <= windows.length for piece in found)
    # Together they end where the wave ends, and what is new in each begins where the one before ended.
    end = 0
    for number, piece in enumerate(found):
        start = windows.start(number)
        assert start + piece.skip * 640 == end
        np.testing.assert_array_equal(piece.wave, wave[start : start + len(piece.wave)])
        end = start + len(piece.wave)
    assert end == len(wave) or len(wave) - windows.start(len(found)) < 480


@given(rate=RATES, sizes=cuts, gain=st.sampled_from([0.25, 1.0, 7.5]) | st.none(), windows=windows)
@settings(deadline=None, max_examples=30)
def test_a_stream_gives_the_ids_of_its_whole_wave(dual, rate, sizes, gain, windows):
    wave = noise(sum(sizes))
    stream, linguistic, semantic = Stream(dual, rate, gain, windows), [], []
    for number, part in enumerate(split(wave, sizes)):
        [found] = dual.run([stream.push(part, last=number == len(sizes) - 1)])
        stream.advance(found)
        linguistic += found.linguistic.ids.tolist()
        semantic += found.semantic.ids.tolist()
    used = stream.level.gain
    assert used is not None
    heard = preprocess(wave, rate, gain=used)
    offline = dual.encode(wave, rate, gain=used)
    assert linguistic == offline.linguistic.ids.tolist()
    pieces = windowed(heard, windows)
    covered = windows.start(len(pieces) - 1) + len(pieces[-1].wave) if pieces else 0
    # A last piece of under 30 ms is dropped, and with it the id that the whole file has for it.
    assert len(offline.semantic) - len(semantic) in ((0,) if covered == len(heard) else (0, 1))
    parts = dual.semantic.batch([piece.wave for piece in pieces]) if pieces else []
    assert semantic == [
        id_ for ids, piece in zip(parts, pieces, strict=True) for id_ in ids.ids[piece.skip :].tolist()
    ]


def test_one_window_as_long_as_the_wave_gives_the_ids_of_the_whole_file():
    wave = noise(48_000)
    [piece], [other] = windowed(wave, Windows(48_000, 48_000)), whole(wave)
    assert piece.skip == 0
    np.testing.assert_array_equal(piece.wave, other.wave)


@given(sizes=cuts, seed=st.integers(0, 99))
@settings(deadline=None, max_examples=30)
def test_the_gain_is_estimated_once_whatever_the_cut(sizes, seed):
    wave, level = noise(sum(sizes) + 1, seed), Level(None)
    sizes = [*sizes, 1]
    parts = [level.push(part, last=i == len(sizes) - 1) for i, part in enumerate(split(wave, sizes))]
    peak = max(float(np.abs(wave[:16_000]).max()), 0.01)
    assert level.gain == pytest.approx(0.999 / peak, rel=1e-6)
    np.testing.assert_array_equal(np.concatenate(parts), wave * np.float32(level.gain))
    if len(wave) <= 16_000:
        np.testing.assert_allclose(np.concatenate(parts), normalise_peak(wave), atol=1e-6)


@pytest.mark.parametrize(
    ("length", "hop"), [(640, 1280), (1000, 640), (640, 0), (640 * 751, 640), (1280, 700)]
)
def test_windows_off_the_grid_are_refused(length, hop):
    with pytest.raises(ValueError, match="windows of"):
        Windows(length, hop)
