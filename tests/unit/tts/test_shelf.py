"""Created voices as a TTS pod has them: prepared once for all pods, again for other models, never after they
are deleted; a voice made anew is another one.
"""

import asyncio

import numpy as np
import pytest
import torch

from stepaudio_runtime.audio.encoding import Format, encode
from stepaudio_runtime.errors import InputError, Unavailable
from stepaudio_runtime.tts import features
from stepaudio_runtime.tts.decoder import Prompt
from stepaudio_runtime.tts.shelf import Shelf
from stepaudio_runtime.tts.voices import Recording, VoicePrompt, Voices
from stepaudio_runtime.voices.record import Consent, VoiceRecord
from stepaudio_runtime.voices.store import open_store

OWN = Voices([VoicePrompt("Treble", "hello", Prompt((1,), torch.zeros(1, 2, 80), torch.zeros(1, 192)))])


def record(version: str) -> VoiceRecord:
    return VoiceRecord(
        name="Ada",
        version=version,
        created_at=0,
        transcript="good morning",
        transcribed=False,
        duration_s=1.0,
        sha256="0" * 64,
        consent=Consent(person="Ada", statement="yes"),
    )


class Models:
    """Prepares voices, and counts: the codes say how loud the wave is."""

    def __init__(self) -> None:
        self.prepared = 0
        self.gate = asyncio.Event()
        self.gate.set()

    async def prepare(self, recording: Recording) -> VoicePrompt:
        self.prepared += 1
        await self.gate.wait()
        codes = (round(float(np.abs(recording.wave).max()) * 100), 2)
        mel = torch.full((1, 5, 80), 0.5)
        return VoicePrompt(recording.name, recording.transcript, Prompt(codes, mel, torch.ones(1, 192)))


@pytest.fixture
async def store(tmp_path):
    store = open_store(f"file://{tmp_path}/voices")
    await create(store, "a1", 0.25)
    return store


async def create(store, version: str, level: float) -> None:
    wave = np.full(16_000, level, np.float32)
    assert await store.create(record(version), encode(wave, 16_000, Format.FLAC), None)


def same(one: VoicePrompt, other: VoicePrompt) -> bool:
    return (one.name, one.transcript, one.created, one.prompt.codes) == (
        other.name,
        other.transcript,
        other.created,
        other.prompt.codes,
    ) and all(
        torch.equal(getattr(one.prompt, part), getattr(other.prompt, part)) for part in ("mel", "embedding")
    )


async def test_a_voice_is_prepared_once_for_all_pods(store):
    models = Models()
    first = await Shelf(OWN, store, models.prepare, "r1").get("Ada")
    assert (first.name, first.transcript, first.created, first.prompt.codes) == (
        "Ada",
        "good morning",
        True,
        (25, 2),
    )
    later = await Shelf(OWN, store, models.prepare, "r1").get("Ada")
    assert same(first, later)
    assert models.prepared == 1
    await Shelf(OWN, store, models.prepare, "r2").get("Ada")
    assert models.prepared == 2, "other models hear another voice"


async def test_requests_that_come_together_wait_for_one_preparation(store):
    models = Models()
    models.gate.clear()
    shelf = Shelf(OWN, store, models.prepare, "r1")
    waiting = [asyncio.create_task(shelf.get("Ada")) for _ in range(5)]
    await asyncio.sleep(0.2)
    waiting[0].cancel()
    models.gate.set()
    found = await asyncio.gather(*waiting[1:])
    assert models.prepared == 1
    assert all(voice.prompt.codes == (25, 2) for voice in found)


async def test_a_deleted_voice_is_unknown_at_once_and_one_made_anew_is_another(store):
    models = Models()
    shelf = Shelf(OWN, store, models.prepare, "r1")
    assert (await shelf.get("Ada")).prompt.codes == (25, 2)
    await store.delete("Ada")
    with pytest.raises(InputError, match="unknown voice 'Ada'"):
        await shelf.get("Ada")
    await create(store, "b2", 0.5)
    assert (await shelf.get("Ada")).prompt.codes == (50, 2)


async def test_spoilt_features_are_made_again(store):
    models = Models()
    await store.keep_features(record("a1"), "r1", b"not an archive")
    assert (await Shelf(OWN, store, models.prepare, "r1").get("Ada")).prompt.codes == (25, 2)
    assert models.prepared == 1
    features.parse(await store.features(record("a1"), "r1"))


async def test_a_wave_that_cannot_be_read_is_no_fault_of_the_caller(store):
    await store.delete("Ada")
    assert await store.create(record("c3"), b"not audio", None)
    with pytest.raises(Unavailable, match="delete and create it again"):
        await Shelf(OWN, store, Models().prepare, "r1").get("Ada")


async def test_the_models_own_voices_need_no_store():
    assert (await Shelf(OWN).get(None)).name == "Treble"
    with pytest.raises(InputError, match="known are Treble"):
        await Shelf(OWN).get("Ada")


def test_the_revision_tells_models_apart(tmp_path):
    one, other = tmp_path / "one", tmp_path / "other"
    one.write_bytes(b"a" * 3_000_000 + b"b")
    other.write_bytes(b"c")
    revision = features.models_revision([one, other])
    assert features.models_revision([other, one]) == revision
    one.write_bytes(b"a" * 3_000_000 + b"c")
    assert features.models_revision([one, other]) != revision


@pytest.mark.parametrize(
    "spoil", [{"codes": np.array([5120], np.int32)}, {"mel": np.zeros((1, 3, 79), np.float32)}]
)
def test_features_of_other_shapes_are_refused(tmp_path, spoil):
    good = {
        "codes": np.array([1, 2], np.int32),
        "mel": np.zeros((1, 3, 80), np.float32),
        "embedding": np.zeros((1, 192), np.float32),
    }
    np.savez(tmp_path / "good.npz", **good)
    assert features.parse((tmp_path / "good.npz").read_bytes()).codes == (1, 2)
    np.savez(tmp_path / "bad.npz", **(good | spoil))
    with pytest.raises(ValueError, match="other shapes"):
        features.parse((tmp_path / "bad.npz").read_bytes())
