"""Audio files in: bytes of any common format become one mono float32 wave, within bounds, or an AudioError.

libsndfile reads WAV, FLAC, AIFF, Ogg and MP3; what it does not know (AAC, MP4, WebM, AMR) goes to FFmpeg.
Bytes come from strangers: size, duration and work are bounded before and while decoding. FFmpeg is kept to
libsndfile reads WAV, FLAC, AIFF, Ogg and MP3; what it does not know (AAC, MP4, WebM, AMR) goes to FFmpeg, and
so does what was written without knowing its end, which libsndfile takes for damaged or empty.
Bytes come from strangers: size and duration are bounded before and while decoding, and FFmpeg is kept to
containers that cannot name other files or addresses, and to pieces of memory that no honest file exceeds.
"""

from __future__ import annotations

import ctypes
import time
from collections.abc import Iterator
from contextlib import suppress
from functools import cache
from io import BytesIO

import av
import av.error
import numpy as np
import soundfile
from numpy.typing import NDArray

from stepaudio_runtime.audio.wave import Wave, check_rate, check_samples
from stepaudio_runtime.errors import AudioError

MAX_BYTES = 64 << 20
"""Largest file taken by default; 30 s of 192 kHz stereo in 32 bits are 46 MB."""
MAX_CHANNELS = 8
MAX_ALLOCATION = 32 << 20
"""Bytes that FFmpeg takes at once: the index of an MP4 of six hours. A file of a few kilobytes can claim an
index of gigabytes."""

DECODE_S = 4.0
DECODE_S_PER_S = 1 / 20
"""Seconds of a processor for a file, and more for every second that its audio may last. Opus takes 0.004,
192 kHz in stereo 0.01; a file of millions of empty boxes would take minutes."""
_ENDLESS = 2**63 - 1
"""Frames, as libsndfile counts those of a FLAC that was written as a stream."""

# No playlists and no concatenations: they make FFmpeg open what they name.
_CONTAINERS = "aac,aiff,amr,asf,caf,flac,matroska,mov,mp3,mp4,m4a,ogg,wav,webm,w64"
_NOT_AUDIO = "the data is not audio in a known format; send WAV, FLAC, MP3, Ogg, M4A or WebM"


class _Source:
    """A file in memory for libsndfile and FFmpeg, which ends once this thread has worked for `seconds`.

    An end is what both of them take at any place; an exception they would pass over, or print.
    """

    def __init__(self, data: bytes, seconds: float) -> None:
        self._file = BytesIO(data)
        self._until = time.thread_time() + seconds

    @property
    def late(self) -> bool:
        """Whether the time is over. Time of this thread: a busy machine makes no file a bad one."""
        return time.thread_time() > self._until

    def read(self, size: int = -1) -> bytes:
        return b"" if self.late else self._file.read(size)

    def seek(self, offset: int, whence: int = 0) -> int:
        return self._file.seek(offset, whence)

    def tell(self) -> int:
        return self._file.tell()


def decode(
    data: bytes, *, max_seconds: float, max_bytes: int = MAX_BYTES, cpu_s: float | None = None
) -> Wave:
    """The wave in `data`, the mean of its channels.

    Raises AudioError, saying what to do, when the data is empty, larger than `max_bytes`, not audio, damaged
    before its first sample, longer than `max_seconds`, takes more than `cpu_s` of a processor (left out, what
    honest files never take), has more than 8 channels, a rate outside 8 to 192 kHz, or samples that are not
    finite.
    """
    if not data:
        raise AudioError("the audio is empty; send a recording", code="audio_empty")
    if len(data) > max_bytes:
        message = (
            f"the audio file has {len(data):,} bytes; at most {max_bytes:,} are taken, send a shorter one"
        )
        raise AudioError(message, code="audio_too_large")
    source = _Source(data, DECODE_S + DECODE_S_PER_S * max_seconds if cpu_s is None else cpu_s)
    try:
        wave = _decode(source, max_seconds)
    except AudioError as fault:
        if source.late:
            raise _too_slow() from fault
        raise
    if source.late:  # what there is of it may be but a part
        raise _too_slow()
    return wave


def _too_slow() -> AudioError:
    message = "the audio takes too long to decode; export it again, as WAV, FLAC or MP3"
    return AudioError(message, code="invalid_audio")


def _decode(source: _Source, max_seconds: float) -> Wave:
    try:
        file = soundfile.SoundFile(source)
    except (soundfile.SoundFileError, RuntimeError):
        return _decode_with_ffmpeg(source, max_seconds)
    with file, suppress(soundfile.SoundFileError, RuntimeError):
        if 0 < file.frames < _ENDLESS:
            return _collect(_sndfile_blocks(file), file.samplerate, file.channels, max_seconds)
    return _decode_with_ffmpeg(source, max_seconds)


def _sndfile_blocks(source: soundfile.SoundFile) -> Iterator[NDArray[np.float32]]:
    """Blocks (n, channels) of about a second, until the end. Raises SoundFileError at damage."""
    while len(block := source.read(source.samplerate, dtype="float32", always_2d=True)):
        yield block


@cache
def _bound_ffmpeg() -> None:
    """From now on FFmpeg takes no more memory at once. PyAV has no name for this, but brings it along."""
    ctypes.CDLL(av._core.__file__).av_max_alloc(ctypes.c_size_t(MAX_ALLOCATION))


def _decode_with_ffmpeg(source: _Source, max_seconds: float) -> Wave:
    _bound_ffmpeg()
    source.seek(0)
    try:
        with av.open(
            source, metadata_errors="ignore", options={"format_whitelist": _CONTAINERS}
        ) as container:
            stream = next(iter(container.streams.audio), None)
            if stream is None or stream.codec_context is None:
                message = "the file holds no audio in a known codec; send WAV, FLAC, MP3, Opus or AAC"
                raise AudioError(message, code="invalid_audio")
            rate, channels = stream.codec_context.sample_rate, stream.codec_context.channels
            return _collect(_ffmpeg_blocks(container, stream, rate), rate, channels, max_seconds)
    except (av.error.FFmpegError, ValueError, EOFError) as error:
        raise AudioError(_NOT_AUDIO, code="invalid_audio") from error


def _ffmpeg_blocks(
    container: av.container.InputContainer, stream: av.AudioStream, rate: int
) -> Iterator[NDArray[np.float32]]:
    """Blocks (n, channels) at the stream's rate, until the end or the first damage."""
    planar = av.AudioResampler(format="fltp", layout=stream.layout, rate=rate)
    try:
        for frame in container.decode(stream):
            for part in planar.resample(frame):
                yield part.to_ndarray().T
        for part in planar.resample(None):
            yield part.to_ndarray().T
    except av.error.FFmpegError:
        return


def _collect(blocks: Iterator[NDArray[np.float32]], rate: int, channels: int, max_seconds: float) -> Wave:
    """Mix `blocks` down and join them, stopping as soon as they exceed `max_seconds`."""
    check_rate(rate)
    if not 1 <= channels <= MAX_CHANNELS:
        message = f"the audio has {channels} channels; send mono or stereo"
        raise AudioError(message, code="invalid_channels")
    parts, samples = [np.zeros(0, np.float32)], 0
    for block in blocks:
        samples += len(block)
        if samples > max_seconds * rate:
            message = f"the audio is longer than {max_seconds:g} s; send a shorter one"
            raise AudioError(message, code="audio_too_long")
        parts.append(block.mean(axis=1, dtype=np.float64).astype(np.float32))
    wave = np.concatenate(parts)
    if not len(wave):
        raise AudioError("the audio has no samples; send a recording", code="audio_empty")
    check_samples(wave)
    return Wave(wave, rate)
