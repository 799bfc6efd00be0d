"""A recording that takes long to decode holds up no stream of speech; a whole file of it fills no memory."""

import asyncio
import threading
import tracemalloc

import numpy as np
import pytest

from stepaudio_runtime.audio.encoding import Format
from stepaudio_runtime.errors import AudioError
from stepaudio_runtime.gateway.errors import UpstreamFailed
from stepaudio_runtime.gateway.media import Media
from stepaudio_runtime.gateway.sound import FlacFile, Manner, sound_file


class SlowFile(bytes):
    """A recording whose length is known only when `go` is set, as of one that takes long to read."""

    go = threading.Event()

    def __len__(self) -> int:
        self.go.wait(30)
        return super().__len__()


async def test_chunks_pass_while_files_take_their_time():
    media = Media(max_audio_s=30, max_bytes=1 << 20, threads=2)
    slow = [asyncio.create_task(media.decode(SlowFile(b"none"), "file")) for _ in range(4)]
    await asyncio.sleep(0.05)
    assert [await media.run(lambda: "a chunk") for _ in range(3)] == ["a chunk"] * 3
    assert not any(task.done() for task in slow)
    SlowFile.go.set()
    told = await asyncio.gather(*slow, return_exceptions=True)
    assert [(type(fault), fault.param) for fault in told] == [(AudioError, "file")] * 4
    media.close()


RATE = 22_050
NOISE = np.random.default_rng(0).normal(0, 3_000, 10 * RATE).astype("<i2").tobytes()


async def speech(seconds: int):
    for _ in range(seconds // 10):
        for start in range(0, len(NOISE), 40_000):
            yield NOISE[start : start + 40_000]


@pytest.mark.parametrize(("manner", "marked"), [(Manner(), False), (Manner(1.5, 0.5), True)])
async def test_a_flac_file_made_in_pieces_is_the_one_made_at_once(manner, marked):
    media, file = Media(max_audio_s=30, max_bytes=1, threads=1), FlacFile(RATE, manner, marked=marked)
    size = await media.flac(speech(10), file)
    made = b"".join([piece async for piece in media.read(file)])
    assert (len(made), file.seconds) == (size, 10.0)
    assert made == sound_file(NOISE, RATE, Format.FLAC, manner, marked=marked)
    media.close()


async def test_a_long_flac_file_takes_no_memory():
    media, file = Media(max_audio_s=30, max_bytes=1, threads=1), FlacFile(RATE, Manner(), marked=False)
    tracemalloc.start()
    try:
        assert await media.flac(speech(300), file) > 8 << 20
        assert [len(piece) > 0 async for piece in media.read(file)]
        assert tracemalloc.get_traced_memory()[1] < 3 << 20
    finally:
        tracemalloc.stop()
    await media.run(lambda: None)  # behind the file's closing
    media.close()


async def test_a_flac_file_that_is_broken_off_is_closed():
    async def broken():
        yield NOISE
        raise UpstreamFailed("gone")

    media, file = Media(max_audio_s=30, max_bytes=1, threads=1), FlacFile(RATE, Manner(), marked=False)
    with pytest.raises(UpstreamFailed):
        await media.flac(broken(), file)
    await media.run(lambda: None)
    with pytest.raises(ValueError, match="closed"):
        file.read(1)
    media.close()
