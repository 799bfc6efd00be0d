"""`POST /v1/audio/transcriptions`: a recording in; its words out, at once or as they are written down."""

from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager

from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response

from stepaudio_runtime.audio.files import Wave
from stepaudio_runtime.contract import Component
from stepaudio_runtime.gateway import transcript
from stepaudio_runtime.gateway.catalogue import Catalogue
from stepaudio_runtime.gateway.engine import Answer
from stepaudio_runtime.gateway.forms import fields_of, file_of, read_form
from stepaudio_runtime.gateway.media import Media
from stepaudio_runtime.gateway.schemas import TranscriptionForm
from stepaudio_runtime.gateway.stream import Stream, sse, sse_error
from stepaudio_runtime.gateway.transcriber import Transcriber


class TranscriptionRoute:
    """Speech to text."""

    def __init__(self, transcriber: Transcriber, media: Media, catalogue: Catalogue) -> None:
        self._transcriber = transcriber
        self._media = media
        self._catalogue = catalogue

    async def __call__(self, request: Request) -> Response:
        """Transcribe one recording."""
        form = await read_form(request)
        try:
            file = file_of(form, "file")
            fields = fields_of(form, TranscriptionForm, {"file"})
            fields.check()
            self._catalogue.require(fields.model, Component.CHAT)
            wave = await self._media.decode(await file.read(), "file")
        finally:
            await form.close()
        if fields.stream:
            return Stream(lambda: self._events(wave, fields), "text/event-stream", sse_error)
        return await self._whole(wave, fields)

    async def _whole(self, wave: Wave, fields: TranscriptionForm) -> Response:
        async with self._listen(wave, fields) as answer:
            text = "".join([delta.text async for delta in answer.deltas()]).strip()
        match fields.response_format:
            case "text":
                return PlainTextResponse(transcript.plain(text))
            case "srt":
                return PlainTextResponse(transcript.srt(text, wave.duration_s))
            case "vtt":
                return Response(transcript.vtt(text, wave.duration_s), media_type="text/vtt")
            case "verbose_json":
                return JSONResponse(transcript.verbose(text, wave.duration_s, fields.language))
            case _:
                return JSONResponse({"text": text, "usage": transcript.tokens_used(answer.usage)})

    async def _events(self, wave: Wave, fields: TranscriptionForm) -> AsyncIterator[bytes]:
        text = ""
        async with self._listen(wave, fields) as answer:
            async for delta in answer.deltas():
                if piece := delta.text if text else delta.text.lstrip():
                    text += piece
                    yield sse({"type": "transcript.text.delta", "delta": piece})
        usage = transcript.tokens_used(answer.usage)
        yield sse({"type": "transcript.text.done", "text": text.rstrip(), "usage": usage})

    def _listen(self, wave: Wave, fields: TranscriptionForm) -> AbstractAsyncContextManager[Answer]:
        return self._transcriber.listen(
            wave,
            "file",
            language=fields.language,
            hint=fields.prompt,
            temperature=fields.temperature or 0.0,
        )
