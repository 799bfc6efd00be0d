"""The watermark: found in two seconds of marked speech behind every encoder that the gateway serves, in no
speech that is not marked; at least 25 dB below the speech; the same however the stream is cut.

Speech is espeak-ng's, of three voices; pieces begin anywhere.
"""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stepaudio_runtime.audio import watermark
from stepaudio_runtime.audio.encoding import Format, StreamEncoder
from stepaudio_runtime.audio.files import decode
from stepaudio_runtime.audio.tempo import Tempo
from stepaudio_runtime.audio.watermark import Marker, detect
from stepaudio_runtime.engine.espeak import Espeak
from stepaudio_runtime.engine.speech import SpeechRequest, Style

TEXT = (
    "the weather in the north will be cold and clear tomorrow with light wind from the east and some snow in "
    "the hills before noon and more of it at night"
)
RATE = 22_050
PIECE_S = 2.0


@pytest.fixture(scope="module")
def speech() -> list[np.ndarray]:
    """Three voices' waves at 22,050 Hz, about 8 s each."""
    requests = [
        SpeechRequest(text=TEXT, voice=voice, seed=1, style=Style("plain"))
        for voice in ("en-us+f2", "deep", "de")
    ]
    return [Espeak().speak(request).samples for request in requests]


def mark(wave: np.ndarray, rate: int = RATE) -> np.ndarray:
    marker = Marker(rate)
    return np.concatenate([marker.push(wave), marker.finish()])


def pieces(wave: np.ndarray) -> list[np.ndarray]:
    size = round(PIECE_S * RATE)
    return [wave[start : start + size] for start in range(1_234, len(wave) - size, size)]


def sent(wave: np.ndarray, to: Format) -> tuple[np.ndarray, int]:
    """What a client hears of a stream in this format."""
    encoder = StreamEncoder(RATE, to)
    file = encoder.push(wave) + encoder.finish()
    if to is Format.PCM:
        return np.frombuffer(file, "<i2").astype(np.float32) / 32_768, RATE
    heard = decode(file, max_seconds=60)
    return heard.samples, heard.rate


@pytest.mark.parametrize("to", Format)
def test_it_is_found_in_two_seconds_behind_every_encoder(speech, to):
    heard = [sent(piece, to) for wave in speech for piece in pieces(mark(wave))]
    assert len(heard) > 8
    assert [detect(*each).found for each in heard] == [True] * len(heard)


def test_it_is_not_found_where_it_is_not(speech):
    plain = [detect(piece, RATE).found for wave in speech for piece in pieces(wave)]
    rng = np.random.default_rng(0)
    others = [
        np.zeros(40_000),
        rng.standard_normal(40_000),
        np.sin(np.arange(40_000) * 0.1),
        np.sign(np.sin(np.arange(40_000) * 0.05)),
        np.eye(1, 40_000, 20_000)[0],
    ]
    odd = [detect(wave.astype(np.float32), RATE).found for wave in others]
    assert [*plain, *odd] == [False] * (len(plain) + len(odd))


def test_it_is_found_in_one_place_of_a_long_recording(speech):
    long = np.concatenate([*speech, mark(speech[0]), *speech])
    assert detect(long, RATE).found
    assert not detect(np.concatenate([*speech, *speech]), RATE).found


def test_it_is_quiet(speech):
    for wave in speech:
        below = 10 * np.log10(np.sum(wave**2) / np.sum((mark(wave) - wave) ** 2))
        assert 25 < below < 30


def test_there_is_none_in_silence():
    assert not mark(np.zeros(RATE, np.float32)).any()


def test_another_loudness_and_rate_keep_it_and_another_tempo_does_not(speech):
    marked = mark(speech[0])
    assert detect(marked * np.float32(0.01), RATE).found
    tempo = Tempo(1.25, RATE)
    assert not detect(np.concatenate([tempo.push(marked), tempo.finish()]), RATE).found


@given(
    st.integers(0, 3_000),
    st.lists(st.integers(0, 3_000), max_size=12),
    st.sampled_from([8_000, 22_050, 24_000]),
)
@settings(deadline=None, max_examples=40)
def test_any_cut_gives_the_same_samples(length, cuts, rate):
    wave = np.random.default_rng(length).standard_normal(length).astype(np.float32)
    marker = Marker(rate)
    parts = [marker.push(part) for part in np.split(wave, sorted(min(cut, length) for cut in cuts))]
    whole = mark(wave, rate)
    assert len(whole) == length
    assert np.array_equal(np.concatenate([*parts, marker.finish()]), whole)


def test_too_little_is_no_answer():
    assert watermark.detect(np.zeros(0, np.float32), RATE).found is False
