"""A StepAudioVoice on the real API server: the gateways are told of it and may read its recording and no
other, its status follows what they say, and they are told no longer once it is deleted.
"""

import asyncio
import base64
import hashlib
import json
from typing import Any

import pytest

from stepaudio_operator import names
from stepaudio_operator.kube import resources
from tests.integration.operator.conftest import Stage
from tests.integration.operator.world import LONG_LEASE, condition, eventually, ready

pytestmark = pytest.mark.api

WAVE = b"RIFF\x00\xff of a person"
REVIEWS = "/apis/authorization.k8s.io/v1/subjectaccessreviews"


async def may(stage: Stage, verb: str, resource: str, name: str) -> bool:
    """What the gateway's ServiceAccount may do, as the API server judges it."""
    asked = {"namespace": stage.namespace, "verb": verb, "resource": resource, "name": name}
    who = f"system:serviceaccount:{stage.namespace}:nano-gateway"
    body = {
        "apiVersion": "authorization.k8s.io/v1",
        "kind": "SubjectAccessReview",
        "spec": {"user": who, "resourceAttributes": asked},
    }
    return bool((await stage.admin.call("POST", REVIEWS, body))["status"]["allowed"])


async def test_a_voice_comes_and_goes(stage: Stage) -> None:
    admin, namespace = stage.admin, stage.namespace
    operator = stage.start_operator(**LONG_LEASE)
    await stage.deploy("nano", voices={"store": {"pvc": {"claimName": "voices"}}})
    recording = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"namespace": namespace, "name": "ada"}}
    recording["binaryData"] = {"ada.wav": base64.b64encode(WAVE).decode()}
    voice: dict[str, Any] = {
        "apiVersion": resources.VOICES.api_version,
        "kind": resources.VOICES.kind,
        "metadata": {"namespace": namespace, "name": "ada"},
        "spec": {
            "deployment": "nano",
            "name": "Ada",
            "wave": {"configMap": {"name": "ada", "key": "ada.wav"}},
            "consent": {"person": "Ada Example", "statement": "I agree."},
        },
    }
    await admin.apply(resources.VOICES, voice)

    async def told() -> list[dict[str, Any]] | None:
        stored = await admin.find(resources.CONFIG_MAPS, namespace, names.voices("nano"))
        return json.loads(stored["data"][names.VOICES_KEY])["voices"] if stored else None

    async def says(kind: str, reason: str) -> dict[str, Any] | None:
        raw = await admin.get(resources.VOICES, namespace, "ada")
        found = condition(raw, kind)
        return raw if (found.get("status"), found.get("reason")) == ("True", reason) else None

    async with stage.gateways("nano"):
        await eventually(lambda: ready(admin, namespace, "nano"), "Ready")
        await eventually(lambda: says("Stalled", "RecordingMissing"), "its recording is missed")
        assert await told() == []
        await admin.apply(resources.CONFIG_MAPS, recording)
        await admin.patch(resources.VOICES, namespace, "ada", {"metadata": {"labels": {"look": "again"}}})
        raw = await eventually(lambda: says("Ready", "Stored"), "it is stored")
        sha256 = hashlib.sha256(WAVE).hexdigest()
        assert {k: v for k, v in raw["status"].items() if k not in ("conditions", "digest")} == {
            "observedGeneration": 1,
            "name": "Ada",
            "sha256": sha256,
            "consent": {"person": "Ada Example", "statement": "I agree."},
            "durationSeconds": 2.5,
            "transcribed": True,
        }
        (entry,) = await told() or ()
        assert (entry["wave"]["sha256"], entry["digest"]) == (sha256, raw["status"]["digest"])
        assert [
            await may(stage, "get", "configmaps", "ada"),
            await may(stage, "watch", "configmaps", "nano-voices"),
            await may(stage, "get", "configmaps", "another"),
            await may(stage, "list", "configmaps", "ada"),
            await may(stage, "get", "secrets", "ada"),
        ] == [True, True, False, False, False]

        await eventually(lambda: ready(admin, namespace, "nano"), "Ready again")
        before = await operator.writes()
        await asyncio.sleep(5)
        assert await operator.writes() == before

        # Its next life hears of the voice before it hears of the deployment.
        stored = await admin.get(resources.VOICES, namespace, "ada")
        operator.kill()
        operator.start()
        await eventually(operator.leads, "the next operator leads")
        await asyncio.sleep(5)
        assert await admin.get(resources.VOICES, namespace, "ada") == stored
        assert not any((await operator.writes()).values())
        await admin.delete(resources.VOICES, namespace, "ada")

        async def forgotten() -> bool:
            return await told() == [] and not await may(stage, "get", "configmaps", "ada")

        await eventually(forgotten, "the gateways are told of no voice")
