"""Voices that stand in Git: brings the store in step with what the operator has put into one ConfigMap.

The ConfigMap says which voices its deployment wants, in which ConfigMaps their recordings are and what those
hash to. Every gateway does the same work, and whoever comes later finds it done. A voice counts as brought by
the digest of all that was said of it. What belongs to this deployment and is no longer wanted is removed;
voices that were created through the API, or for another deployment, are never touched. Where the ConfigMap is
gone (with its deployment), nothing is removed.
"""

import asyncio
import base64
import hashlib
import json
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, Protocol

from stepaudio_runtime.bodies import DeclaredState, DeclaredStates
from stepaudio_runtime.contract import VOICES_KEY
from stepaudio_runtime.errors import InputError, StepAudioError
from stepaudio_runtime.gateway.voice_maker import Sent, VoiceMaker
from stepaudio_runtime.gateway.watch import Api, ApiFault, Objects, Reflector
from stepaudio_runtime.voices.record import Declared, VoiceRecord
from stepaudio_runtime.voices.store import VoiceStore

log = logging.getLogger(__name__)

RETRY_S = 10.0
"""After what may pass by itself: no TTS pod, a store that does not answer, a Role that is on its way."""
CHECK_S = 300.0
"""What has been brought, or refused, is looked at again."""


@dataclass(frozen=True)
class Source:
    """A file in a ConfigMap, and what it hashes to."""

    config_map: str
    key: str
    sha256: str


@dataclass(frozen=True)
class Wanted:
    """One voice as the operator asks for it."""

    uid: str
    name: str
    digest: str
    wave: Source
    transcript: str | None
    person: str
    statement: str
    recording: Source | None


class NotYet(StepAudioError):  # noqa: N818 - a state, not a fault
    """The recording cannot be had at the moment."""

    reason = "SourceUnavailable"


class Files(Protocol):
    """Where recordings are read from."""

    async def read(self, source: Source) -> bytes:
        """The file. Raises NotYet where it is not there, or is another one."""


class ConfigMapFiles:
    """Recordings in ConfigMaps of one namespace."""

    def __init__(self, api: Api, namespace: str) -> None:
        self._api = api
        self._namespace = namespace

    async def read(self, source: Source) -> bytes:
        """The bytes under `binaryData`."""
        path = f"/api/v1/namespaces/{self._namespace}/configmaps/{source.config_map}"
        try:
            found = await self._api.get(path)
        except ApiFault as fault:
            raise NotYet(f"ConfigMap {source.config_map} cannot be read: {fault}") from fault
        data = base64.b64decode((found.get("binaryData") or {}).get(source.key) or "")
        if hashlib.sha256(data).hexdigest() != source.sha256:
            raise NotYet(
                f"{source.key} in ConfigMap {source.config_map} is not what was asked for (any more)"
            )
        return data


class DeclaredVoices:
    """The voices of one deployment. `want` takes what the ConfigMap says, `run` does it."""

    def __init__(self, store: VoiceStore, maker: VoiceMaker) -> None:
        self._store = store
        self._maker = maker
        self._owner = ""
        self._wanted: dict[str, Wanted] | None = None
        self._states: dict[str, DeclaredState] = {}
        self._changed = asyncio.Event()

    def want(self, objects: Objects, config_map: str) -> None:
        """Takes in the ConfigMap of this name; what cannot be read leaves things as they are."""
        text = ((objects.get(config_map) or {}).get("data") or {}).get(VOICES_KEY)
        if text is None:
            return
        try:
            self._owner, self._wanted = parse_voices(text)
        except ValueError as fault:
            log.error(
                "the voices of ConfigMap %s are not usable, keeping the last ones: %s", config_map, fault
            )
            return
        self._changed.set()

    def as_json(self) -> DeclaredStates:
        """What has become of each voice, by its uid."""
        return {"voices": dict(self._states)}

    async def run(self, files: Files, retry_s: float = RETRY_S, check_s: float = CHECK_S) -> None:
        """Brings the store in step, for ever."""
        while True:
            self._changed.clear()
            settled = await self.bring_all(files)
            try:
                async with asyncio.timeout(check_s if settled else retry_s):
                    await self._changed.wait()
            except TimeoutError:
                continue

    async def bring_all(self, files: Files) -> bool:
        """Once. False where something may come out otherwise a little later."""
        if self._wanted is None:
            return True
        wanted = dict(self._wanted)
        try:
            await self._remove_others(wanted)
            settled = True
        except StepAudioError as fault:
            log.warning("voices that are no longer wanted are still there: %s", fault)
            settled = False
        states = {uid: await self._bring(voice, files) for uid, voice in wanted.items()}
        self._states = states
        return settled and all(state["state"] != "Pending" for state in states.values())

    async def _remove_others(self, wanted: Mapping[str, Wanted]) -> None:
        for record in await self._store.all():
            if (declared := record.declared) is None or declared.by != self._owner:
                continue
            voice = wanted.get(declared.uid)
            if voice is None or voice.name != record.name:
                await self._store.delete(record.name)
                log.info("voice %r was deleted: no StepAudioVoice asks for it any more", record.name)

    async def _bring(self, voice: Wanted, files: Files) -> DeclaredState:
        try:
            record = await self._stored(voice, files)
        except InputError as fault:
            what = f"{fault.param}: {fault.message}" if fault.param else fault.message
            return _state(voice, "Failed", _camel(fault.code or "invalid_voice"), what)
        except StepAudioError as fault:
            return _state(voice, "Pending", fault.reason, fault.message)
        found = _state(voice, "Stored", "Stored", "")
        found["durationSeconds"] = record.duration_s
        found["transcribed"] = record.transcribed
        return found

    async def _stored(self, voice: Wanted, files: Files) -> VoiceRecord:
        """The voice's record, made where it is not there. Raises StepAudioError."""
        declared = Declared(by=self._owner, uid=voice.uid, digest=voice.digest)
        name = await self._maker.free_name(voice.name)
        record = await self._store.get(name)
        if record is not None:
            if record.declared == declared:
                return record
            if record.declared is None or record.declared.by != self._owner:
                by = f"for {record.declared.by}" if record.declared else "through the API"
                raise InputError(
                    f"there is a voice {name!r} that was created {by}: delete it, or choose another name",
                    param="name",
                    code="voice_exists",
                )
        sent = Sent(
            await files.read(voice.wave),
            voice.transcript,
            voice.person,
            voice.statement,
            await files.read(voice.recording) if voice.recording is not None else None,
            declared,
        )
        made, file = await self._maker.make(name, sent, await self._maker.heard(sent))
        if record is not None:
            await self._store.replace(record, made, file, sent.proof)
        elif not await self._store.create(made, file, sent.proof):
            raise NotYet(f"another gateway has just brought {name!r}")
        log.info("voice %r was brought from ConfigMap %s", name, voice.wave.config_map)
        return made


def parse_voices(text: str) -> tuple[str, dict[str, Wanted]]:
    """The owner and the voices of the operator's object, by uid. Raises ValueError."""
    try:
        document = json.loads(text)
        voices = [_wanted(entry) for entry in document["voices"]]
        return str(document["owner"]), {voice.uid: voice for voice in voices}
    except (KeyError, TypeError, AttributeError) as fault:
        raise ValueError(f"it has no {fault}") from fault


def _wanted(entry: Mapping[str, Any]) -> Wanted:
    recording = entry.get("consentRecording")
    return Wanted(
        uid=entry["uid"],
        name=entry["name"],
        digest=entry["digest"],
        wave=_source(entry["wave"]),
        transcript=entry.get("transcript"),
        person=entry["person"],
        statement=entry["statement"],
        recording=_source(recording) if recording else None,
    )


def _source(entry: Mapping[str, str]) -> Source:
    return Source(entry["configMap"], entry["key"], entry["sha256"])


def _state(
    voice: Wanted, state: Literal["Pending", "Stored", "Failed"], reason: str, message: str
) -> DeclaredState:
    return {
        "digest": voice.digest,
        "state": state,
        "reason": reason,
        "message": message,
        "durationSeconds": None,
        "transcribed": None,
    }


def _camel(code: str) -> str:
    return "".join(word.capitalize() for word in code.split("_"))


class VoicesSource:
    """Watches the operator's ConfigMap and keeps `declared` at work."""

    def __init__(self, api: Api, namespace: str, config_map: str, declared: DeclaredVoices) -> None:
        self._api = api
        self._tasks: list[asyncio.Task[None]] = []
        self._declared = declared
        self._files = ConfigMapFiles(api, namespace)
        self._reflector = Reflector(
            api,
            f"/api/v1/namespaces/{namespace}/configmaps",
            {"fieldSelector": f"metadata.name={config_map}"},
            lambda objects: declared.want(objects, config_map),
        )

    async def start(self) -> None:
        """Begin."""
        for work in (self._reflector.run(), self._declared.run(self._files)):
            self._tasks.append(asyncio.create_task(work, name="declared-voices"))

    async def stop(self) -> None:
        """End."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._api.close()
