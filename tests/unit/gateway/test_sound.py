"""A pod's speech on its way: whole samples however it is cut, and a restart that leaves nothing behind."""

from collections.abc import Iterable

import httpx
import numpy as np
import pytest

from stepaudio_runtime.audio.encoding import Format
from stepaudio_runtime.gateway.engine import Spoken
from stepaudio_runtime.gateway.errors import UpstreamFailed
from stepaudio_runtime.gateway.routing import Endpoint
from stepaudio_runtime.gateway.sound import Manner, SpeechLine
from stepaudio_runtime.gateway.upstream import Reply

RATE = 22_050


class Body(httpx.AsyncByteStream):
    def __init__(self, pieces: Iterable[bytes]) -> None:
        self.pieces = pieces

    async def __aiter__(self):
        for piece in self.pieces:
            yield piece


def spoken(*pieces: bytes) -> Spoken:
    answer = httpx.Response(200, stream=Body(pieces))
    return Spoken(Reply("tts", Endpoint("t", "http://t", "r"), answer), RATE, None, False)


def tone(hertz: float, seconds: float) -> bytes:
    t = np.arange(round(seconds * RATE)) / RATE
    return np.round(16_000 * np.sin(2 * np.pi * hertz * t)).astype("<i2").tobytes()


async def test_chunks_are_whole_samples():
    pieces = spoken(b"a", b"", b"bcd", b"ef", b"g", b"h").chunks()
    assert [piece async for piece in pieces] == [b"abcd", b"ef", b"gh"]


async def test_speech_that_ends_inside_a_sample_is_a_broken_answer():
    heard = []
    with pytest.raises(UpstreamFailed):
        async for piece in spoken(b"abc", b"de").chunks():
            heard.append(piece)
    assert heard == [b"ab", b"cd"]


@pytest.mark.parametrize("manner", [Manner(), Manner(speed=0.5), Manner(speed=3.0, volume=2.0)])
@pytest.mark.parametrize("marked", [False, True])
def test_after_a_restart_nothing_of_what_was_dropped_is_heard(manner, marked):
    line, fresh = (SpeechLine(RATE, Format.PCM, manner, marked=marked) for _ in range(2))
    line.push(tone(1_500, 0.7))
    line.restart()
    said = tone(440, 0.5)
    assert line.push(said) + line.finish() == fresh.push(said) + fresh.finish()
    assert line.seconds == pytest.approx(1.2)


def test_a_restart_begins_no_second_file():
    line = SpeechLine(RATE, Format.WAV, Manner(), marked=False)
    begun = line.push(tone(440, 0.1))
    line.restart()
    assert (begun[:4], line.push(tone(300, 0.1))) == (b"RIFF", tone_as_sent(300, 0.1))


def tone_as_sent(hertz: float, seconds: float) -> bytes:
    """Through float samples and back: those of full scale are told by 32,767."""
    return np.round(np.frombuffer(tone(hertz, seconds), "<i2") / 32_768 * 32_767).astype("<i2").tobytes()
