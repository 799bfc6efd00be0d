"""`POST /v1/audio/tokens`: a recording in, its audio codes out; `codes` in `/v1/audio/speech` go back."""

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from stepaudio_runtime.contract import Component
from stepaudio_runtime.gateway.catalogue import Catalogue
from stepaudio_runtime.gateway.engine import Engine
from stepaudio_runtime.gateway.forms import fields_of, file_of, read_form
from stepaudio_runtime.gateway.media import Media
from stepaudio_runtime.gateway.schemas import TokensForm


class TokensRoute:
    """Audio to codes, by the tokenizer pool."""

    def __init__(self, engine: Engine, media: Media, catalogue: Catalogue) -> None:
        self._engine = engine
        self._media = media
        self._catalogue = catalogue

    async def __call__(self, request: Request) -> Response:
        """Encode one recording."""
        form = await read_form(request)
        try:
            file = file_of(form, "file")
            fields = fields_of(form, TokensForm, {"file"})
            self._catalogue.require_pool(Component.TOKENIZER, "file")
            wave = await self._media.decode(await file.read(), "file")
        finally:
            await form.close()
        tokens = await self._engine.tokens(wave, "file", trim=fields.trim, gain=fields.gain)
        return JSONResponse({"object": "audio.tokens", **tokens})
