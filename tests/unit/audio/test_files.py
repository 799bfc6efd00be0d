"""Audio files of strangers: every common format is decoded, everything else is an AudioError saying why."""

import resource
import struct
import time
from io import BytesIO

import av
import numpy as np
import pytest
import soundfile
from hypothesis import given, settings
from hypothesis import strategies as st

from stepaudio_runtime.audio.encoding import Format, StreamEncoder, encode
from stepaudio_runtime.audio.files import MAX_CHANNELS, decode
from stepaudio_runtime.audio.wave import to_pcm16
from stepaudio_runtime.errors import AudioError
from stepaudio_runtime.pods.sound_file import read_mono

SECONDS = 0.5


def tone(rate, hz=440.0, seconds=SECONDS):
    return (0.5 * np.sin(2 * np.pi * hz * np.arange(int(rate * seconds)) / rate)).astype(np.float32)


def wav(samples, rate, subtype="FLOAT"):
    out = BytesIO()
    soundfile.write(out, samples, rate, format="WAV", subtype=subtype)
    return out.getvalue()


def in_container(name, codec, rate=48_000, layout="stereo"):
    out = BytesIO()
    with av.open(out, mode="w", format=name) as container:
        stream = container.add_stream(codec, rate=rate, layout=layout)
        channels = 1 if layout == "mono" else 2
        interleaved = np.repeat(to_pcm16(tone(rate)), channels)[None]
        frame = av.AudioFrame.from_ndarray(interleaved, format="s16", layout=layout)
        frame.sample_rate, frame.pts = rate, 0
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return out.getvalue()


def loudest_hz(samples, rate):
    spectrum = np.abs(np.fft.rfft(samples * np.hanning(len(samples))))
    return spectrum.argmax() * rate / len(samples)


def refusal(data, **bounds):
    with pytest.raises(AudioError) as caught:
        decode(data, **{"max_seconds": 30.0, **bounds})
    return caught.value.code


@pytest.mark.parametrize("rate", [8_000, 11_025, 16_000, 22_050, 44_100, 48_000, 96_000, 192_000])
def test_float_wave_files_come_back_to_the_bit(rate):
    wave = decode(wav(tone(rate), rate), max_seconds=1.0)
    assert wave.rate == rate
    assert wave.duration_s == pytest.approx(SECONDS, abs=1 / rate)
    np.testing.assert_array_equal(wave.samples, tone(rate))


@pytest.mark.parametrize("subtype", ["PCM_U8", "PCM_16", "PCM_24", "PCM_32", "DOUBLE", "ULAW"])
def test_every_sample_width(subtype):
    wave = decode(wav(tone(16_000), 16_000, subtype), max_seconds=1.0)
    np.testing.assert_allclose(wave.samples, tone(16_000), atol=0.02)


def test_channels_are_averaged():
    left, right = tone(16_000), np.zeros_like(tone(16_000))
    wave = decode(wav(np.stack([left, right], axis=1), 16_000), max_seconds=1.0)
    np.testing.assert_allclose(wave.samples, left / 2, atol=1e-7)


@pytest.mark.parametrize("to", [each for each in Format if each is not Format.PCM])
@pytest.mark.parametrize("rate", [22_050, 24_000])
def test_every_format_that_is_written_is_read(to, rate):
    wave = decode(encode(tone(rate), rate, to), max_seconds=1.0)
    assert wave.rate == (48_000 if to is Format.OPUS else rate)
    assert wave.duration_s == pytest.approx(SECONDS, abs=0.12)  # codecs pad to whole frames
    assert loudest_hz(wave.samples, wave.rate) == pytest.approx(440, abs=4)


def test_odd_rates_are_resampled_for_codecs_that_do_not_know_them():
    wave = decode(encode(tone(96_000), 96_000, Format.MP3), max_seconds=1.0)
    assert wave.rate == 48_000
    assert loudest_hz(wave.samples, wave.rate) == pytest.approx(440, abs=4)


@pytest.mark.parametrize(("container", "codec"), [("webm", "libopus"), ("mp4", "aac"), ("adts", "aac")])
@pytest.mark.parametrize("layout", ["mono", "stereo"])
def test_what_browsers_and_phones_record(container, codec, layout):
    wave = decode(in_container(container, codec, layout=layout), max_seconds=1.0)
    assert wave.rate == 48_000
    assert loudest_hz(wave.samples, wave.rate) == pytest.approx(440, abs=4)
    assert 0.4 < np.abs(wave.samples).max() < 0.6


def test_raw_samples_are_little_endian_and_clipped():
    wave = np.array([0, 0.5, 1, 2, -2], np.float32)
    expected = bytes.fromhex("0000 0040 ff7f ff7f 0180")
    assert encode(wave, 24_000, Format.PCM) == to_pcm16(wave).tobytes() == expected


@pytest.mark.parametrize(
    "data",
    [
        b"\0",
        b"RIFF",
        b"hello, this is text and not audio at all" * 50,
        bytes(range(256)) * 40,
        b"\x89PNG\r\n\x1a\n" + b"\0" * 200,
        b"ID3\x04" + b"\0" * 300,
        b"\x1aE\xdf\xa3" + b"\0" * 300,
        b"\0\0\0\x18ftypmp42" + b"\0" * 100,
        wav(tone(16_000), 16_000)[:20],
    ],
)
def test_what_is_not_audio_is_refused(data):
    assert refusal(data) == "invalid_audio"


def test_a_codec_that_nobody_knows_is_refused():
    data = bytearray(wav(tone(16_000), 16_000, "PCM_16"))
    data[20:22] = b"\x34\x12"  # the format tag
    assert refusal(bytes(data)) == "invalid_audio"


def test_playlists_are_not_followed(tmp_path, monkeypatch):
    """FFmpeg would open what a playlist names: a file of this machine or an address inside the cluster."""
    (tmp_path / "secret.wav").write_bytes(wav(tone(16_000), 16_000, "PCM_16"))
    monkeypatch.chdir(tmp_path)
    concatenation = b"ffconcat version 1.0\nfile secret.wav\n"
    with av.open(BytesIO(concatenation)) as followed:  # the danger is real
        assert sum(frame.samples for frame in followed.decode(audio=0)) == len(tone(16_000))
    assert refusal(concatenation) == "invalid_audio"
    hls = b"#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\nsecret.wav\n#EXT-X-ENDLIST\n"
    assert refusal(hls) == "invalid_audio"


VALID = [
    *(encode(tone(24_000), 24_000, to) for to in Format if to is not Format.PCM),
    in_container("webm", "libopus"),
    in_container("mp4", "aac"),
]


@given(
    data=st.sampled_from(VALID),
    changes=st.lists(st.tuples(st.integers(0, 400), st.integers(0, 255)), max_size=12),
    kept=st.floats(0.0, 1.0),
)
@settings(deadline=None, max_examples=150)
def test_damaged_files_give_a_wave_or_an_audio_error(data, changes, kept):
    damaged = bytearray(data)
    for at, value in changes:
        damaged[at % len(damaged)] = value
    try:
        wave = decode(bytes(damaged[: int(kept * len(damaged))]), max_seconds=30.0)
    except AudioError as error:
        assert error.code
    else:
        assert len(wave.samples)
        assert np.isfinite(wave.samples).all()


def test_a_small_file_that_claims_a_huge_index_gets_no_memory_for_it():
    """An MP4 of 2 kB that says it has 60 million samples of a byte: FFmpeg would make 1.4 GB of them."""
    data, count = bytearray(in_container("mp4", "aac")), 60_000_000
    claims = {b"stsz": (1, count), b"stts": (1, count, 1024), b"stsc": (1, 1, count, 1)}
    for box, numbers in claims.items():
        struct.pack_into(f">{len(numbers)}I", data, data.index(box) + 8, *numbers)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert refusal(bytes(data)) in {"audio_empty", "invalid_audio"}
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100_000  # kB


def test_empty_audio_is_refused():
    assert refusal(b"") == "audio_empty"
    assert refusal(wav(np.zeros(0, np.float32), 16_000)) == "audio_empty"


def test_long_and_large_audio_is_refused():
    assert refusal(wav(tone(16_000), 16_000), max_seconds=0.4) == "audio_too_long"
    assert refusal(in_container("mp4", "aac"), max_seconds=0.4) == "audio_too_long"
    assert refusal(wav(tone(16_000), 16_000), max_bytes=1000) == "audio_too_large"
    assert len(decode(wav(tone(16_000), 16_000), max_seconds=0.5).samples) == 8_000


def test_rates_and_channels_outside_the_range_are_refused():
    assert refusal(wav(tone(7_999), 7_999)) == "invalid_rate"
    assert refusal(wav(tone(192_001), 192_001)) == "invalid_rate"
    assert refusal(wav(np.zeros((100, MAX_CHANNELS + 1), np.float32), 16_000)) == "invalid_channels"


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 1e30])
def test_samples_that_would_poison_arithmetic_are_refused(value):
    samples = tone(16_000)
    samples[100] = value
    assert refusal(wav(samples, 16_000)) == "invalid_audio"


@pytest.mark.parametrize("to", [each for each in Format if each is not Format.PCM])
@pytest.mark.parametrize("seconds", [0.5, 1.5])
def test_what_was_written_as_a_stream_is_read_to_its_end(to, seconds):
    encoder = StreamEncoder(24_000, to)
    data = encoder.push(tone(24_000, seconds=seconds)) + encoder.finish()
    wave = decode(data, max_seconds=3.0)
    assert wave.duration_s == pytest.approx(seconds, abs=0.0 if to in {Format.WAV, Format.FLAC} else 0.12)
    assert loudest_hz(wave.samples, wave.rate) == pytest.approx(440, abs=4)


@pytest.mark.parametrize("claimed", [0, 0x7FFF_FFFF, 0xFFFF_FFFF])
def test_a_recording_whose_header_was_never_completed_is_read_to_its_end(claimed):
    data = bytearray(wav(tone(16_000), 16_000, "PCM_16"))
    struct.pack_into("<I", data, 4, claimed)
    struct.pack_into("<I", data, data.index(b"data") + 4, claimed)
    np.testing.assert_allclose(decode(bytes(data), max_seconds=1.0).samples, tone(16_000), atol=1e-4)


def test_a_file_that_is_damaged_in_its_midst_is_read_on():
    data = bytearray(encode(tone(24_000, seconds=2.5), 24_000, Format.FLAC))
    data[len(data) // 2 : len(data) // 2 + 64] = bytes(64)
    assert 2.2 < decode(bytes(data), max_seconds=3.0).duration_s <= 2.5


def test_a_file_cut_short_gives_what_it_holds():
    data = wav(tone(16_000), 16_000, "PCM_16")
    wave = decode(data[: len(data) // 2], max_seconds=1.0)
    np.testing.assert_allclose(wave.samples, tone(16_000)[: len(wave.samples)], atol=1e-4)
    assert 3_900 < len(wave.samples) < 4_000


def test_files_on_disk_are_read_as_those_of_requests(tmp_path):
    path = tmp_path / "voice.m4a"
    path.write_bytes(in_container("mp4", "aac"))
    samples, rate = read_mono(path)
    expected = decode(path.read_bytes(), max_seconds=1.0)
    np.testing.assert_array_equal(samples, expected.samples)
    assert rate == expected.rate
    (tmp_path / "text").write_text("not audio")
    for other in (tmp_path / "text", tmp_path / "missing", tmp_path):
        with pytest.raises(AudioError, match=str(other)):
            read_mono(other)


EMPTY_BOXES = {
    "mp4": b"\0\0\0\x18ftypM4A \0\0\0\0M4A mp42" + b"\0\0\0\x08free" * 1_000_000,
    "wav": b"RIFF\xff\xff\xff\xffWAVE" + b"JUNK\0\0\0\0" * 1_000_000,
    "adts": b"\xff\xf1\x50\x80\x00\xff\xfc" * 1_000_000,
}


@pytest.mark.parametrize("kind", EMPTY_BOXES)
def test_a_file_made_to_take_long_is_given_up(kind):
    before = time.thread_time()
    with pytest.raises(AudioError) as refused:
        decode(EMPTY_BOXES[kind], max_seconds=30.0, cpu_s=0.1)
    assert time.thread_time() - before < 0.3
    assert (refused.value.code, "takes too long" in refused.value.message) == ("invalid_audio", True)


def test_half_of_a_recording_is_not_taken_for_all_of_it():
    noise = np.random.default_rng(0).normal(0, 0.1, 192_000 * 20).astype(np.float32)
    assert refusal(wav(noise, 192_000, "PCM_24"), cpu_s=0.01) == "invalid_audio"
