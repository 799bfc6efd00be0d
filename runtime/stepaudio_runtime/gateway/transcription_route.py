"""`POST /v1/audio/transcriptions`: a recording in, its words out."""

from typing import Any

from pydantic import ValidationError
from starlette.datastructures import FormData, UploadFile
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response

from stepaudio_runtime.chat.completion import Sampling
from stepaudio_runtime.codec.chat_template import Turn
from stepaudio_runtime.contract import Component
from stepaudio_runtime.errors import InputError
from stepaudio_runtime.gateway.catalogue import Catalogue
from stepaudio_runtime.gateway.engine import Engine
from stepaudio_runtime.gateway.errors import ApiError
from stepaudio_runtime.gateway.media import Media
from stepaudio_runtime.gateway.schemas import TranscriptionForm, input_error

MAX_FIELDS = 32
"""Fields, and files, of a form."""


class TranscriptionRoute:
    """Speech to text, by the chat model under a system prompt that asks for nothing but the words."""

    def __init__(
        self, engine: Engine, media: Media, catalogue: Catalogue, *, prompt: str, max_new_tokens: int
    ) -> None:
        self._engine = engine
        self._media = media
        self._catalogue = catalogue
        self._prompt = prompt
        self._max_new_tokens = max_new_tokens

    async def __call__(self, request: Request) -> Response:
        """Transcribe one recording."""
        form = await _form(request)
        try:
            file = form.get("file")
            if not isinstance(file, UploadFile):
                raise InputError(
                    "Missing required parameter: 'file'.", param="file", code="missing_required_parameter"
                )
            fields = _fields(form)
            self._catalogue.require(fields.model, Component.CHAT)
            wave = await self._media.decode(await file.read(), "file")
        finally:
            await form.close()
        codes = await self._engine.codes(wave, "file")
        system = self._prompt
        if fields.language:
            system += f"\nlanguage: {fields.language}"
        if fields.prompt:
            system += f"\n{fields.prompt}"
        turns = [Turn("system", (system,)), Turn("user", (codes,))]
        # Greedy unless asked otherwise: the words are to be heard, not invented.
        sampling = Sampling(self._max_new_tokens, temperature=fields.temperature or 0.0)
        text = ""
        async with self._engine.answer(turns, sampling) as answer:
            async for delta in answer.deltas():
                text += delta.text
        text = text.strip()
        if fields.response_format == "text":
            return PlainTextResponse(text + "\n")
        used = answer.usage
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


async def _form(request: Request) -> FormData:
    if not request.headers.get("Content-Type", "").lower().startswith("multipart/form-data"):
        raise ApiError(415, "send the file as multipart/form-data", code="unsupported_media_type")
    try:
        return await request.form(max_files=4, max_fields=MAX_FIELDS)
    except HTTPException:
        raise
    except Exception as fault:
        # The parser fails in many ways on what is not a form (unknown charset, no boundary, cut headers).
        raise InputError("the body is not a valid form", code="invalid_form") from fault


def _fields(form: FormData) -> TranscriptionForm:
    raw: dict[str, Any] = {}
    for name, value in form.multi_items():
        if name == "file":
            continue
        if isinstance(value, UploadFile):
            raise InputError(
                f"`{name[:64]}` is not expected to be a file", param=name[:64], code="invalid_type"
            )
        if name.endswith("[]"):
            raw.setdefault(name[:-2], []).append(value)
        else:
            raw[name] = value
    try:
        fields = TranscriptionForm.model_validate(raw)
    except ValidationError as fault:
        raise input_error(fault) from fault
    fields.refuse_unserved()
    return fields
