"""Voices that stand in Git: which of them a deployment's gateways keep, and what becomes of each. Pure.

1. A voice is wanted once its recordings have been read: then its status has their sums and a digest of all
   that it says. Until that is so again after a change, what was wanted before stays wanted.
2. Of several voices with one name the oldest has it; at most `MOST` belong to one deployment, the oldest.
3. Gateways bring what is wanted and say so by the digest. A voice that has been stored stays Ready while
   nobody says otherwise: the store is shared, and gateways come and go.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any

from stepaudio_operator import names
from stepaudio_operator.conditions import Verdict, conditions
from stepaudio_operator.errors import SpecError
from stepaudio_operator.records import VoiceRecord, VoiceSaid
from stepaudio_operator.spec.voice import ConfigMapFile, VoiceSpec, parse_voice

MOST = 100
"""Of a deployment: all of them stand in one ConfigMap, with their words."""
STORING = "Storing"


def wanted(voices: Iterable[Mapping[str, Any]], before: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """What gateways are to keep of a deployment's raw StepAudioVoices; `before` is what they keep now."""
    stored = {entry.get("uid"): dict(entry) for entry in before}
    raws = [(VoiceRecord.from_raw(raw), raw) for raw in voices]
    chosen = in_force(record for record, _ in raws)
    found = []
    for record, raw in sorted(raws, key=lambda pair: pair[0].age):
        if record in chosen and (entry := _entry(raw) or stored.get(record.uid)) is not None:
            found.append(entry)
    return found


def in_force(records: Iterable[VoiceRecord]) -> list[VoiceRecord]:
    """The voices of a deployment that its gateways keep."""
    chosen: dict[str, VoiceRecord] = {}
    for record in sorted(records, key=lambda r: r.age):
        if not record.deleting and len(chosen) < MOST:
            chosen.setdefault(record.voice, record)
    return list(chosen.values())


def blocked(
    me: VoiceRecord, others: Iterable[VoiceRecord], deployment: Any, has_store: bool
) -> Verdict | None:
    """Why the gateways cannot be told of a voice. `others` are the voices of its deployment, itself among
    them; `deployment` is None where there is none of that name.
    """
    if deployment is None:
        return Verdict("DeploymentMissing", f"waits for the StepAudioDeployment {me.deployment}")
    if not has_store:
        message = f"{me.deployment} keeps no voices: set voices.store in its spec"
        return Verdict("NoVoiceStore", message, stalled=True)
    chosen = in_force(others)
    if any(record.uid == me.uid for record in chosen):
        return None
    for record in chosen:
        if record.voice == me.voice:
            message = f"{record.name} has the name {me.voice!r} already: set another spec.name"
            return Verdict("NameTaken", message, stalled=True)
    message = f"{MOST} older voices of {me.deployment} are kept, and no more: delete one that is not needed"
    return Verdict("TooManyVoices", message, stalled=True)


def judge(before: Mapping[str, Any], digest: str, said: VoiceSaid | None, gateway: bool) -> Verdict:
    """What has become of a voice: `said` by a gateway, None where none has answered. `gateway`: whether there
    is one to ask.
    """
    if said is None or said.digest != digest:
        ready: Mapping[str, Any] = next(
            (c for c in before.get("conditions") or () if c.get("type") == "Ready"), {}
        )
        if before.get("digest") == digest and ready.get("status") == "True":
            return Verdict(ready["reason"], ready["message"], ready=True)
        return Verdict(STORING, "waits until a gateway has stored it" if gateway else "waits for a gateway")
    if said.state == "Stored":
        return Verdict("Stored", "speech can be asked for in this voice", ready=True)
    return Verdict(said.reason or STORING, said.message, stalled=said.state == "Failed")


def is_final(digest: str, said: VoiceSaid | None) -> bool:
    """Whether a gateway need not be asked again for now."""
    return said is not None and said.digest == digest and said.state in ("Stored", "Failed")


def status(
    raw: Mapping[str, Any],
    spec: VoiceSpec | SpecError,
    *,
    sums: Mapping[str, str] | None,
    verdict: Verdict,
    said: VoiceSaid | None,
    now: datetime,
) -> dict[str, Any]:
    """The whole status. `sums` are those of the recordings (`wave`, `recording`); None where they could not
    be read: what was known of them stays.
    """
    before, generation = raw.get("status") or {}, raw["metadata"].get("generation", 0)
    found: dict[str, Any] = {"observedGeneration": generation}
    kept = ("sha256", "digest", "consent", "durationSeconds", "transcribed")
    found |= {key: before[key] for key in kept if key in before}
    if not isinstance(spec, SpecError):
        found["name"] = called(raw, spec)
        if sums is not None:
            found["sha256"] = sums["wave"]
            found["digest"] = digest_of(raw, spec, sums)
            found["consent"] = {"person": spec.consent.person, "statement": spec.consent.statement}
            if "recording" in sums:
                found["consent"]["recordingSha256"] = sums["recording"]
            if found["digest"] != before.get("digest"):
                found.pop("durationSeconds", None)
                found.pop("transcribed", None)
    if said is not None and said.digest == found.get("digest") and said.duration_s is not None:
        found |= {"durationSeconds": said.duration_s, "transcribed": bool(said.transcribed)}
    return {**found, "conditions": conditions(before, generation, verdict, now)}


def called(raw: Mapping[str, Any], spec: VoiceSpec) -> str:
    """What the API calls the voice."""
    return spec.name or str(raw["metadata"]["name"])


def digest_of(raw: Mapping[str, Any], spec: VoiceSpec, sums: Mapping[str, str]) -> str:
    """Of all that a voice says: another one is another voice."""
    said = [called(raw, spec), spec.transcript, spec.consent.person, spec.consent.statement]
    text = json.dumps([*said, sums["wave"], sums.get("recording")], ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _entry(raw: Mapping[str, Any]) -> dict[str, Any] | None:
    """What gateways are told of a voice; None where its status does not speak of what it says now."""
    status_ = raw.get("status") or {}
    try:
        spec = parse_voice(raw)
    except SpecError:
        return None
    sums = {"wave": status_.get("sha256")}
    proof = (status_.get("consent") or {}).get("recordingSha256")
    if spec.consent.recording is not None:
        sums["recording"] = proof
    if None in sums.values() or digest_of(raw, spec, sums) != status_.get("digest"):  # type: ignore[arg-type]
        return None
    entry = {
        "uid": raw["metadata"]["uid"],
        "name": called(raw, spec),
        "digest": status_["digest"],
        "wave": _file(spec.wave.config_map, sums["wave"]),
        "person": spec.consent.person,
        "statement": spec.consent.statement,
    }
    if spec.transcript is not None:
        entry["transcript"] = spec.transcript
    if spec.consent.recording is not None:
        entry["consentRecording"] = _file(spec.consent.recording.config_map, proof)
    return entry


def _file(file: ConfigMapFile, sha256: str | None) -> dict[str, Any]:
    return {"configMap": file.name, "key": file.key, "sha256": sha256}


def object_of(owner: Mapping[str, Any], entries: Iterable[Mapping[str, Any]]) -> str:
    """The text of the ConfigMap's `names.VOICES_KEY`."""
    meta = owner["metadata"]
    document = {"owner": f"{meta['namespace']}/{meta['name']}", "voices": list(entries)}
    return json.dumps(document, ensure_ascii=False, separators=(",", ":"))


def entries_of(config_map: Mapping[str, Any] | None) -> list[dict[str, Any]]:
    """What stands in the ConfigMap; nothing where it is not there or cannot be read."""
    text = ((config_map or {}).get("data") or {}).get(names.VOICES_KEY) or "{}"
    try:
        found = json.loads(text).get("voices") or []
    except (ValueError, AttributeError):
        return []
    return [entry for entry in found if isinstance(entry, dict)]
