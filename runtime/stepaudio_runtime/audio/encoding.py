"""Audio files out, whole or as they are made: WAV, FLAC, raw PCM, MP3, Ogg Opus or AAC bytes."""

from __future__ import annotations

import struct
from enum import StrEnum
from io import BytesIO

import av
import numpy as np
import soundfile
from numpy.typing import NDArray

from stepaudio_runtime.audio.streams import StreamResampler
from stepaudio_runtime.audio.wave import to_pcm16


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
_PAGE_US = "100000"  # of an Ogg page; the default of a second would be the delay of a stream
_CONTAINER = {
    Format.FLAC: ("flac", "flac"),
    Format.MP3: ("mp3", "libmp3lame"),
    Format.OPUS: ("ogg", "libopus"),
    Format.AAC: ("adts", "aac"),
}


def encode(wave: NDArray[np.float32], rate: int, to: Format) -> bytes:
    """`wave` (N,), mono at `rate` Hz, as a file of the format `to`, 16 bits where the format has a width.

    Opus is always 48 kHz, and MP3 and AAC are where they do not know `rate`; the others keep it.
    """
    if to in (Format.WAV, Format.FLAC):
        out = BytesIO()
        soundfile.write(out, to_pcm16(wave), rate, format=to.value.upper(), subtype="PCM_16")
        return out.getvalue()
    target = encoded_rate(rate, to)
    resampler = StreamResampler(rate, target)
    pcm = to_pcm16(np.concatenate([resampler.push(wave), resampler.finish()]))
    if to is Format.PCM:
        return pcm.astype("<i2").tobytes()
    out = BytesIO()  # FFmpeg may go back to the head: an MP3 then says how much of its ends is padding
    file = _FfmpegFile(target, to, out)
    file.write(pcm)
    file.finish()
    return out.getvalue()


def encoded_rate(rate: int, to: Format) -> int:
    """Hz of a wave at `rate` Hz once it is in the format `to`."""
    if to is Format.OPUS or (to in (Format.MP3, Format.AAC) and rate not in _MPEG_RATES):
        return _OPUS_RATE
    return rate


class StreamEncoder:
    """A file of the format `to`, of mono speech at `rate` Hz, written while the speech is made.

    Its length is not known when it begins: WAV says so by the largest length there is (players then read to
    the end), FLAC by a length of 0 samples.
    """

    def __init__(self, rate: int, to: Format) -> None:
        target = encoded_rate(rate, to)
        self._resampler = StreamResampler(rate, target)
        self._begin = wav_header(target) if to is Format.WAV else b""
        self._sink = _Sink()
        self._file = _FfmpegFile(target, to, self._sink) if to in _CONTAINER else None

    def push(self, wave: NDArray[np.float32]) -> bytes:
        """The bytes that `wave` (n,) completes, if any."""
        return self._write(self._resampler.push(wave))

    def finish(self) -> bytes:
        """The rest of the file."""
        last = self._write(self._resampler.finish())
        if self._file is None:
            return self._begin + last
        self._file.finish()
        return last + self._sink.take()

    def _write(self, wave: NDArray[np.float32]) -> bytes:
        if not len(wave):
            return b""
        pcm = to_pcm16(wave)
        if self._file is not None:
            self._file.write(pcm)
            return self._sink.take()
        begin, self._begin = self._begin, b""
        return begin + pcm.astype("<i2").tobytes()


def wav_header(rate: int) -> bytes:
    """Header of a WAV file of 16-bit mono samples at `rate` Hz whose length is not known."""
    unknown = 0xFFFF_FFFF
    form = struct.pack("<HHIIHH", 1, 1, rate, rate * 2, 2, 16)
    return (
        b"RIFF"
        + struct.pack("<I", unknown)
        + b"WAVEfmt "
        + struct.pack("<I", len(form))
        + form
        + b"data"
        + struct.pack("<I", unknown)
    )


class _Sink:
    """Where FFmpeg writes: forwards only, so no container comes back to its head."""

    def __init__(self) -> None:
        self._parts: list[bytes] = []

    def write(self, data: bytes) -> int:
        self._parts.append(bytes(data))
        return len(data)

    def take(self) -> bytes:
        parts, self._parts = self._parts, []
        return b"".join(parts)


class _FfmpegFile:
    """One file in the making by FFmpeg."""

    def __init__(self, rate: int, to: Format, out: _Sink | BytesIO) -> None:
        container, codec = _CONTAINER[to]
        self._rate = rate
        self._samples = 0
        self._container = av.open(
            out,
            mode="w",
            format=container,
            container_options={"page_duration": _PAGE_US} if to is Format.OPUS else {},
        )
        self._stream = self._container.add_stream(codec, rate=rate, layout="mono")
        if to is not Format.FLAC:
            self._stream.bit_rate = _SPEECH_BITS

    def write(self, pcm: NDArray[np.int16]) -> None:
        """Take `pcm` (n,); what it completes is written."""
        for start in range(0, len(pcm), self._rate):
            part = np.ascontiguousarray(pcm[None, start : start + self._rate])
            frame = av.AudioFrame.from_ndarray(part, format="s16", layout="mono")
            frame.sample_rate, frame.pts = self._rate, self._samples
            self._samples += part.shape[1]
            self._container.mux(self._stream.encode(frame))

    def finish(self) -> None:
        """Write the end of the file."""
        self._container.mux(self._stream.encode(None))
        self._container.close()
