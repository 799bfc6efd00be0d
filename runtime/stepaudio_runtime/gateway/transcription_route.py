"""`POST /v1/audio/transcriptions`: a recording in, its words out."""

from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response

from stepaudio_runtime.contract import Component
from stepaudio_runtime.gateway.catalogue import Catalogue
from stepaudio_runtime.gateway.forms import fields_of, file_of, read_form
from stepaudio_runtime.gateway.media import Media
from stepaudio_runtime.gateway.schemas import TranscriptionForm
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
            self._catalogue.require(fields.model, Component.CHAT)
            wave = await self._media.decode(await file.read(), "file")
        finally:
            await form.close()
        text, used = await self._transcriber.words(
            wave,
            "file",
            language=fields.language,
            hint=fields.prompt,
            temperature=fields.temperature or 0.0,
        )
        if fields.response_format == "text":
            return PlainTextResponse(text + "\n")
        usage: dict[str, Any] = {
            "type": "tokens",
            "input_tokens": used.prompt,
            "input_token_details": {
                "audio_tokens": used.prompt_audio,
                "text_tokens": used.prompt - used.prompt_audio,
            },
            "output_tokens": used.completion,
            "total_tokens": used.prompt + used.completion,
        }
        return JSONResponse({"text": text, "usage": usage})
