"""Waves in pieces give what the whole gives, whatever the pieces' lengths: rate, tempo, gain, every format.

Tempo keeps the pitch and changes the length; gain never passes full scale.
"""

import io
from itertools import pairwise

import av
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stepaudio_runtime.audio.encoding import Format, StreamEncoder, encoded_rate
from stepaudio_runtime.audio.loudness import amplify
from stepaudio_runtime.audio.streams import Chain, StreamResampler
from stepaudio_runtime.audio.tempo import Tempo

RATE = 22_050


def tone(seconds=1.0, hertz=220.0, rate=RATE):
    return (0.5 * np.sin(2 * np.pi * hertz * np.arange(round(seconds * rate)) / rate)).astype(np.float32)


def pieces(wave, cuts):
    edges = [0, *sorted({cut % (len(wave) + 1) for cut in cuts}), len(wave)]
    return [wave[a:b] for a, b in pairwise(edges)]


def through(stage, parts):
    return np.concatenate([*(stage.push(part) for part in parts), stage.finish()])


def pitch(wave, rate):
    spectrum = np.abs(np.fft.rfft(wave * np.hanning(len(wave))))
    return np.argmax(spectrum) * rate / len(wave)


CUTS = st.lists(st.integers(0, RATE), max_size=6)


@settings(max_examples=25, deadline=None)
@given(CUTS, st.sampled_from([16_000, 22_050, 24_000, 48_000]))
def test_a_resampled_stream_does_not_depend_on_its_pieces(cuts, to_rate):
    whole = through(StreamResampler(RATE, to_rate), [tone()])
    assert len(whole) == pytest.approx(to_rate, abs=1)
    # soxr works on blocks: the rounding, and nothing else, depends on where they begin.
    np.testing.assert_allclose(
        through(StreamResampler(RATE, to_rate), pieces(tone(), cuts)), whole, atol=1e-5
    )


@settings(max_examples=15, deadline=None)
@given(CUTS, st.floats(0.25, 4))
def test_a_stretched_stream_does_not_depend_on_its_pieces(cuts, speed):
    np.testing.assert_array_equal(
        through(Tempo(speed, RATE), pieces(tone(), cuts)), through(Tempo(speed, RATE), [tone()])
    )


@pytest.mark.parametrize("speed", [0.25, 0.4, 0.5, 0.8, 1.1, 1.5, 2, 3, 4])
@pytest.mark.parametrize("hertz", [110.0, 220.0])
def test_tempo_changes_the_length_and_keeps_the_pitch(speed, hertz):
    wave = through(Tempo(speed, RATE), [tone(3, hertz)])
    assert len(wave) / RATE == pytest.approx(3 / speed, abs=1e-4)
    assert pitch(wave, RATE) == pytest.approx(hertz, rel=0.01)
    # No clicks: the second difference stays near the tone's own.
    own = np.abs(np.diff(tone(1, hertz), 2)).max()
    assert np.percentile(np.abs(np.diff(wave, 2)), 99.9) < 2 * own


@pytest.mark.parametrize("speed", [0.2, 4.1, float("nan")])
def test_tempo_refuses_what_it_cannot_do(speed):
    with pytest.raises(ValueError, match="speed"):
        Tempo(speed, RATE)


def test_empty_streams_end_empty():
    for stage in (Tempo(2, RATE), StreamResampler(RATE, 48_000), Chain([Tempo(0.5, RATE)])):
        assert len(through(stage, [np.zeros(0, np.float32)])) == 0


@given(st.floats(0, 4), st.lists(st.floats(-1, 1, width=32), min_size=1, max_size=50))
def test_gain_keeps_order_and_sign_and_stays_in_range(gain, values):
    wave = np.sort(np.array(values, np.float32))
    louder = amplify(wave, gain)
    assert louder.dtype == np.float32
    assert np.abs(louder).max() <= 1
    assert (np.diff(louder) >= 0).all()
    quiet = np.abs(wave * np.float32(gain)) <= 0.8
    np.testing.assert_array_equal(louder[quiet], (wave * np.float32(gain))[quiet])


def file_in_pieces(to, parts):
    encoder = StreamEncoder(RATE, to)
    return b"".join([*(encoder.push(part) for part in parts), encoder.finish()])


@pytest.mark.parametrize("to", list(Format))
@settings(max_examples=8, deadline=None)
@given(CUTS)
def test_a_streamed_file_is_decoded_to_the_same_sound_whatever_its_pieces(to, cuts):
    data = file_in_pieces(to, pieces(tone(), cuts))
    rate = encoded_rate(RATE, to)
    if to is Format.PCM:
        wave = np.frombuffer(data, "<i2") / 32768
    else:
        with av.open(io.BytesIO(data)) as file:
            assert file.streams.audio[0].rate == rate
            planar = av.AudioResampler(format="flt", layout="mono", rate=rate)
            frames = [part for frame in file.decode(audio=0) for part in planar.resample(frame)]
            wave = np.concatenate([frame.to_ndarray().reshape(-1) for frame in frames])
    assert len(wave) / rate == pytest.approx(1, abs=0.1 if to in (Format.MP3, Format.AAC) else 0.001)
    assert pitch(wave, rate) == pytest.approx(220, rel=0.01)
    assert np.sqrt(np.mean(wave[rate // 4 : rate * 3 // 4] ** 2)) == pytest.approx(0.354, rel=0.08)


@pytest.mark.parametrize("to", list(Format))
def test_a_streamed_file_comes_while_the_wave_is_made(to):
    encoder = StreamEncoder(RATE, to)
    sizes = [len(encoder.push(part)) for part in np.split(tone(2), 20)]
    assert sum(sizes[:4]) > 0, "nothing within 0.4 s"
    assert sum(size > 0 for size in sizes[4:]) >= 15
