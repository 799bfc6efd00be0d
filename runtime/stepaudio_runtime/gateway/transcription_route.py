"""`POST /v1/audio/transcriptions`: a recording in, its words out."""

from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response

from stepaudio_runtime.chat.completion import Sampling
from stepaudio_runtime.codec.chat_template import Turn
from stepaudio_runtime.contract import Component
from stepaudio_runtime.gateway.catalogue import Catalogue
from stepaudio_runtime.gateway.engine import Engine
from stepaudio_runtime.gateway.forms import fields_of, file_of, read_form
from stepaudio_runtime.gateway.media import Media
from stepaudio_runtime.gateway.schemas import TranscriptionForm


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
        form = await read_form(request)
        try:
            file = file_of(form)
            fields = fields_of(form, TranscriptionForm)
            self._catalogue.require(fields.model, Component.CHAT)
            wave = await self._media.decode(await file.read(), "file")
        finally:
            await form.close()
        codes = (await self._engine.tokens(wave, "file"))["codes"]
        system = self._prompt
        if fields.language:
            system += f"\nlanguage: {fields.language}"
        if fields.prompt:
            system += f"\n{fields.prompt}"
        turns = [Turn("system", (system,)), Turn("user", (tuple(codes),))]
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
