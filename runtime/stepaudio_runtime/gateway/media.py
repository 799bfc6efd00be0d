"""Audio in and out of requests, in a few threads of their own: the event loop never decodes."""

import asyncio
import base64
import binascii
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import numpy as np
import soxr
from numpy.typing import NDArray

from stepaudio_runtime.audio.encoding import Format, encode
from stepaudio_runtime.audio.files import Wave, decode
from stepaudio_runtime.errors import AudioError

T = TypeVar("T")

PCM_RATE = 24_000
"""Hz of `pcm` and `pcm16`: OpenAI's clients take it for granted."""

BYTES_PER_SAMPLE = 2
FULL_SCALE = 32_768.0


class Media:
    """Decoding and encoding. `max_audio_s` bounds one recording, in seconds."""

    def __init__(self, *, max_audio_s: float, max_bytes: int, threads: int) -> None:
        self._max_audio_s = max_audio_s
        self._max_bytes = max_bytes
        self._threads = ThreadPoolExecutor(threads, thread_name_prefix="media")

    async def run(self, work: Callable[[], T]) -> T:
        """`work` in one of the threads."""
        return await asyncio.get_running_loop().run_in_executor(self._threads, work)

    async def decode(self, data: bytes, param: str) -> Wave:
        """The recording in `data`. Raises AudioError naming `param`."""
        return await self.run(lambda: self._decode(data, param))

    async def decode_base64(self, text: str, param: str) -> Wave:
        """The recording in base64 (or a `data:` URL). Raises AudioError naming `param`."""
        return await self.run(lambda: self._decode(_unbase64(text, param), param))

    async def encode(self, pcm: bytes, rate: int, to: Format) -> bytes:
        """A file of the format `to` from 16-bit mono `pcm`; raw PCM is brought to 24 kHz."""
        return await self.run(lambda: _encode(pcm, rate, to))

    def close(self) -> None:
        """Take no more work; what waits is dropped."""
        self._threads.shutdown(wait=False, cancel_futures=True)

    def _decode(self, data: bytes, param: str) -> Wave:
        try:
            return decode(data, max_seconds=self._max_audio_s, max_bytes=self._max_bytes)
        except AudioError as fault:
            raise AudioError(fault.message, param=param, code=fault.code) from fault


def _unbase64(text: str, param: str) -> bytes:
    if text.startswith("data:"):
        text = text.partition(",")[2]
    try:
        return base64.b64decode(text.strip(), validate=True)
    except (binascii.Error, ValueError) as fault:
        raise AudioError("the audio is not valid base64", param=param, code="invalid_base64") from fault


def samples(pcm: bytes) -> NDArray[np.float32]:
    """Little-endian 16-bit samples as float32 (N,) in [-1, 1)."""
    return np.frombuffer(pcm, "<i2").astype(np.float32) / np.float32(FULL_SCALE)


def _encode(pcm: bytes, rate: int, to: Format) -> bytes:
    wave = samples(pcm)
    if to is Format.PCM and rate != PCM_RATE:
        wave, rate = soxr.resample(wave, rate, PCM_RATE, quality="HQ"), PCM_RATE
    return encode(wave, rate, to)


async def resampled(pcm: AsyncIterator[bytes], rate: int, to_rate: int) -> AsyncIterator[bytes]:
    """16-bit mono PCM that arrives in pieces of any length, at another rate; as long as the whole.

    A piece of a second costs about a millisecond, so this runs where it is called.
    """
    resampler = soxr.ResampleStream(rate, to_rate, 1, dtype="int16", quality="HQ")
    odd = b""
    async for piece in pcm:
        data = odd + piece
        whole = len(data) - len(data) % BYTES_PER_SAMPLE
        odd = data[whole:]
        out = resampler.resample_chunk(np.frombuffer(data[:whole], "<i2"))
        if len(out):
            yield out.astype("<i2").tobytes()
    out = resampler.resample_chunk(np.zeros(0, np.int16), last=True)
    if len(out):
        yield out.astype("<i2").tobytes()
