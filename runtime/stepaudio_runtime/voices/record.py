"""What is kept of a created voice beside its wave, and which names a voice may have."""

from __future__ import annotations

import hashlib
import re
import unicodedata
from collections.abc import Collection

from pydantic import BaseModel, ConfigDict

from stepaudio_runtime.codec.instructions import Instruction
from stepaudio_runtime.errors import InputError

MAX_NAME = 64
"""Characters of a name."""
MAX_WRITTEN = 4 * MAX_NAME
"""Characters in which it may be written, with accents apart from their letters."""
_NAME = re.compile(r"\w(?:[\w .-]*\w)?")
_SINGING = tuple(instruction.value for instruction in Instruction)


class Consent(BaseModel):
    """Who agreed to being imitated, and in what words; the digest of the recording that proves it, if any."""

    model_config = ConfigDict(frozen=True)
    person: str
    statement: str
    recording_sha256: str | None = None


class Declared(BaseModel):
    """Of a voice that a StepAudioVoice asks for: whose gateways keep it, and by what."""

    model_config = ConfigDict(frozen=True)
    by: str
    """Namespace and name of the deployment."""
    uid: str
    """Of the StepAudioVoice."""
    digest: str
    """Of all that it says."""


class VoiceRecord(BaseModel):
    """A created voice. `version` is new with every creation, also of a name that was there before."""

    model_config = ConfigDict(frozen=True)
    name: str
    version: str
    created_at: int  # Unix time, seconds
    transcript: str
    transcribed: bool  # by the chat model; else as the user gave it
    duration_s: float
    sha256: str  # of the file that was sent
    consent: Consent
    declared: Declared | None = None  # None: created through the API

    @property
    def folder(self) -> str:
        """Where the store keeps it."""
        return folder_of(self.name)


def folder_of(name: str) -> str:
    """The folder of the voice `name`: its digest, for no two file systems take the same names."""
    return hashlib.sha256(name.encode()).hexdigest()[:32]


def normal_name(name: str) -> str:
    """`name` in the form in which voices are kept and looked up (NFC), however its accents are written."""
    # What is far too long is not brought to its normal form: marks cost the square of their number.
    return unicodedata.normalize("NFC", name) if len(name) <= MAX_WRITTEN else name


def checked_name(name: str, taken: Collection[str] = ()) -> str:
    """`name` in its normal form. Raises InputError; `taken` are names that mean something else here."""
    name = normal_name(name)
    if len(name) > MAX_NAME or not _NAME.fullmatch(name):
        raise InputError(
            f"a voice's name has 1 to {MAX_NAME} letters, digits, spaces and _ . - with a letter, a digit "
            "or _ at both ends",
            param="name",
            code="invalid_name",
        )
    if name.endswith(_SINGING):
        raise InputError(
            f"names that end with {' or '.join(_SINGING)} belong to the voices that sing",
            param="name",
            code="reserved_name",
        )
    if name in taken:
        raise InputError(f"{name!r} stands for another voice here", param="name", code="reserved_name")
    return name
