"""`/v1/voices`: voices of people who agreed to it, created from a recording; the model's own, read only.

The gateway writes the store, the TTS pods read it; see docs/voices.md.
"""

import logging
from typing import Any

from starlette.datastructures import FormData, UploadFile
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from stepaudio_runtime.contract import Component
from stepaudio_runtime.errors import InputError
from stepaudio_runtime.gateway.catalogue import Catalogue
from stepaudio_runtime.gateway.errors import ApiError
from stepaudio_runtime.gateway.forms import fields_of, file_of, read_form
from stepaudio_runtime.gateway.schemas import VoiceForm
from stepaudio_runtime.gateway.voice_maker import CONSENT_RECORDING, WAVE, Sent, VoiceMaker
from stepaudio_runtime.voices.record import VoiceRecord, normal_name
from stepaudio_runtime.voices.store import VoiceStore

log = logging.getLogger(__name__)


class VoicesRoute:
    """Creates, shows and deletes voices. `store` is None where there is none."""

    def __init__(
        self, store: VoiceStore | None, catalogue: Catalogue, maker: VoiceMaker, *, max_voices: int
    ) -> None:
        self._store = store
        self._catalogue = catalogue
        self._maker = maker
        self._max_voices = max_voices

    async def create(self, request: Request) -> Response:
        """`POST /v1/voices`."""
        store = self._writable()
        form = await read_form(request)
        try:
            fields = fields_of(form, VoiceForm, {WAVE, CONSENT_RECORDING})
            sent = Sent(
                await file_of(form, WAVE).read(),
                fields.transcript,
                fields.consent_person,
                fields.consent_statement,
                await _proof(form),
            )
        finally:
            await form.close()
        name = await self._maker.free_name(fields.name)
        wave = await self._maker.heard(sent)
        if await store.get(name) is not None:
            raise _exists(name)
        if len(await store.all()) >= self._max_voices:
            raise ApiError(
                409,
                f"there are {self._max_voices} voices, and no more are kept; delete one that is not needed",
                code="too_many_voices",
            )
        record, file = await self._maker.make(name, sent, wave)
        if not await store.create(record, file, sent.proof):
            raise _exists(name)
        log.info("voice %r was created, with the consent of %r", name, record.consent.person)
        return JSONResponse(shown(record), 201)

    async def show(self, name: str) -> Response:
        """`GET /v1/voices/{name}`."""
        name = normal_name(name)
        record = await self._store.get(name) if self._store is not None else None
        if record is not None:
            return JSONResponse(shown(record))
        for voice in await self._catalogue.voices():
            if voice["id"] == name:
                return JSONResponse(voice)
        raise _not_found(name)

    async def delete(self, name: str) -> Response:
        """`DELETE /v1/voices/{name}`."""
        name = normal_name(name)
        kept = await self._store.get(name) if self._store is not None else None
        if kept is not None and kept.declared is not None:
            raise ApiError(
                403,
                f"the voice {name!r} is declared by a StepAudioVoice of {kept.declared.by}: delete that",
                code="voice_is_declared",
            )
        if self._store is not None and await self._store.delete(name):
            log.info("voice %r was deleted", name)
            return JSONResponse({"id": name, "object": "voice.deleted", "deleted": True})
        if name in await self._catalogue.fixed_voices():
            raise ApiError(
                403, f"the voice {name!r} is part of the model or of the settings", code="voice_is_fixed"
            )
        raise _not_found(name)

    def _writable(self) -> VoiceStore:
        self._catalogue.require_pool(Component.TTS, "voice")
        if self._store is None:
            raise InputError(
                "this deployment has no voice store: no voices can be created",
                code="unsupported_by_deployment",
            )
        return self._store


async def _proof(form: FormData) -> bytes | None:
    file = form.get(CONSENT_RECORDING)
    return await file.read() if isinstance(file, UploadFile) else None


def shown(record: VoiceRecord) -> dict[str, Any]:
    """A created voice as the API shows it."""
    fields = record.model_dump(exclude={"version", "declared"})
    return {"id": record.name, "object": "voice", **fields}


def _exists(name: str) -> ApiError:
    return ApiError(
        409, f"there is a voice {name!r} already; delete it first", param="name", code="voice_exists"
    )


def _not_found(name: str) -> ApiError:
    return ApiError(404, f"The voice `{name[:128]}` does not exist.", param="voice", code="voice_not_found")
