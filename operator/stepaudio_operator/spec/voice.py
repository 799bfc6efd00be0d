"""`StepAudioVoice`: a voice that stands in Git. `parse_voice` is the only door."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import Field, StringConstraints

from stepaudio_operator import names
from stepaudio_operator.errors import SpecError
from stepaudio_operator.spec.fields import SERVICE_LABEL, Model, Name
from stepaudio_operator.spec.reading import read

# Letters of any script, digits, spaces and _ . -, not beginning or ending with a space, a dot or a dash: all
# that ASCII has besides is left out by name, and the gateway looks at the rest.
_INSIDE = r"[^\x00-\x1f!-,/:-@\[-^`{-\x7f]"
_AT_THE_ENDS = r"[^\x00-/:-@\[-^`{-\x7f]"
VOICE_NAME = f"^{_AT_THE_ENDS}({_INSIDE}*{_AT_THE_ENDS})?$"
FILE_KEY = r"^[-._a-zA-Z0-9]+$"
SAYS_SOMETHING = r"^[\s\S]*[^ \t\r\n][\s\S]*$"

NAME_LIMIT = 64
UNNAMED_MESSAGE = f"a voice's name has at most {NAME_LIMIT} characters: set spec.name"

VoiceName = Annotated[str, StringConstraints(pattern=VOICE_NAME, min_length=1, max_length=NAME_LIMIT)]


class ConfigMapFile(Model):
    """A file under `binaryData` of a ConfigMap in the same namespace; at most 1 MiB fits."""

    name: Name
    key: Annotated[str, StringConstraints(pattern=FILE_KEY, min_length=1, max_length=253)]


class Recording(Model):
    """A sound file in any format that the gateway reads; FLAC and Opus are small."""

    config_map: ConfigMapFile


class Consent(Model):
    """Who agreed to being imitated, and in what words; both are kept with the voice."""

    person: Annotated[str, StringConstraints(pattern=SAYS_SOMETHING, min_length=1, max_length=200)]
    statement: Annotated[str, StringConstraints(pattern=SAYS_SOMETHING, min_length=1, max_length=1000)]
    recording: Recording | None = Field(default=None, description="The person saying so.")


class VoiceSpec(Model):
    """A voice of one deployment, kept in its voice store for as long as this object is there."""

    deployment: Annotated[
        str, StringConstraints(pattern=SERVICE_LABEL, min_length=1, max_length=names.DEPLOYMENT_NAME_LIMIT)
    ] = Field(description="StepAudioDeployment in the same namespace; it needs voices.store.")
    name: VoiceName | None = Field(
        default=None, description="What the API calls the voice; left out, metadata.name."
    )
    wave: Recording = Field(description="1 to 30 s of speech; 3 to 15 s serve best.")
    transcript: (
        Annotated[str, StringConstraints(pattern=SAYS_SOMETHING, min_length=1, max_length=1200)] | None
    ) = Field(default=None, description="What is said in it; left out, the chat model writes it down.")
    consent: Consent


def parse_voice(raw: Mapping[str, Any]) -> VoiceSpec:
    """The spec of a whole StepAudioVoice object. Raises SpecError with every problem found."""
    spec, problems = read(VoiceSpec, raw)
    if spec is not None and spec.name is None and len(raw["metadata"]["name"]) > NAME_LIMIT:
        problems = [*problems, ("metadata.name", UNNAMED_MESSAGE)]
    if problems or spec is None:
        raise SpecError(problems)
    return spec
