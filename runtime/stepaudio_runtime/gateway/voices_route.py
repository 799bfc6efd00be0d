"""`/v1/voices`: voices of people who agreed to it, created from a recording; the model's own, read only.

The gateway writes the store, the TTS pods read it; see docs/voices.md.
"""

import hashlib
import logging
import uuid
from collections.abc import Callable
from typing import Any

import numpy as np
from starlette.datastructures import FormData, UploadFile
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from stepaudio_runtime.audio.encoding import Format, encode
from stepaudio_runtime.audio.files import Wave
from stepaudio_runtime.audio.loudness import TRIM_RATE, normalise_peak, trim
from stepaudio_runtime.audio.resample import resample
from stepaudio_runtime.contract import Component
from stepaudio_runtime.errors import AudioError, InputError
from stepaudio_runtime.gateway.catalogue import Catalogue
from stepaudio_runtime.gateway.errors import ApiError
from stepaudio_runtime.gateway.forms import fields_of, file_of, read_form
from stepaudio_runtime.gateway.media import Media
from stepaudio_runtime.gateway.schemas import VoiceForm
from stepaudio_runtime.gateway.transcriber import Transcriber
from stepaudio_runtime.voices.record import Consent, VoiceRecord, checked_name
from stepaudio_runtime.voices.store import VoiceStore

log = logging.getLogger(__name__)

SHORTEST_S = 1.0
"""Of speech, without the silence around it: less tells the models too little of a voice."""
LONGEST_S = 30.0
"""Of a recording: it stands in front of every text that the voice speaks."""
SILENCE = 0.005  # peak: 46 dB below full scale
FASTEST_CHARS_PER_S = 40.0  # nobody speaks so fast: the transcript is of something else

WAVE, CONSENT_RECORDING = "wave", "consent_recording"


class VoicesRoute:
    """Creates, shows and deletes voices. `store` is None where there is none; `now` gives Unix seconds."""

    def __init__(
        self,
        store: VoiceStore | None,
        media: Media,
        catalogue: Catalogue,
        transcriber: Transcriber,
        *,
        max_voices: int,
        now: Callable[[], float],
    ) -> None:
        self._store = store
        self._media = media
        self._catalogue = catalogue
        self._transcriber = transcriber
        self._max_voices = max_voices
        self._now = now

    async def create(self, request: Request) -> Response:
        """`POST /v1/voices`."""
        store = self._writable()
        form = await read_form(request)
        try:
            fields = fields_of(form, VoiceForm, {WAVE, CONSENT_RECORDING})
            data = await file_of(form, WAVE).read()
            proof = await self._proof(form)
        finally:
            await form.close()
        name = checked_name(fields.name, taken=await self._catalogue.fixed_voices())
        wave = await self._media.decode(data, WAVE, max_seconds=LONGEST_S)
        await self._media.run(lambda: check_speech(wave))
        if await store.get(name) is not None:
            raise _exists(name)
        if len(await store.all()) >= self._max_voices:
            raise ApiError(
                409,
                f"there are {self._max_voices} voices, and no more are kept; delete one that is not needed",
                code="too_many_voices",
            )
        transcript = fields.transcript
        if transcript is None:
            transcript = await self._transcribed(wave)
        else:
            check_transcript(transcript, wave.duration_s)
        record = VoiceRecord(
            name=name,
            version=uuid.uuid4().hex,
            created_at=int(self._now()),
            transcript=transcript,
            transcribed=fields.transcript is None,
            duration_s=round(wave.duration_s, 3),
            sha256=hashlib.sha256(data).hexdigest(),
            consent=Consent(
                person=fields.consent_person,
                statement=fields.consent_statement,
                recording_sha256=hashlib.sha256(proof).hexdigest() if proof is not None else None,
            ),
        )
        file = await self._media.run(lambda: encode(wave.samples, wave.rate, Format.FLAC))
        if not await store.create(record, file, proof):
            raise _exists(name)
        log.info("voice %r was created, with the consent of %r", name, record.consent.person)
        return JSONResponse(shown(record), 201)

    async def show(self, name: str) -> Response:
        """`GET /v1/voices/{name}`."""
        record = await self._store.get(name) if self._store is not None else None
        if record is not None:
            return JSONResponse(shown(record))
        for voice in await self._catalogue.voices():
            if voice["id"] == name:
                return JSONResponse(voice)
        raise _not_found(name)

    async def delete(self, name: str) -> Response:
        """`DELETE /v1/voices/{name}`."""
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

    async def _proof(self, form: FormData) -> bytes | None:
        """The recording of the consent, once it is known to be one."""
        if not isinstance(file := form.get(CONSENT_RECORDING), UploadFile):
            return None
        data = await file.read()
        wave = await self._media.decode(data, CONSENT_RECORDING, max_seconds=LONGEST_S)
        if np.abs(wave.samples).max() < SILENCE:
            raise AudioError("the recording is silent", param=CONSENT_RECORDING, code="audio_silent")
        return data

    async def _transcribed(self, wave: Wave) -> str:
        if not self._catalogue.has(Component.CHAT):
            raise InputError(
                "give the transcript of the recording: this deployment has no chat pool to transcribe it",
                param="transcript",
                code="transcript_required",
            )
        text, _ = await self._transcriber.words(wave, WAVE)
        try:
            check_transcript(text, wave.duration_s)
        except InputError as fault:
            raise InputError(
                "the recording could not be transcribed; give its transcript",
                param="transcript",
                code="transcript_required",
            ) from fault
        return text


def check_speech(wave: Wave) -> None:
    """Raises AudioError for a recording without a second of sound."""
    if np.abs(wave.samples).max() < SILENCE:
        raise AudioError("the recording is silent", param=WAVE, code="audio_silent")
    sound = trim(normalise_peak(resample(wave.samples, wave.rate, TRIM_RATE)))
    if min(wave.duration_s, len(sound) / TRIM_RATE) < SHORTEST_S:
        raise AudioError(
            f"the recording has less than {SHORTEST_S:g} s of speech; 3 to 15 s serve best",
            param=WAVE,
            code="audio_too_short",
        )


def check_transcript(text: str, duration_s: float) -> None:
    """Raises InputError for words that cannot be those of so long a recording."""
    if not any(char.isalnum() for char in text):
        raise InputError("the transcript has no words", param="transcript", code="invalid_transcript")
    if len(text) > duration_s * FASTEST_CHARS_PER_S:
        raise InputError(
            f"the transcript has {len(text)} characters for {duration_s:.1f} s of speech: it is of another "
            "recording",
            param="transcript",
            code="invalid_transcript",
        )


def shown(record: VoiceRecord) -> dict[str, Any]:
    """A created voice as the API shows it."""
    fields = record.model_dump(exclude={"version"})
    return {"id": record.name, "object": "voice", **fields}


def _exists(name: str) -> ApiError:
    return ApiError(
        409, f"there is a voice {name!r} already; delete it first", param="name", code="voice_exists"
    )


def _not_found(name: str) -> ApiError:
    return ApiError(404, f"The voice `{name[:128]}` does not exist.", param="voice", code="voice_not_found")
