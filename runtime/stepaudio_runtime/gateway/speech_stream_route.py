"""`GET /v1/audio/speech/stream`, a WebSocket: text comes in pieces, and is spoken from its first clause on.

    client  {"type": "start", "model", "voice", "response_format", ...}   then  {"type": "text", "text"} ...
            {"type": "cancel"}: drop what is not yet spoken        {"type": "end"}: no text follows
    server  {"type": "started"}, {"type": "piece", "text"} and its audio in binary messages,
            {"type": "cancelled"}, {"type": "done", "usage"}, {"type": "error", "error"}

Every piece is a request to a TTS pod; the next one is begun while one is being sent, so that there is no gap.
"""

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, field

from pydantic import ValidationError
from starlette.websockets import WebSocket, WebSocketDisconnect

from stepaudio_runtime.audio.encoding import Format
from stepaudio_runtime.bodies import SpeechRequest
from stepaudio_runtime.codec.controls import Reading, split_tags
from stepaudio_runtime.codec.layout import CODE_RATE
from stepaudio_runtime.contract import Component
from stepaudio_runtime.errors import InputError, Overloaded, Unavailable
from stepaudio_runtime.gateway.catalogue import Catalogue
from stepaudio_runtime.gateway.engine import Engine
from stepaudio_runtime.gateway.errors import ApiError
from stepaudio_runtime.gateway.event_socket import NORMAL, Client, Gone
from stepaudio_runtime.gateway.media import Media
from stepaudio_runtime.gateway.schemas import StreamedSpeech, StreamedText, input_error, manner_of
from stepaudio_runtime.gateway.sound import SpeechLine
from stepaudio_runtime.gateway.text_pieces import TextCutter

log = logging.getLogger(__name__)

PAUSE_S = 0.5
"""Silence of the client after which a finished sentence is spoken."""
AHEAD = 32  # chunks of a piece, a hop of speech each, that wait for the client
AT_ONCE = 2  # pieces in the making


@dataclass(frozen=True)
class StreamBounds:
    """`chars` of text that may wait to be spoken; times in seconds."""

    chars: int
    idle_s: float
    longest_s: float


class SpeechStreamRoute:
    """Serves the WebSocket."""

    def __init__(
        self, engine: Engine, media: Media, catalogue: Catalogue, *, bounds: StreamBounds, reading: Reading
    ) -> None:
        self._engine = engine
        self._media = media
        self._catalogue = catalogue
        self._bounds = bounds
        self._reading = reading

    async def __call__(self, socket: WebSocket) -> None:
        """One connection, from its handshake to its end."""
        await socket.accept()
        client = Client(socket)
        try:
            async with asyncio.timeout(self._bounds.longest_s):
                await self._serve(client)
        except (WebSocketDisconnect, Gone):
            pass
        except TimeoutError:
            message = f"a stream lasts {self._bounds.longest_s:g} s at most"
            await client.fail(ApiError(408, message, code="session_too_long"))
        except Exception as error:
            if not isinstance(error, InputError | ApiError | Overloaded | Unavailable):
                log.warning("a stream of speech failed: %r", error)
            await client.fail(error)

    async def _serve(self, client: Client) -> None:
        start = await self._started(client)
        session = _Session(self._engine, self._media, self._catalogue, client, start, reading=self._reading)
        await client.say({"type": "started", "response_format": start.response_format})
        speaking = asyncio.create_task(session.speak())
        listening = asyncio.create_task(self._listen(client, session))
        try:
            await asyncio.wait({speaking, listening}, return_when=asyncio.FIRST_COMPLETED)
            if listening.done():
                listening.result()  # raises what ended it: the client's leaving, or its fault
            await speaking
        finally:
            for task in (speaking, listening):
                task.cancel()
            await asyncio.gather(speaking, listening, return_exceptions=True)
        await client.say({"type": "done", "usage": session.usage})
        await client.close(NORMAL, "done")

    async def _started(self, client: Client) -> StreamedSpeech:
        try:
            async with asyncio.timeout(self._bounds.idle_s):
                message = await client.read()
        except TimeoutError:
            raise _idle(self._bounds.idle_s) from None
        try:
            start = StreamedSpeech.model_validate(message)
        except ValidationError as fault:
            raise input_error(fault) from fault
        start.refuse_unserved()
        self._catalogue.require(start.model, Component.TTS)
        return start

    async def _listen(self, client: Client, session: "_Session") -> None:
        """Take what the client says, also while the last of its text is spoken."""
        quiet_s = 0.0
        while True:
            try:
                async with asyncio.timeout(PAUSE_S):
                    message = await client.read()
            except TimeoutError:
                session.pause()
                quiet_s = quiet_s + PAUSE_S if session.idle else 0.0
                if quiet_s >= self._bounds.idle_s:
                    raise _idle(self._bounds.idle_s) from None
                continue
            quiet_s = 0.0
            kind = message.get("type")
            if kind == "text":
                try:
                    text = StreamedText.model_validate(message).text
                except ValidationError as fault:
                    raise input_error(fault) from fault
                if session.ended:
                    raise InputError("text after the end", param="type", code="text_after_end")
                if session.waiting + len(text) > self._bounds.chars:
                    raise ApiError(
                        413,
                        f"more than {self._bounds.chars} characters wait to be spoken",
                        code="text_too_long",
                    )
                session.push(text)
            elif kind == "cancel":
                await session.cancel()
                await client.say({"type": "cancelled"})
            elif kind == "end":
                session.end()
            else:
                raise InputError(f"unknown type {str(kind)[:64]!r}", param="type", code="invalid_type")


def _idle(seconds: float) -> ApiError:
    return ApiError(408, f"nothing was sent for {seconds:g} s", code="session_idle")


@dataclass(eq=False)
class _Piece:
    """A piece of text, and its speech as it comes: chunks of PCM, then None or what went wrong."""

    text: str
    chunks: asyncio.Queue[bytes | Exception | None] = field(default_factory=lambda: asyncio.Queue(AHEAD))
    making: asyncio.Task[None] | None = None


class _Session:
    """What is to be spoken and what is being spoken."""

    def __init__(
        self,
        engine: Engine,
        media: Media,
        catalogue: Catalogue,
        client: Client,
        start: StreamedSpeech,
        *,
        reading: Reading,
    ) -> None:
        self._engine = engine
        self._media = media
        self._catalogue = catalogue
        self._client = client
        self._start = start
        self._reading = reading
        self._cutter = TextCutter()
        self._pieces: list[_Piece] = []  # the first is being sent
        self.ended = False
        self._changed = asyncio.Event()
        self._tags: str | None = None
        self._number = 0
        self._line: SpeechLine | None = None
        self._cut = False  # the line holds speech that was cancelled
        self._sending = asyncio.Lock()
        self._text_tokens = 0

    # --- text ---------------------------------------------------------------------------------------

    @property
    def waiting(self) -> int:
        """Characters that are not spoken yet."""
        return self._cutter.waiting + sum(len(piece.text) for piece in self._pieces)

    @property
    def idle(self) -> bool:
        """Whether the client is to say something: nothing is being spoken, and there may be more text."""
        return not self._pieces and not self.ended

    @property
    def usage(self) -> dict[str, int]:
        """Tokens so far, as OpenAI counts them."""
        codes = round(self._line.seconds * CODE_RATE) if self._line is not None else 0
        text = self._text_tokens
        return {"input_tokens": text, "output_tokens": codes, "total_tokens": text + codes}

    def push(self, text: str) -> None:
        """More text."""
        self._add(self._cutter.push(text))

    def pause(self) -> None:
        """The client has stopped for a moment."""
        self._add(self._cutter.pause())

    def end(self) -> None:
        """No text follows."""
        self._add(self._cutter.finish())
        self.ended = True
        self._changed.set()

    async def cancel(self) -> None:
        """Drop everything that the client has not been sent."""
        self._cutter = TextCutter()
        pieces, self._pieces = self._pieces, []
        async with self._sending:  # a chunk in the encoder still goes out: it may hold the head of the file
            self._cut = True
        for piece in pieces:
            if piece.making is not None:
                piece.making.cancel()
        await asyncio.gather(*(piece.making for piece in pieces if piece.making), return_exceptions=True)
        for piece in pieces:
            while not piece.chunks.empty():
                piece.chunks.get_nowait()
            piece.chunks.put_nowait(None)
        self._changed.set()

    def _add(self, texts: Sequence[str]) -> None:
        self._pieces += [_Piece(text) for text in texts]
        self._make()
        self._changed.set()

    # --- speech -------------------------------------------------------------------------------------

    def _make(self) -> None:
        """Begin the first pieces."""
        for piece in self._pieces[:AT_ONCE]:
            if piece.making is None:
                piece.making = asyncio.create_task(self._fetch(piece, self._wanted(piece.text)))

    def _wanted(self, text: str) -> SpeechRequest:
        """The request for a piece; tags that the first one begins with hold for all."""
        start = self._start
        tags, words = split_tags(start.direct(text, self._reading).wire)
        if self._tags is None:
            self._tags = tags
        wanted = SpeechRequest(input=self._tags + words)
        if (voice := self._catalogue.voice(start.voice)) is not None:
            wanted["voice"] = voice
        if start.seed is not None:
            wanted["seed"] = (start.seed + self._number) % 2**63
        self._number += 1
        return wanted

    async def _fetch(self, piece: _Piece, wanted: SpeechRequest) -> None:
        try:
            async with self._engine.speech(wanted) as spoken:
                if self._line is None:
                    to = Format(self._start.response_format)
                    self._line = SpeechLine(spoken.rate, to, manner_of(self._start), marked=spoken.marked)
                self._text_tokens += spoken.text_tokens or 0
                async for chunk in spoken.chunks():
                    await piece.chunks.put(chunk)
        except Exception as error:  # the sender must hear of it
            soundless = isinstance(error, InputError) and error.code == "empty_input"
            await piece.chunks.put(None if soundless else error)  # a sign that the pod has no sound for
        else:
            await piece.chunks.put(None)

    async def speak(self) -> None:
        """Send every piece's speech until the text has ended. Raises what a piece failed of."""
        try:
            while True:
                if not self._pieces:
                    if self.ended:
                        break
                    self._changed.clear()
                    await self._changed.wait()
                    continue
                piece = self._pieces[0]
                await self._client.say({"type": "piece", "text": piece.text})
                async for pcm in _chunks(piece):
                    await self._send(piece, pcm)
                if self._pieces and self._pieces[0] is piece:
                    del self._pieces[0]
                self._make()
            if self._line is not None:
                await self._send_made(SpeechLine.finish)
                self._engine.count_speech(self._line.seconds)
        finally:
            for left in self._pieces:
                if left.making is not None:
                    left.making.cancel()

    async def _send(self, piece: _Piece, pcm: bytes) -> None:
        async with self._sending:
            if piece in self._pieces:  # it may have been cancelled meanwhile
                await self._send_made(lambda line: line.push(pcm))

    async def _send_made(self, make: Callable[[SpeechLine], bytes]) -> None:
        """Send what `make` makes with the line, in which nothing is left of what was cancelled."""
        line = self._line
        assert line is not None  # noqa: S101 - a chunk has come
        if self._cut:
            self._cut = False
            await self._media.run(line.restart)
        if out := await self._media.run(lambda: make(line)):
            await self._client.send(out)


async def _chunks(piece: _Piece) -> AsyncIterator[bytes]:
    while (chunk := await piece.chunks.get()) is not None:
        if isinstance(chunk, Exception):
            raise chunk
        yield chunk
