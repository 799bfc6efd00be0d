"""A recording that takes long to decode holds up no stream of speech."""

import asyncio
import threading

from stepaudio_runtime.errors import AudioError
from stepaudio_runtime.gateway.media import Media


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
