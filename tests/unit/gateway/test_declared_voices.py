"""Voices that stand in Git, at a gateway: brought from what the operator wrote, whoever else is at it,
replaced, removed, and refused in words; what others made is never touched. The store is real, the model's
voices are played.
"""

import asyncio
import hashlib
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from stepaudio_runtime.errors import Unavailable
from stepaudio_runtime.gateway.declared_voices import DeclaredVoices, NotYet, Source
from stepaudio_runtime.gateway.media import Media
from stepaudio_runtime.gateway.voice_maker import Sent, VoiceMaker
from stepaudio_runtime.voices.record import Declared
from stepaudio_runtime.voices.store import VoiceStore, open_store

OWNER = "speech/prod"


def sound(seconds: float = 2.0, pitch: float = 150, level: float = 0.4) -> bytes:
    t = np.arange(round(seconds * 16_000)) / 16_000
    wave = sum(np.sin(2 * np.pi * pitch * n * t) / n for n in range(1, 20)) * np.sin(2 * np.pi * 2.2 * t)
    out = io.BytesIO()
    soundfile.write(out, level * wave / np.abs(wave).max(), 16_000, format="WAV")
    return out.getvalue()


class Tts:
    """The catalogue's part: names that mean something else; `ready`: whether a pod can be asked for them."""

    ready = True

    async def fixed_voices(self) -> frozenset[str]:
        if not self.ready:
            raise Unavailable("no pod of tts is ready")
        return frozenset({"lulu"})

    def has(self, pool: str) -> bool:
        return False


class Recordings:
    """ConfigMaps by name and key."""

    def __init__(self) -> None:
        self.files: dict[tuple[str, str], bytes] = {}
        self.read_times = 0

    async def read(self, source: Source) -> bytes:
        self.read_times += 1
        data = self.files.get((source.config_map, source.key), b"")
        if hashlib.sha256(data).hexdigest() != source.sha256:
            raise NotYet(f"{source.key} is not there")
        return data


class Stage:
    def __init__(self, folder: Path) -> None:
        self.url = f"file://{folder}"
        self.store: VoiceStore = open_store(self.url)
        self.tts, self.recordings = Tts(), Recordings()
        media = Media(max_audio_s=30, max_bytes=4 << 20, threads=1)
        self.maker = VoiceMaker(media, self.tts, None, lambda: 1.0)  # type: ignore[arg-type]
        self.gateway = DeclaredVoices(self.store, self.maker)
        self.voices: dict[str, dict[str, Any]] = {}

    def declare(self, uid: str, name: str, data: bytes, **fields: Any) -> None:
        self.recordings.files[uid, "a.wav"] = data
        sha256 = hashlib.sha256(data).hexdigest()
        said = {"transcript": "hello world", "person": "Li Hua", "statement": "I agree."} | fields
        self.voices[uid] = {
            "uid": uid,
            "name": name,
            "digest": hashlib.sha256(f"{name}{said}{sha256}".encode()).hexdigest(),
            "wave": {"configMap": uid, "key": "a.wav", "sha256": sha256},
            **said,
        }

    def config_map(self) -> dict[str, Any]:
        text = json.dumps({"owner": OWNER, "voices": list(self.voices.values())})
        return {"prod-voices": {"data": {"voices.json": text}}}

    async def bring(self, gateway: DeclaredVoices | None = None) -> dict[str, tuple[str, str, str]]:
        """(state, reason, message) of each voice, after one look of a gateway at what is declared."""
        gateway = gateway or self.gateway
        gateway.want(self.config_map(), "prod-voices")
        await gateway.bring_all(self.recordings)
        states = gateway.as_json()["voices"]
        assert all(states[uid]["digest"] == self.voices[uid]["digest"] for uid in states)
        return {uid: (state["state"], state["reason"], state["message"]) for uid, state in states.items()}

    async def kept(self) -> dict[str, str | None]:
        """Name -> uid of who asked for it, None for the API."""
        return {r.name: r.declared.uid if r.declared else None for r in await self.store.all()}


@pytest.fixture
def stage(tmp_path: Path) -> Stage:
    return Stage(tmp_path / "voices")


STORED = ("Stored", "Stored", "")


async def test_a_voice_is_brought_once_with_its_words_and_consent(stage: Stage) -> None:
    wave, proof = sound(2.5), sound(1.5)
    stage.recordings.files["proofs", "p.wav"] = proof
    recording = {"configMap": "proofs", "key": "p.wav", "sha256": hashlib.sha256(proof).hexdigest()}
    stage.declare("u1", "小明", wave, consentRecording=recording)
    assert await stage.bring() == {"u1": STORED}
    record = await stage.store.get("小明")
    assert record is not None
    assert record.model_dump(exclude={"version"}) == {
        "name": "小明",
        "created_at": 1,
        "transcript": "hello world",
        "transcribed": False,
        "duration_s": 2.5,
        "sha256": hashlib.sha256(wave).hexdigest(),
        "consent": {
            "person": "Li Hua",
            "statement": "I agree.",
            "recording_sha256": hashlib.sha256(proof).hexdigest(),
        },
        "declared": {"by": OWNER, "uid": "u1", "digest": stage.voices["u1"]["digest"]},
    }
    read = stage.recordings.read_times
    assert await stage.bring(DeclaredVoices(open_store(stage.url), stage.maker)) == {"u1": STORED}
    assert stage.recordings.read_times == read  # another gateway finds it done
    states = stage.gateway.as_json()["voices"]["u1"]
    assert (states["durationSeconds"], states["transcribed"]) == (2.5, False)


async def test_gateways_that_begin_at_once_bring_one_voice(stage: Stage) -> None:
    stage.declare("u1", "Ada", sound())
    gateways = [DeclaredVoices(open_store(stage.url), stage.maker) for _ in range(4)]
    await asyncio.gather(*map(stage.bring, gateways))
    assert [await stage.bring(gateway) for gateway in gateways] == [{"u1": STORED}] * 4
    assert await stage.kept() == {"Ada": "u1"}


async def test_a_change_takes_the_place_of_what_was_there(stage: Stage, tmp_path: Path) -> None:
    stage.declare("u1", "Ada", sound(2.0))
    await stage.bring()
    before = await stage.store.get("Ada")
    stage.declare("u1", "Ada", sound(3.0), transcript="good evening")
    assert await stage.bring() == {"u1": STORED}
    after = await stage.store.get("Ada")
    assert before is not None
    assert after is not None
    assert (after.transcript, after.duration_s, after.version != before.version) == (
        "good evening",
        3.0,
        True,
    )
    assert sorted(p.name for p in (tmp_path / "voices").rglob("*.*")) == sorted(
        ["voice.json", f"{after.version}.flac"]
    )
    stage.declare("u1", "Grace", sound(3.0))
    await stage.bring()
    assert await stage.kept() == {"Grace": "u1"}


async def test_what_is_no_longer_wanted_goes_and_nothing_else(stage: Stage) -> None:
    stage.declare("u1", "Ada", sound())
    stage.declare("u2", "Bo", sound(pitch=200))
    await stage.bring()
    sent = Sent(sound(), "hello", "Li Hua", "I agree.")
    made, file = await stage.maker.make("Api", sent, await stage.maker.heard(sent))
    assert await stage.store.create(made, file, None)
    declared = Declared(by="speech/two", uid="u9", digest="d")
    other = made.model_copy(update={"name": "Other", "version": "v", "declared": declared})
    assert await stage.store.create(other, file, None)

    del stage.voices["u1"]
    assert await stage.bring() == {"u2": STORED}
    assert await stage.kept() == {"Api": None, "Bo": "u2", "Other": "u9"}
    # The ConfigMap goes with its deployment: that says nothing about the voices.
    stage.gateway.want({}, "prod-voices")
    await stage.gateway.bring_all(stage.recordings)
    assert await stage.kept() == {"Api": None, "Bo": "u2", "Other": "u9"}
    stage.voices.clear()
    await stage.bring()
    assert await stage.kept() == {"Api": None, "Other": "u9"}


async def test_a_name_that_somebody_else_has_is_left_to_them(stage: Stage) -> None:
    sent = Sent(sound(), "hello", "Li Hua", "I agree.")
    made, file = await stage.maker.make("Ada", sent, await stage.maker.heard(sent))
    await stage.store.create(made, file, None)
    stage.declare("u1", "Ada", sound())
    stage.declare("u2", "lulu", sound())
    assert await stage.bring() == {
        "u1": (
            "Failed",
            "VoiceExists",
            "name: there is a voice 'Ada' that was created through the API: delete it, or choose another"
            " name",
        ),
        "u2": ("Failed", "ReservedName", "name: 'lulu' stands for another voice here"),
    }
    assert await stage.store.get("Ada") == made


@pytest.mark.parametrize(
    ("data", "fields", "reason"),
    [
        (sound(level=0.0001), {}, "AudioSilent"),
        (sound(0.3), {}, "AudioTooShort"),
        (sound(40.0), {}, "AudioTooLong"),
        (b"no sound at all", {}, "InvalidAudio"),
        (sound(), {"transcript": "word " * 200}, "InvalidTranscript"),
        (sound(), {"transcript": None}, "TranscriptRequired"),
    ],
)
async def test_what_the_api_would_refuse_is_refused(
    stage: Stage, data: bytes, fields: dict[str, Any], reason: str
) -> None:
    stage.declare("u1", "Ada", data, **fields)
    found = (await stage.bring())["u1"]
    assert (found[0], found[1], await stage.kept()) == ("Failed", reason, {})


async def test_what_may_pass_is_waited_for_and_tried_again(stage: Stage) -> None:
    stage.declare("u1", "Ada", sound())
    stage.tts.ready = False
    assert await stage.bring() == {"u1": ("Pending", "Unavailable", "no pod of tts is ready")}
    stage.tts.ready = True
    stage.recordings.files.clear()
    assert await stage.bring() == {"u1": ("Pending", "SourceUnavailable", "a.wav is not there")}
    work = asyncio.create_task(stage.gateway.run(stage.recordings, retry_s=0.02))
    await asyncio.sleep(0.1)
    stage.declare("u1", "Ada", sound())
    async with asyncio.timeout(20):
        while await stage.kept() != {"Ada": "u1"}:  # noqa: ASYNC110 - the change comes from the code under test
            await asyncio.sleep(0.02)
    work.cancel()


@pytest.mark.parametrize(
    "text", ["{", "[]", '{"owner": "x"}', '{"owner": "x", "voices": [{"uid": "u"}]}', "3"]
)
async def test_an_object_that_cannot_be_read_changes_nothing(stage: Stage, text: str) -> None:
    stage.declare("u1", "Ada", sound())
    await stage.bring()
    stage.gateway.want({"prod-voices": {"data": {"voices.json": text}}}, "prod-voices")
    await stage.gateway.bring_all(stage.recordings)
    assert await stage.kept() == {"Ada": "u1"}
