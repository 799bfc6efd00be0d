"""One request between its writer, the scheduler and its reader.

    writer     room() ─► begin() ─► part.add(codes) … part.end() ─► begin() … ─► end()   or fail(error)
    scheduler  front() is a part with a hop to make ─► give(wave)
    reader     read() ─► wave … ─► None                                                 or the error

An utterance is made of parts, one a sentence group: each starts from the voice prompt anew, so that neither
the voice nor the memory drifts over a long text. Both queues are bounded in seconds of audio: a reader that
takes nothing stops the decoder for its own stream, then its language model, and nobody else's.

Everything here belongs to the event loop's thread.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from stepaudio_runtime.codec.layout import CODE_RATE
from stepaudio_runtime.contract import SPEECH_RATE
from stepaudio_runtime.tts.hops import Hop
from stepaudio_runtime.tts.playback import Playback

if TYPE_CHECKING:
    from stepaudio_runtime.tts.decoder import DecoderStream, SpeechDecoder

UNREAD_S = 6.0
"""Seconds of audio that may wait for a reader before its stream is made no further."""
AHEAD_S = 12.0
"""Seconds of audio, made or as codes, beyond which no other sentence group is begun."""


class Part:
    """A stretch that is decoded as one. Codes can be taken back until the decoder has seen them."""

    def __init__(self, decoder: SpeechDecoder, stream: DecoderStream, changed: Callable[[], None]) -> None:
        self.decoder = decoder
        self.stream = stream
        self.codes: list[int] = []
        self.ended = False
        self._hops = 0
        self._pushed = 0  # codes that the decoder has seen
        self._closed = False  # whether it knows that there are no more
        self._changed = changed

    def add(self, codes: Sequence[int]) -> None:
        """More codes, in order."""
        self.codes += codes
        self._changed()

    def take_back(self, start: int) -> None:
        """Drop the codes from `start` on, as far as the decoder has not seen them."""
        del self.codes[max(start, self._pushed) :]

    def end(self) -> None:
        """No code follows."""
        self.ended = True
        self._changed()

    @property
    def hop(self) -> Hop | None:
        """The next hop, if it can be made; it depends on the codes alone, not on when they came."""
        stream = self.stream
        return stream.plan.next_hop(self._hops, stream.spoken, len(self.codes), last=self.ended)

    def hop_made(self) -> bool:
        """Count a hop that the decoder has made; true where it was the last."""
        self._hops += 1
        return self.ended and self.stream.spoken == len(self.codes)

    def hand_over(self, hop: Hop) -> None:
        """Show the decoder what `hop` needs: its look-ahead and a code more, or the end: that settles it."""
        known = min(len(self.codes), hop.seen + 1)
        last = self.ended and known == len(self.codes)
        if known > self._pushed or last > self._closed:
            self.stream.push(self.codes[self._pushed : known], last=last)
        self._pushed, self._closed = known, last


class Utterance:
    """`changed` is called when the scheduler may have something new to do; `opened_at` in clock seconds."""

    def __init__(self, changed: Callable[[], None], opened_at: float) -> None:
        self.playback = Playback(opened_at)
        self.working_s = 0.0  # of decoder steps that it took part in
        self.closed = False
        self._changed = changed
        self._parts: deque[Part] = deque()
        self._waves: deque[NDArray[np.float32]] = deque()
        self._unread = 0  # samples
        self._ended = False
        self._error: Exception | None = None
        self._news = asyncio.Event()  # for the reader
        self._space = asyncio.Event()  # for the writer

    # --- the writer's side --------------------------------------------------------------------------

    async def room(self) -> None:
        """Wait until another part may be begun."""
        while self.ahead_s >= AHEAD_S:
            self._space.clear()
            await self._space.wait()

    def begin(self, decoder: SpeechDecoder, stream: DecoderStream) -> Part:
        """A new part behind those there are."""
        part = Part(decoder, stream, self._changed)
        self._parts.append(part)
        return part

    def drop(self, part: Part) -> None:
        """A part that turned out to be empty."""
        self._parts.remove(part)
        self._changed()

    def end(self) -> None:
        """No part follows."""
        self._ended = True
        self._news.set()

    def fail(self, error: Exception) -> None:
        """Nothing more will come; the reader gets `error`."""
        if self._error is None:
            self._error = error
        self._parts.clear()
        self._news.set()
        self._space.set()

    # --- the scheduler's side -----------------------------------------------------------------------

    def front(self) -> Part | None:
        """The part whose next hop can be made now, and whose reader has room for it."""
        if self._unread >= UNREAD_S * SPEECH_RATE or not self._parts:
            return None
        part = self._parts[0]
        return None if part.hop is None else part

    def give(self, wave: NDArray[np.float32], now: float) -> None:
        """Samples (N,) of the front part's hop."""
        if self.closed or self._error is not None:
            return
        if self._parts[0].hop_made():
            self._parts.popleft()
        if wave.size:
            self._waves.append(wave)
            self._unread += wave.size
            self.playback.give(wave.size / SPEECH_RATE, now)
        self._news.set()
        self._space.set()

    # --- the reader's side --------------------------------------------------------------------------

    async def read(self) -> NDArray[np.float32] | None:
        """The next samples (N,) at 22,050 Hz, N > 0; None at the end. Raises what the utterance failed of."""
        while not self._waves:
            if self._error is not None:
                raise self._error
            if self._ended and not self._parts:
                return None
            self._news.clear()
            await self._news.wait()
        wave = self._waves.popleft()
        self._unread -= wave.size
        self._space.set()
        self._changed()
        return wave

    def close(self) -> None:
        """The reader has gone: let go of everything."""
        self.closed = True
        self._parts.clear()
        self._waves.clear()
        self._unread = 0

    # --- figures ------------------------------------------------------------------------------------

    @property
    def unread_s(self) -> float:
        """Seconds of audio made and not read."""
        return self._unread / SPEECH_RATE

    @property
    def ahead_s(self) -> float:
        """Seconds of audio, made or still codes, that the reader has not taken."""
        codes = sum(len(part.codes) - part.stream.spoken for part in self._parts)
        return self.unread_s + codes / float(CODE_RATE)
