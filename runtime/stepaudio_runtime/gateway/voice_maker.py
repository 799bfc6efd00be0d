"""From a recording and its words to what the store keeps of a voice: the checks that all voices pass.

Voices come through the API (`voices_route`) and from resources that stand in Git (`declared_voices`).
"""

import hashlib
import uuid
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from stepaudio_runtime.audio.encoding import Format, encode
from stepaudio_runtime.audio.files import Wave
from stepaudio_runtime.audio.loudness import TRIM_RATE, normalise_peak, trim
from stepaudio_runtime.audio.resample import resample
from stepaudio_runtime.contract import Component
from stepaudio_runtime.errors import AudioError, InputError
from stepaudio_runtime.gateway.catalogue import Catalogue
from stepaudio_runtime.gateway.media import Media
from stepaudio_runtime.gateway.transcriber import Transcriber
from stepaudio_runtime.voices.record import Consent, Declared, VoiceRecord, checked_name

SHORTEST_S = 1.0
"""Of speech, without the silence around it: less tells the models too little of a voice."""
LONGEST_S = 30.0
"""Of a recording: it stands in front of every text that the voice speaks."""
SILENCE = 0.005  # peak: 46 dB below full scale
FASTEST_CHARS_PER_S = 40.0  # nobody speaks so fast: the transcript is of something else

WAVE, CONSENT_RECORDING = "wave", "consent_recording"


@dataclass(frozen=True)
class Sent:
    """What somebody gave of a voice. `proof` is the recording of the consent, as it was sent."""

    wave: bytes
    transcript: str | None
    person: str
    statement: str
    proof: bytes | None = None
    declared: Declared | None = None


class VoiceMaker:
    """Checks what was given and makes records of it; `now` gives Unix seconds."""

    def __init__(
        self, media: Media, catalogue: Catalogue, transcriber: Transcriber, now: Callable[[], float]
    ) -> None:
        self._media = media
        self._catalogue = catalogue
        self._transcriber = transcriber
        self._now = now

    async def free_name(self, name: str) -> str:
        """`name` in its normal form. Raises InputError where it cannot be, or means another voice here."""
        return checked_name(name, taken=await self._catalogue.fixed_voices())

    async def heard(self, sent: Sent) -> Wave:
        """The recording, once it and that of the consent are known to be usable. Raises AudioError."""
        if sent.proof is not None:
            said = await self._media.decode(sent.proof, CONSENT_RECORDING, max_seconds=LONGEST_S)
            if np.abs(said.samples).max() < SILENCE:
                raise AudioError("the recording is silent", param=CONSENT_RECORDING, code="audio_silent")
        wave = await self._media.decode(sent.wave, WAVE, max_seconds=LONGEST_S)
        await self._media.run(lambda: check_speech(wave))
        return wave

    async def make(self, name: str, sent: Sent, wave: Wave) -> tuple[VoiceRecord, bytes]:
        """The record of the voice `name`, and its wave as it is kept. Raises InputError."""
        transcript = sent.transcript
        if transcript is None:
            transcript = await self._transcribed(wave)
        else:
            check_transcript(transcript, wave.duration_s)
        sha256, recording_sha256 = await self._media.run(lambda: _digests(sent))
        record = VoiceRecord(
            name=name,
            version=uuid.uuid4().hex,
            created_at=int(self._now()),
            transcript=transcript,
            transcribed=sent.transcript is None,
            duration_s=round(wave.duration_s, 3),
            sha256=sha256,
            consent=Consent(
                person=sent.person,
                statement=sent.statement,
                recording_sha256=recording_sha256,
            ),
            declared=sent.declared,
        )
        return record, await self._media.run(lambda: encode(wave.samples, wave.rate, Format.FLAC))

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


def _digests(sent: Sent) -> tuple[str, str | None]:
    """Of the recording, and of that of the consent."""
    proof = None if sent.proof is None else hashlib.sha256(sent.proof).hexdigest()
    return hashlib.sha256(sent.wave).hexdigest(), proof


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
