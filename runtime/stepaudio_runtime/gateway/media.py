"""Audio in and out of requests, in a few threads of their own: the event loop never decodes.

What strangers send is decoded in other threads than those that every chunk of every stream passes through: a
file that takes its whole time holds up other files, and no speech.
"""

import asyncio
import binascii
import string
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import TypeVar

from stepaudio_runtime.audio.encoding import Format
from stepaudio_runtime.audio.files import Wave, decode
from stepaudio_runtime.errors import AudioError
from stepaudio_runtime.gateway.sound import FlacFile, Manner, SpeechLine, sound_file

T = TypeVar("T")
PIECE = 1 << 16
"""Bytes of a file that are sent at a time."""


class Media:
    """Decoding and encoding, in `threads` each. `max_audio_s` bounds one recording, in seconds."""

    def __init__(self, *, max_audio_s: float, max_bytes: int, threads: int) -> None:
        self._max_audio_s = max_audio_s
        self._max_bytes = max_bytes
        self._threads = ThreadPoolExecutor(threads, thread_name_prefix="media")
        self._decoders = ThreadPoolExecutor(threads, thread_name_prefix="decode")

    async def run(self, work: Callable[[], T]) -> T:
        """`work` in one of the threads; it is not to take long."""
        return await self._in(self._threads, work)

    async def decode(self, data: bytes, param: str, *, max_seconds: float | None = None) -> Wave:
        """The recording in `data`, at most `max_seconds` long. Raises AudioError naming `param`."""
        return await self._in(self._decoders, lambda: self._decode(data, param, max_seconds))

    async def decode_base64(self, text: str, param: str) -> Wave:
        """The recording in base64 (or a `data:` URL). Raises AudioError naming `param`."""
        return await self._in(self._decoders, lambda: self._decode(_unbase64(text, param), param))

    async def encode(self, pcm: bytes, rate: int, to: Format, manner: Manner, *, marked: bool) -> bytes:
        """All of a pod's speech as one file."""
        return await self.run(lambda: sound_file(pcm, rate, to, manner, marked=marked))

    async def stream(self, pcm: AsyncIterator[bytes], line: SpeechLine) -> AsyncIterator[bytes]:
        """A pod's speech through `line` as it comes, one piece for each that completes something."""
        async for piece in pcm:
            if out := await self.run(partial(line.push, piece)):
                yield out
        if out := await self.run(line.finish):
            yield out

    async def flac(self, pcm: AsyncIterator[bytes], file: FlacFile) -> int:
        """A pod's speech into `file` as it comes; its bytes. Closes it where the speech does not end well."""
        try:
            async for piece in pcm:
                await self.run(partial(file.push, piece))
            return await self.run(file.finish)
        except BaseException:
            self._threads.submit(file.close)
            raise

    async def read(self, file: FlacFile) -> AsyncIterator[bytes]:
        """The bytes of `file`, which is closed afterwards."""
        try:
            while piece := await self.run(partial(file.read, PIECE)):
                yield piece
        finally:
            self._threads.submit(file.close)

    def close(self) -> None:
        """Take no more work; what waits is dropped."""
        for threads in (self._threads, self._decoders):
            threads.shutdown(wait=False, cancel_futures=True)

    async def _in(self, threads: ThreadPoolExecutor, work: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(threads, work)

    def _decode(self, data: bytes, param: str, max_seconds: float | None = None) -> Wave:
        try:
            return decode(data, max_seconds=max_seconds or self._max_audio_s, max_bytes=self._max_bytes)
        except AudioError as fault:
            raise AudioError(fault.message, param=param, code=fault.code) from fault


def _unbase64(text: str, param: str) -> bytes:
    if text.startswith("data:"):
        text = text[text.find(",") + 1 :]
    for white in string.whitespace:  # mail and `base64` break lines; a text without breaks is not copied
        text = text.replace(white, "")
    try:
        return binascii.a2b_base64(text, strict_mode=True)
    except (binascii.Error, ValueError) as fault:
        raise AudioError("the audio is not valid base64", param=param, code="invalid_base64") from fault
