"""Voices that stand in Git: which of them the gateways are told to keep, and what their statuses say."""

from datetime import UTC, datetime
from typing import Any

import pytest

from stepaudio_operator import names, voices
from stepaudio_operator.conditions import Verdict
from stepaudio_operator.errors import SpecError
from stepaudio_operator.records import VoiceRecord, VoiceSaid, voice_of
from stepaudio_operator.render import deployment
from stepaudio_operator.render.images import ImageDefaults
from stepaudio_operator.spec.reading import parse_deployment
from stepaudio_operator.spec.voice import parse_voice

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
STAMP = "2026-01-02T03:04:05Z"
SUMS = {"wave": "aa", "recording": "bb"}
SPEC: dict[str, Any] = {
    "deployment": "prod",
    "name": "Ada",
    "wave": {"configMap": {"name": "ada", "key": "ada.flac"}},
    "transcript": "good morning",
    "consent": {
        "person": "Ada Example",
        "statement": "I agree.",
        "recording": {"configMap": {"name": "proofs", "key": "ada.opus"}},
    },
}


def voice(called: str = "ada", created: str = STAMP, status: Any = None, **spec: Any) -> dict[str, Any]:
    meta = {
        "name": called,
        "namespace": "speech",
        "uid": f"u-{called}",
        "generation": 3,
        "creationTimestamp": created,
    }
    raw = {"metadata": meta, "spec": SPEC | spec}
    return {**raw, "status": status} if status is not None else raw


def told(raw: dict[str, Any], verdict: Verdict, said: VoiceSaid | None = None, **sums: Any) -> dict[str, Any]:
    return voices.status(raw, parse_voice(raw), sums=SUMS | sums, verdict=verdict, said=said, now=NOW)


READY = Verdict("Stored", "speech can be asked for in this voice", ready=True)
WAITS = Verdict("Storing", "waits until a gateway has stored it")
DIGEST = voices.digest_of(voice(), parse_voice(voice()), SUMS)
ENTRY = {
    "uid": "u-ada",
    "name": "Ada",
    "digest": DIGEST,
    "wave": {"configMap": "ada", "key": "ada.flac", "sha256": "aa"},
    "person": "Ada Example",
    "statement": "I agree.",
    "transcript": "good morning",
    "consentRecording": {"configMap": "proofs", "key": "ada.opus", "sha256": "bb"},
}


def test_the_whole_status_of_a_voice_that_is_stored() -> None:
    said = VoiceSaid(DIGEST, "Stored", "Stored", "", 2.5, False)
    verdict = voices.judge({}, DIGEST, said, gateway=True)
    found = told(voice(), verdict, said)
    assert found.pop("conditions")[0] == {
        "type": "Ready",
        "status": "True",
        "observedGeneration": 3,
        "lastTransitionTime": STAMP,
        "reason": "Stored",
        "message": "speech can be asked for in this voice",
    }
    assert found == {
        "observedGeneration": 3,
        "name": "Ada",
        "sha256": "aa",
        "digest": DIGEST,
        "consent": {"person": "Ada Example", "statement": "I agree.", "recordingSha256": "bb"},
        "durationSeconds": 2.5,
        "transcribed": False,
    }


def test_gateways_are_told_of_a_voice_once_its_recordings_were_read() -> None:
    fresh = voice()
    assert voices.wanted([fresh], []) == []
    known = voice(status=told(fresh, WAITS))
    assert voices.wanted([known], []) == [ENTRY]
    # A change is told once what it says was read; until then the voice stays what it was.
    changed = voice(status=known["status"], transcript="good evening")
    assert voices.wanted([changed], [ENTRY]) == [ENTRY]
    after = voices.wanted([{**changed, "status": told(changed, WAITS)}], [ENTRY])
    assert [(e["transcript"], e["digest"] != DIGEST) for e in after] == [("good evening", True)]


def test_a_voice_that_goes_is_told_no_longer() -> None:
    going = voice(status=told(voice(), READY))
    going["metadata"]["deletionTimestamp"] = STAMP
    assert voices.wanted([going], [ENTRY]) == []


def test_of_one_name_the_oldest_has_it_and_the_others_say_so() -> None:
    old = voice("z", "2025-01-01T00:00:00Z", told(voice("z"), READY))
    new = voice("a", status=told(voice("a"), READY))
    assert [e["uid"] for e in voices.wanted([new, old], [])] == ["u-z"]
    records = [VoiceRecord.from_raw(raw) for raw in (new, old)]
    assert [voices.blocked(record, records, object(), True) for record in records] == [
        Verdict("NameTaken", "z has the name 'Ada' already: set another spec.name", stalled=True),
        None,
    ]


def test_a_deployment_keeps_a_hundred_voices() -> None:
    raws = [voice(f"v{n:03}", name=f"voice {n}") for n in range(voices.MOST + 1)]
    records = [VoiceRecord.from_raw(raw) for raw in raws]
    found = [voices.blocked(record, records, object(), True) for record in records]
    assert found == [None] * voices.MOST + [
        Verdict(
            "TooManyVoices",
            "100 older voices of prod are kept, and no more: delete one that is not needed",
            stalled=True,
        )
    ]


@pytest.mark.parametrize(
    ("deployment_", "has_store", "expected"),
    [
        (None, False, Verdict("DeploymentMissing", "waits for the StepAudioDeployment prod")),
        (
            object(),
            False,
            Verdict("NoVoiceStore", "prod keeps no voices: set voices.store in its spec", stalled=True),
        ),
    ],
)
def test_what_its_deployment_lacks(deployment_: Any, has_store: bool, expected: Verdict) -> None:
    record = VoiceRecord.from_raw(voice())
    assert voices.blocked(record, [record], deployment_, has_store) == expected


def test_what_a_gateway_says_is_judged_by_the_digest() -> None:
    failed = VoiceSaid(DIGEST, "Failed", "AudioSilent", "wave: the recording is silent")
    pending = VoiceSaid(DIGEST, "Pending", "Unavailable", "no pod of tts is ready")
    other = VoiceSaid("old", "Stored", "Stored", "")
    ready = told(voice(), READY)
    assert [
        voices.judge({}, DIGEST, None, gateway=False),
        voices.judge({}, DIGEST, other, gateway=True),
        voices.judge({}, DIGEST, pending, gateway=True),
        voices.judge({}, DIGEST, failed, gateway=True),
        voices.judge(ready, DIGEST, None, gateway=False),  # gateways come and go, the store stays
        voices.judge(ready, "new", None, gateway=True),
    ] == [
        Verdict("Storing", "waits for a gateway"),
        WAITS,
        Verdict("Unavailable", "no pod of tts is ready"),
        Verdict("AudioSilent", "wave: the recording is silent", stalled=True),
        READY,
        WAITS,
    ]
    assert [voices.is_final(DIGEST, said) for said in (None, other, pending, failed)] == [
        False,
        False,
        False,
        True,
    ]


def test_a_recording_that_cannot_be_read_leaves_what_was_known() -> None:
    known = voice(status=told(voice(), READY))
    missing = Verdict("RecordingMissing", "gone", stalled=True)
    after = voices.status(known, parse_voice(known), sums=None, verdict=missing, said=None, now=NOW)
    assert {k: v for k, v in after.items() if k != "conditions"} == {
        k: v for k, v in known["status"].items() if k != "conditions"
    }
    assert voices.wanted([{**known, "status": after}], []) == [ENTRY]


def test_an_answer_that_cannot_be_read_says_nothing() -> None:
    good = {
        "digest": "d",
        "state": "Stored",
        "reason": "Stored",
        "message": "",
        "durationSeconds": 2,
        "transcribed": True,
    }
    assert voice_of({"voices": {"u": good}}, "u") == VoiceSaid("d", "Stored", "Stored", "", 2.0, True)
    for body in (
        None,
        [],
        {},
        {"voices": []},
        {"voices": {}},
        {"voices": {"u": 3}},
        {"voices": {"u": {**good, "durationSeconds": "x"}}},
    ):
        assert voice_of(body, "u") is None


def test_what_no_schema_can_say_is_refused_by_its_field() -> None:
    with pytest.raises(SpecError, match=r"metadata.name: a voice's name has at most 64 characters"):
        parse_voice({"metadata": {"name": "x" * 65}, "spec": {k: v for k, v in SPEC.items() if k != "name"}})


def children(spec: dict[str, Any], entries: list[dict[str, Any]]) -> dict[tuple[str, str], dict[str, Any]]:
    raw = {
        "apiVersion": names.API_VERSION,
        "kind": names.DEPLOYMENT_KIND,
        "metadata": {"name": "prod", "namespace": "speech", "uid": "u1"},
        "spec": {"preset": "nano", **spec},
    }
    made = deployment.children(raw, parse_deployment(raw), {}, ImageDefaults("1", ""), voices=entries)
    return {(child["kind"], child["metadata"]["name"]): child for child in made}


STORE = {"voices": {"store": {"pvc": {"claimName": "v"}}}}


def test_the_gateway_may_read_the_recordings_that_it_is_told_of_and_no_other() -> None:
    made = children(STORE, [ENTRY])
    text = made["ConfigMap", "prod-voices"]["data"]["voices.json"]
    assert voices.entries_of({"data": {"voices.json": text}}) == [ENTRY]
    routing, slices, own, recordings = made["Role", "prod-gateway"]["rules"]
    assert (routing["resourceNames"], slices["resources"]) == (["prod-routing"], ["endpointslices"])
    assert (own["resourceNames"], own["verbs"]) == (["prod-voices"], ["get", "list", "watch"])
    assert recordings == {
        "apiGroups": [""],
        "resources": ["configmaps"],
        "resourceNames": ["ada", "proofs"],
        "verbs": ["get"],
    }


def test_without_a_store_nothing_is_made_and_what_was_made_goes() -> None:
    assert ("ConfigMap", "prod-voices") not in children({}, [])
    assert len(children({}, [])["Role", "prod-gateway"]["rules"]) == 2
    raw = {"metadata": {"name": "prod", "namespace": "speech"}, "spec": {"preset": "nano"}}
    mine = [("ConfigMap", "prod-voices"), ("ConfigMap", "prod-routing")]
    assert deployment.obsolete(raw, parse_deployment(raw), mine) == [("ConfigMap", "prod-voices")]
