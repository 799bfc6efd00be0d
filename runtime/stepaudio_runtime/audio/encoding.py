"""Audio files out: a wave as WAV, FLAC, raw PCM, MP3, Ogg Opus or AAC bytes."""

from __future__ import annotations

from enum import StrEnum
from io import BytesIO

import av
import numpy as np
import soundfile
from numpy.typing import NDArray

from stepaudio_runtime.audio.resample import resample

FULL_SCALE = 32_767
"""Of 16-bit samples."""


class Format(StrEnum):
    """The formats that the speech API names."""

    WAV = "wav"
    FLAC = "flac"
    PCM = "pcm"  # 16 bit, little-endian, no header
    MP3 = "mp3"
    OPUS = "opus"
    AAC = "aac"


MEDIA_TYPE = {
    Format.WAV: "audio/wav",
    Format.FLAC: "audio/flac",
    Format.PCM: "audio/pcm",
    Format.MP3: "audio/mpeg",
    Format.OPUS: "audio/ogg",
    Format.AAC: "audio/aac",
}

_OPUS_RATE = 48_000
_MPEG_RATES = (8_000, 11_025, 12_000, 16_000, 22_050, 24_000, 32_000, 44_100, 48_000)
_SPEECH_BITS = 64_000  # a second, for mono speech
_CONTAINER = {Format.MP3: ("mp3", "libmp3lame"), Format.OPUS: ("ogg", "libopus"), Format.AAC: ("adts", "aac")}


def to_pcm16(wave: NDArray[np.float32]) -> NDArray[np.int16]:
    """`wave` (N,) as 16-bit samples, clipped to full scale."""
    return np.round(np.clip(wave, -1.0, 1.0) * FULL_SCALE).astype(np.int16)


def encode(wave: NDArray[np.float32], rate: int, to: Format) -> bytes:
    """`wave` (N,), mono at `rate` Hz, as a file of the format `to`, 16 bits where the format has a width.

    Opus is always 48 kHz, and MP3 and AAC are where they do not know `rate`; the others keep it.
    """
    if to is Format.PCM:
        return to_pcm16(wave).astype("<i2").tobytes()
    if to in (Format.WAV, Format.FLAC):
        out = BytesIO()
        soundfile.write(out, to_pcm16(wave), rate, format=to.value.upper(), subtype="PCM_16")
        return out.getvalue()
    usable = rate == _OPUS_RATE if to is Format.OPUS else rate in _MPEG_RATES
    if not usable:
        wave, rate = resample(wave, rate, _OPUS_RATE), _OPUS_RATE
    return _encode_with_ffmpeg(to_pcm16(wave), rate, to)


def _encode_with_ffmpeg(pcm: NDArray[np.int16], rate: int, to: Format) -> bytes:
    out = BytesIO()
    container_name, codec = _CONTAINER[to]
    with av.open(out, mode="w", format=container_name) as container:
        stream = container.add_stream(codec, rate=rate, layout="mono")
        stream.bit_rate = _SPEECH_BITS
        for start in range(0, len(pcm), rate):
            frame = av.AudioFrame.from_ndarray(pcm[None, start : start + rate], format="s16", layout="mono")
            frame.sample_rate = rate
            frame.pts = start
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return out.getvalue()
