"""Voices that stand in Git, and what a gateway says has become of one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from stepaudio_operator.records.reading import intern, text

_LONGEST_S = 3600  # of a recording


@dataclass(frozen=True, slots=True)
class VoiceRecord:
    """A StepAudioVoice as its deployment and others of its name see it."""

    name: str
    uid: str
    deployment: str
    voice: str  # what the API calls it
    created: str
    deleting: bool
    digest: str  # of what its status speaks of, "" before its recordings were read

    @classmethod
    def from_raw(cls, raw: Mapping[str, Any]) -> VoiceRecord:
        """Project a StepAudioVoice (also one whose spec does not parse)."""
        meta, spec, status = raw["metadata"], raw.get("spec") or {}, raw.get("status") or {}
        return cls(
            name=meta["name"],
            uid=meta.get("uid") or "",
            deployment=intern(spec.get("deployment")),
            voice=text(spec.get("name")) or meta["name"],
            created=str(meta.get("creationTimestamp") or ""),
            deleting=meta.get("deletionTimestamp") is not None,
            digest=text(status.get("digest")),
        )

    @property
    def age(self) -> tuple[str, str]:
        """The order in which voices of one name come."""
        return self.created, self.name


@dataclass(frozen=True, slots=True)
class VoiceSaid:
    """What a gateway says of a voice: `state` is Pending, Stored or Failed, of what hashes to `digest`."""

    digest: str
    state: str
    reason: str
    message: str
    duration_s: float | None = None
    transcribed: bool | None = None


def voice_of(body: Any, uid: str) -> VoiceSaid | None:
    """What the answer of a gateway says of the voice `uid`; None where it says nothing that can be read."""
    try:
        said = body["voices"][uid]
        duration, transcribed = said.get("durationSeconds"), said.get("transcribed")
        return VoiceSaid(
            digest=str(said["digest"]),
            state=str(said["state"]),
            reason=text(said["reason"]),
            message=text(said["message"]),
            duration_s=float(duration) if duration is not None and 0 <= duration < _LONGEST_S else None,
            transcribed=transcribed if isinstance(transcribed, bool) else None,
        )
    except (KeyError, TypeError, ValueError, AttributeError):
        return None
