"""`POST /v1/audio/speech`: text, or audio codes, in; speech out while it is made, as a file's bytes or as
OpenAI's events.

`stream_format` "audio" (the default) sends the file as it grows, "sse" the same bytes in `speech.audio.delta`
events and the tokens in `speech.audio.done`. Only FLAC, where nobody asks for a stream, is sent once it is
whole: its header has to name a length for many programs to read it.
"""

import base64
from collections.abc import AsyncIterator, Mapping

from starlette.requests import Request
from starlette.responses import Response, StreamingResponse

from stepaudio_runtime.audio.encoding import MEDIA_TYPE, Format
from stepaudio_runtime.bodies import SpeechRequest
from stepaudio_runtime.codec.controls import Reading
from stepaudio_runtime.codec.layout import CODE_RATE
from stepaudio_runtime.contract import Component
from stepaudio_runtime.gateway.catalogue import Catalogue
from stepaudio_runtime.gateway.engine import Engine
from stepaudio_runtime.gateway.json_body import read_json
from stepaudio_runtime.gateway.media import Media
from stepaudio_runtime.gateway.schemas import SpeechBody, manner_of
from stepaudio_runtime.gateway.sound import PCM_RATE, FlacFile, Manner, SpeechLine
from stepaudio_runtime.gateway.stream import Stream, note_headers, sse, sse_error


class SpeechRoute:
    """Text to speech. `max_chars` bounds the text."""

    def __init__(
        self, engine: Engine, media: Media, catalogue: Catalogue, *, max_chars: int, reading: Reading
    ) -> None:
        self._engine = engine
        self._media = media
        self._catalogue = catalogue
        self._max_chars = max_chars
        self._reading = reading

    async def __call__(self, request: Request) -> Response:
        """Speak one text."""
        body = await read_json(request, SpeechBody, self._media)
        body.check(self._max_chars)
        self._catalogue.require(body.model, Component.TTS)
        notes: dict[str, str] = {}
        if body.codes is not None:
            wanted = SpeechRequest(codes=body.codes)
        else:
            directed = body.direct(body.input or "", self._reading)
            wanted = SpeechRequest(input=directed.wire)
            notes = note_headers(directed.notes)
        voice = self._catalogue.voice(body.voice)
        if voice is not None:
            wanted["voice"] = voice
        if body.seed is not None:
            wanted["seed"] = body.seed
        to = Format(body.response_format)
        manner = manner_of(body)
        if body.stream_format == "sse":
            return Stream(
                lambda: self._events(wanted, to, manner), "text/event-stream", sse_error, headers=notes
            )
        if to is Format.FLAC and body.stream_format is None:
            return await self._flac(wanted, manner, notes)
        media_type = MEDIA_TYPE[to] + (f"; rate={PCM_RATE}; channels=1" if to is Format.PCM else "")
        return Stream(lambda: self._bytes(wanted, to, manner), media_type, headers=notes)

    async def _flac(self, wanted: SpeechRequest, manner: Manner, headers: Mapping[str, str]) -> Response:
        async with self._engine.speech(wanted) as spoken:
            file = FlacFile(spoken.rate, manner, marked=spoken.marked)
            size = await self._media.flac(spoken.chunks(), file)
        self._engine.count_speech(file.seconds)
        all_headers = {"Content-Length": str(size), **headers}
        return StreamingResponse(
            self._media.read(file), media_type=MEDIA_TYPE[Format.FLAC], headers=all_headers
        )

    async def _bytes(self, wanted: SpeechRequest, to: Format, manner: Manner) -> AsyncIterator[bytes]:
        async with self._engine.speech(wanted) as spoken:
            line = SpeechLine(spoken.rate, to, manner, marked=spoken.marked)
            async for piece in self._media.stream(spoken.chunks(), line):
                yield piece
        self._engine.count_speech(line.seconds)

    async def _events(self, wanted: SpeechRequest, to: Format, manner: Manner) -> AsyncIterator[bytes]:
        async with self._engine.speech(wanted) as spoken:
            line = SpeechLine(spoken.rate, to, manner, marked=spoken.marked)
            async for piece in self._media.stream(spoken.chunks(), line):
                yield sse({"type": "speech.audio.delta", "audio": base64.b64encode(piece).decode()})
        self._engine.count_speech(line.seconds)
        text = spoken.text_tokens or 0
        codes = round(line.seconds * CODE_RATE)
        usage = {"input_tokens": text, "output_tokens": codes, "total_tokens": text + codes}
        yield sse({"type": "speech.audio.done", "usage": usage})
