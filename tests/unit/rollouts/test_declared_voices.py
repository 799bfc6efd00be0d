"""A StepAudioVoice from its file to a gateway's store and back: the operator's code and the gateway's code
over one API server in memory. Only the model's own voices are played.
"""

import asyncio
import base64
import hashlib
from pathlib import Path

import pytest

from stepaudio_operator import names
from stepaudio_operator.records import VoiceSaid, voice_of
from stepaudio_runtime.gateway.declared_voices import ConfigMapFiles, DeclaredVoices
from stepaudio_runtime.gateway.watch import ApiFault
from stepaudio_runtime.voices.store import open_store
from tests.unit.gateway.test_declared_voices import Stage as GatewayStage
from tests.unit.gateway.test_declared_voices import sound
from tests.unit.rollouts.api import Place, Raw
from tests.unit.rollouts.world import DEPLOYMENT, NAME, NAMESPACE, World

VOICE: Place = (names.VOICE_KIND, NAMESPACE, "ada")
STORE = {"preset": "nano", "voices": {"store": {"pvc": {"claimName": "voices"}}}}


class Gateway:
    """The part of a gateway that brings voices, with the reads that its Role allows."""

    def __init__(self, world: World, folder: Path) -> None:
        self.stage = GatewayStage(folder)
        self.world = world
        self.voices = DeclaredVoices(open_store(f"file://{folder}"), self.stage.maker)
        self.files = ConfigMapFiles(self, NAMESPACE)  # type: ignore[arg-type]
        world.voice_said = self.said

    async def get(self, path: str) -> Raw:
        name = path.rpartition("/")[2]
        role = self.world.api.objects[("Role", NAMESPACE, f"{NAME}-gateway")]
        if not any(name in rule.get("resourceNames", ()) for rule in role["rules"]):
            raise ApiFault(403, f"{name} is forbidden")
        return self.world.api.objects[("ConfigMap", NAMESPACE, name)]

    def moves(self) -> None:
        """Looks at what the operator has written, and does it."""
        name = names.voices(NAME)
        self.voices.want({name: self.world.api.objects.get(("ConfigMap", NAMESPACE, name), {})}, name)
        asyncio.run(self.voices.bring_all(self.files))

    def said(self, uid: str) -> VoiceSaid | None:
        return voice_of(self.voices.as_json(), uid)

    def kept(self) -> dict[str, str | None]:
        return asyncio.run(self.stage.kept())


@pytest.fixture
def world() -> World:
    world = World(STORE, room={})
    assert world.settle()
    return world


@pytest.fixture
def gateway(world: World, tmp_path: Path) -> Gateway:
    return Gateway(world, tmp_path / "store")


def record(world: World, data: bytes) -> None:
    """Somebody's ConfigMap with a recording."""
    place = ("ConfigMap", NAMESPACE, "ada")
    binary = {"ada.wav": base64.b64encode(data).decode()}
    if place in world.api.objects:
        world.api.change(place, lambda raw: raw.update(binaryData=binary))
    else:
        body = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"namespace": NAMESPACE, "name": "ada"}}
        world.api.store("ConfigMap", {**body, "binaryData": binary})


def declare(world: World, **fields: object) -> None:
    spec = {
        "deployment": NAME,
        "name": "Ada",
        "wave": {"configMap": {"name": "ada", "key": "ada.wav"}},
        "transcript": "hello world",
        "consent": {"person": "Ada Example", "statement": "I agree."},
        **fields,
    }
    if VOICE in world.api.objects:
        world.api.change(VOICE, lambda raw: raw.update(spec=spec))
        return
    meta = {"namespace": NAMESPACE, "name": "ada"}
    world.api.store(
        names.VOICE_KIND,
        {"apiVersion": names.API_VERSION, "kind": names.VOICE_KIND, "metadata": meta, "spec": spec},
    )


def status(world: World) -> Raw:
    return world.api.objects[VOICE].get("status") or {}


def says(world: World, kind: str = "Ready") -> tuple[str, str]:
    found = {c["type"]: c for c in status(world)["conditions"]}
    return found[kind]["status"], found[kind]["reason"]


def passes(world: World, gateway: Gateway) -> None:
    """Everybody does what is to be done, and the operator's longest look comes round."""
    for _ in range(3):
        rounds(world)
        gateway.moves()
        world.pass_time(700)
    rounds(world)


def rounds(world: World) -> None:
    for _ in range(25):
        world.round()


def test_a_voice_comes_changes_and_goes(world: World, gateway: Gateway) -> None:
    wave = sound()
    record(world, wave)
    declare(world)
    rounds(world)
    assert says(world) == ("False", "Storing")
    gateway.moves()
    passes(world, gateway)
    assert says(world) == ("True", "Stored")
    assert {k: v for k, v in status(world).items() if k not in ("conditions", "digest")} == {
        "observedGeneration": 1,
        "name": "Ada",
        "sha256": hashlib.sha256(wave).hexdigest(),
        "consent": {"person": "Ada Example", "statement": "I agree."},
        "durationSeconds": 2.0,
        "transcribed": False,
    }
    assert gateway.kept() == {"Ada": world.api.objects[VOICE]["metadata"]["uid"]}
    calls = list(world.api.calls)
    passes(world, gateway)
    world.restart_operator()
    passes(world, gateway)
    assert world.api.calls == calls  # calm, also under another operator

    # Another recording in the same ConfigMap is seen within minutes, and a change of the spec at once.
    record(world, sound(3.0))
    passes(world, gateway)
    assert (says(world), status(world)["durationSeconds"]) == (("True", "Stored"), 3.0)
    declare(world, name="Grace")
    passes(world, gateway)
    assert list(gateway.kept()) == ["Grace"]

    world.api.remove(VOICE)
    rounds(world)
    gateway.moves()
    assert gateway.kept() == {}
    assert world.condition() == ("True", "Ready")


def test_what_is_missing_is_said_and_its_coming_is_enough(tmp_path: Path) -> None:
    world = World({"preset": "nano"}, room={})
    gateway = Gateway(world, tmp_path / "store")
    declare(world)
    rounds(world)
    assert says(world, "Stalled") == ("True", "NoVoiceStore")
    world.edit(STORE)
    rounds(world)
    assert says(world, "Stalled") == ("True", "RecordingMissing")
    record(world, b"no sound")  # nobody watches it, but it is looked for soon
    world.pass_time(20)
    rounds(world)
    assert says(world) == ("False", "Storing")
    passes(world, gateway)
    assert says(world, "Stalled") == ("True", "InvalidAudio")
    record(world, sound())
    passes(world, gateway)
    assert says(world) == ("True", "Stored")


def test_a_deployment_that_goes_leaves_its_voices(world: World, gateway: Gateway) -> None:
    record(world, sound())
    declare(world)
    passes(world, gateway)
    world.api.remove(DEPLOYMENT)
    world.api.remove(("ConfigMap", NAMESPACE, names.voices(NAME)))  # as the garbage collector does
    rounds(world)
    gateway.moves()
    assert list(gateway.kept()) == ["Ada"]
    assert says(world) == ("False", "DeploymentMissing")
