"""The volume of downloaded models: its name, the whole objects, what is done in which state."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import kubernetes_validate
import pytest
import yaml

from stepaudio_operator.conditions import Verdict
from stepaudio_operator.foresight import preview
from stepaudio_operator.jobs import percent_step
from stepaudio_operator.model_cache import (
    CachePlan,
    CacheStep,
    mounted,
    plan_cache,
    shared_policy,
    shared_size,
    unused,
)
from stepaudio_operator.records import CacheObserved, ClaimRecord, JobRecord, PodRecord
from stepaudio_operator.render import models as render
from stepaudio_operator.render.images import ImageDefaults
from stepaudio_operator.spec.deployment import DeploymentSpec
from stepaudio_operator.spec.reading import parse_deployment

NOW = datetime(2026, 11, 25, 12, tzinfo=UTC)
IMAGES = ImageDefaults("1.2.3", "reg")
HUB: dict[str, Any] = {"source": {"huggingFace": {}}}


def parsed(**spec: Any) -> DeploymentSpec:
    return parse_deployment({"metadata": {"name": "prod"}, "spec": {"preset": "step-audio", **spec}})


def volume(models: dict[str, Any], **spec: Any) -> str | None:
    return render.claim_name(parsed(models=models, **spec))


def test_a_volume_is_named_after_what_it_holds() -> None:
    name = volume(HUB)
    assert name is not None
    assert name.startswith("models-")
    # How it is reached, how large it is and what becomes of it later changes nothing of what it holds.
    token = {"source": {"huggingFace": {"tokenSecretRef": {"name": "hf"}}}}
    assert volume(token) == volume({**HUB, "cache": {"size": "1Ti", "whenUnused": "Delete"}}) == name
    assert volume(HUB, runtime={"version": "9"}, tts={"replicas": 3}) == name
    others = [
        volume({"source": {"modelScope": {}}}),
        volume({"source": {"s3": {"bucket": "speech"}}}),
        volume({"source": {"huggingFace": {"revisions": {"chat": "5f0c2d6b"}}}}),
        volume({"source": {"huggingFace": {"organization": "other"}}}),
        volume(HUB, chat={"enabled": False}, tokenizer={"enabled": False}),
        volume({**HUB, "cache": {"storageClassName": "fast"}}),
        volume({**HUB, "cache": {"accessMode": "ReadWriteOnce"}}),
    ]
    assert len({name, *others}) == 8
    assert volume({"source": {"pvc": {"claimName": "mine"}}}) is None


def test_the_claim() -> None:
    spec = parsed(models={**HUB, "cache": {"size": "400Gi", "storageClassName": "fast"}})
    name = render.claim_name(spec)
    assert name is not None
    made = render.claim("speech", name, spec, size=render.size(spec), policy="Keep", users=[("prod", "u1")])
    assert made == {
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": {
            "name": name,
            "namespace": "speech",
            "labels": {
                "app.kubernetes.io/name": "step-audio",
                "app.kubernetes.io/managed-by": "stepaudio-operator",
                "stepaudio.io/models": name,
                "stepaudio.io/when-unused": "Keep",
            },
        },
        "spec": {
            "accessModes": ["ReadWriteMany"],
            "resources": {"requests": {"storage": "400Gi"}},
            "storageClassName": "fast",
        },
    }
    goes = render.claim(
        "speech", name, spec, size="1Ti", policy="Delete", users=[("prod", "u1"), ("test", "u2")]
    )
    assert [(o["name"], o["uid"]) for o in goes["metadata"]["ownerReferences"]] == [
        ("prod", "u1"),
        ("test", "u2"),
    ]
    kubernetes_validate.validate(goes, "1.31", strict=True)


def test_the_job() -> None:
    s3 = {"s3": {"bucket": "speech", "prefix": "v1", "credentialsSecretRef": {"name": "keys"}}}
    template = {"nodeSelector": {"pool": "gpu"}, "tolerations": [{"operator": "Exists"}]}
    spec = parsed(models={"source": s3}, chat={"podTemplate": template})
    name = render.claim_name(spec)
    assert name is not None
    made = render.job("speech", name, "u9", spec, IMAGES)
    kubernetes_validate.validate(made, "1.31", strict=True)
    pod = made["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    assert made["metadata"]["ownerReferences"] == [
        {"apiVersion": "v1", "kind": "PersistentVolumeClaim", "name": name, "uid": "u9"}
    ]
    assert made["spec"]["podFailurePolicy"]["rules"][0] == {
        "action": "FailJob",
        "onExitCodes": {"containerName": "main", "operator": "In", "values": [78]},
    }
    assert container["image"] == "reg/stepaudio/gateway:1.2.3"
    assert container["command"] == ["stepaudio", "models", "fetch", "/models", "--port", "8000"]
    assert container["env"] == [
        {"name": "HOME", "value": "/tmp"},
        {
            "name": "STEPAUDIO_MODELS_SOURCE",
            "value": '{"components": ["chat", "tts", "tokenizer"],'
            ' "s3": {"bucket": "speech", "prefix": "v1"}}',
        },
    ]
    assert container["envFrom"] == [{"secretRef": {"name": "keys"}}]
    assert (pod["nodeSelector"], pod["tolerations"]) == ({"pool": "gpu"}, [{"operator": "Exists"}])
    assert pod["securityContext"]["fsGroup"] == 10001
    assert pod["volumes"][1] == {"name": "models", "persistentVolumeClaim": {"claimName": name}}


def test_the_image_is_found_where_the_pods_of_the_job_are_put() -> None:
    models = {"source": {"huggingFace": {}}, "cache": {"nodeLocal": {"claimName": "disks"}}}
    chat = {"podTemplate": {"registry": "mirror.gpu.local", "nodeSelector": {"zone": "gpu"}}}
    tts = {"podTemplate": {"registry": "mirror.cpu.local"}}
    own = {"registry": "public.example.com"}
    cases: list[tuple[dict[str, Any], str]] = [
        ({}, "chart.example.com/"),
        ({"runtime": own}, "public.example.com/"),
        ({"runtime": own, "tts": tts}, "mirror.cpu.local/"),
        ({"runtime": own, "tts": tts, "chat": chat}, "mirror.gpu.local/"),
        ({"runtime": own, "chat": {"podTemplate": {"registry": ""}}}, ""),
    ]
    for said, prefix in cases:
        spec = parsed(models=models, **said)
        folder = render.node_folder(spec)
        assert folder is not None
        images = ImageDefaults("1.2.3", "chart.example.com")
        made = (
            render.job("ns", "m", "u", spec, images),
            render.copy_job("ns", folder, "n1", spec, images, policy="Keep"),
        )
        found = {job["spec"]["template"]["spec"]["containers"][0]["image"] for job in made}
        assert found == {f"{prefix}stepaudio/gateway:1.2.3"}


def test_a_token_goes_into_the_job_alone() -> None:
    hub = {"modelScope": {"tokenSecretRef": {"name": "ms", "key": "sdk"}}}
    document = {
        "apiVersion": "stepaudio.io/v1alpha1",
        "kind": "StepAudioDeployment",
        "metadata": {"name": "prod"},
        "spec": {"preset": "step-audio", "models": {"source": hub}},
    }
    objects = [planned.body for planned in preview.objects(document, IMAGES)]
    with_token = [o["kind"] for o in objects if "secretKeyRef" in yaml.safe_dump(o)]
    assert with_token == ["Job"]
    claim = next(o["metadata"]["name"] for o in objects if o["kind"] == "PersistentVolumeClaim")
    pools = {o["spec"]["component"]: o["spec"].get("models") for o in objects if o["kind"] == "StepAudioPool"}
    mounted = {"source": {"pvc": {"claimName": claim}}}
    assert pools == {"chat": mounted, "tts": mounted, "tokenizer": mounted, "gateway": None}


CLAIM = ClaimRecord("models-1", "u1", "Bound", "320Gi", False, "Keep", ())
JOB = JobRecord(
    "models-1", "u2", complete=False, failed=False, reason="", message="", failed_at=None, deleting=False
)
FAILED = replace(JOB, failed=True, reason="PodFailurePolicy", message="exit code 78", failed_at=NOW)
POD = PodRecord.from_raw(
    {"metadata": {"name": "models-1-x", "namespace": "n"}, "status": {"phase": "Running"}}
)
UNAUTHORIZED = "SourceUnauthorized: http://hub answers 401; cure"
ENDED = replace(
    POD,
    phase="Failed",
    finished=NOW,
    exit_code=78,
    exit_message="SourceUnauthorized: http://hub answers 401; cure",
)


def downloading(message: str) -> Verdict:
    return Verdict("DownloadingModels", message)


MADE = downloading("volume models-1 is being made")
FILLING = "volume models-1 is being filled; status.cache says how far"


@pytest.mark.parametrize(
    ("seen", "plan"),
    [
        (
            CacheObserved(),
            CachePlan({"phase": "Pending"}, None, MADE),
        ),
        (
            CacheObserved(CLAIM),
            CachePlan(
                {"phase": "Pending"}, CacheStep.CREATE_JOB, downloading("volume models-1 is being made")
            ),
        ),
        (
            CacheObserved(replace(CLAIM, deleting=True), JOB),
            CachePlan({"phase": "Pending"}, None, downloading("volume models-1 is being deleted")),
        ),
        (
            CacheObserved(replace(CLAIM, phase="Lost"), JOB),
            CachePlan(
                {"phase": "Failed"},
                None,
                Verdict(
                    "VolumeLost",
                    "volume models-1 has lost its disk; delete the claim to download anew",
                    stalled=True,
                ),
            ),
        ),
        (CacheObserved(CLAIM, JOB), CachePlan({"phase": "Downloading"}, None, downloading(FILLING))),
        (
            CacheObserved(CLAIM, JOB, (POD,), 129_999, 200_000),
            CachePlan(
                {"phase": "Downloading", "percent": 60, "bytesTotal": 200_000}, None, downloading(FILLING)
            ),
        ),
        (
            CacheObserved(CLAIM, JOB, (replace(POD, unschedulable="no node has room"),)),
            CachePlan(
                {"phase": "Downloading"},
                None,
                downloading("the pod that fills volume models-1 waits: no node has room"),
            ),
        ),
        (
            CacheObserved(
                CLAIM, JOB, (replace(POD, waiting="ImagePullBackOff", waiting_message="no image"),)
            ),
            CachePlan(
                {"phase": "Downloading"},
                None,
                Verdict("ImagePullBackOff", "the pod that fills volume models-1: no image"),
            ),
        ),
        (  # it waits, and says for what
            CacheObserved(CLAIM, JOB, (POD,), said=("SourceRateLimited", "429; it is tried again")),
            CachePlan({"phase": "Downloading"}, None, Verdict("SourceRateLimited", "429; it is tried again")),
        ),
        (
            CacheObserved(CLAIM, JOB, (POD,), said=("Downloading", "hub: 12 of 40 MB, 3 min left")),
            CachePlan({"phase": "Downloading"}, None, downloading(FILLING)),
        ),
        (  # between two tries, the last one's own words
            CacheObserved(CLAIM, JOB, (replace(ENDED, exit_message="SourceRateLimited: 429; later"),)),
            CachePlan({"phase": "Downloading"}, None, Verdict("SourceRateLimited", "429; later")),
        ),
        (
            CacheObserved(CLAIM, FAILED, (ENDED,)),
            CachePlan(
                {"phase": "Failed"},
                None,
                Verdict(
                    "SourceUnauthorized",
                    "http://hub answers 401; cure; tried again 10 min after it failed, or at once when job"
                    " models-1 is deleted",
                    stalled=True,
                ),
                600.0,
            ),
        ),
        (CacheObserved(CLAIM, replace(JOB, complete=True)), CachePlan({"phase": "Ready"})),
    ],
)
def test_what_is_done_in_which_state(seen: CacheObserved, plan: CachePlan) -> None:
    wanted = replace(plan, status={"claimName": "models-1", **plan.status})
    assert plan_cache("models-1", seen, NOW) == wanted
    assert wanted.filled == (plan.status["phase"] == "Ready")


def test_a_failed_job_is_made_again_after_a_while() -> None:
    seen = CacheObserved(CLAIM, FAILED, (ENDED,))
    assert plan_cache("models-1", seen, NOW + timedelta(seconds=599)).step is None
    later = plan_cache("models-1", seen, NOW + timedelta(seconds=600))
    assert (later.step, later.look_after_s) == (CacheStep.DELETE_JOB, 0.0)


def test_a_message_holds_no_measurement() -> None:
    def words(present: int) -> Verdict | None:
        return plan_cache("models-1", CacheObserved(CLAIM, JOB, (POD,), present, 1000), NOW).verdict

    assert words(10) == words(900)
    assert [percent_step(p, 1000) for p in (0, 49, 50, 999, 1000)] == [0, 0, 5, 95, 100]


def test_only_what_nobody_needs_goes_and_only_where_asked_for() -> None:
    goes = replace(CLAIM, when_unused="Delete")
    mounts = {"spec": {"volumes": [{"persistentVolumeClaim": {"claimName": "models-1"}}, {"emptyDir": {}}]}}
    assert unused([goes]) == unused([goes], [""], ["models-2"]) == [goes]
    assert unused([CLAIM]) == []
    assert unused([goes], ["models-1"], []) == unused([goes], [], ["models-1"]) == []
    assert list(mounted([{"spec": {}}, mounts])) == ["models-1"]
    assert unused([replace(goes, deleting=True)]) == []


def test_specs_are_read_only_where_a_volume_is_in_question() -> None:
    def specs() -> Iterator[str]:
        raise AssertionError("nobody asked")
        yield

    assert unused([replace(CLAIM, when_unused="Delete")], ["models-1"], specs()) == []


@pytest.mark.parametrize(
    ("asked", "has", "result"),
    [
        ("320Gi", "400Gi", "400Gi"),
        ("1Ti", "400Gi", "1Ti"),
        ("400G", "400Gi", "400Gi"),
        ("1Gi", "1Gi", "1Gi"),
        ("1Gi", "1Ei", "1Ei"),
        ("1Gi", "2e9", "2e9"),
        ("1Gi", "1.5Gi", "1.5Gi"),
        ("2Gi", "", "2Gi"),
    ],
)
def test_a_shared_volume_never_shrinks(asked: str, has: str, result: str) -> None:
    assert shared_size(asked, replace(CLAIM, size=has)) == result
    assert shared_size(asked, None) == asked


def test_one_keep_is_enough() -> None:
    assert shared_policy("Delete", "Keep", others=True) == "Keep"
    assert shared_policy("Delete", "Keep", others=False) == "Delete"
    assert shared_policy("Keep", "Delete", others=True) == "Keep"
    assert shared_policy("Delete", "", others=True) == "Delete"


def test_when_it_will_be_there_comes_with_every_step_and_stays_between_them() -> None:
    seen = CacheObserved(CLAIM, JOB, (POD,), 129_999, 200_000, eta_s=90)
    first = plan_cache("models-1", seen, NOW).status
    at = (NOW + timedelta(seconds=90 + 59)).strftime("%Y-%m-%dT%H:%M:00Z")
    assert first == {
        "claimName": "models-1",
        "phase": "Downloading",
        "percent": 60,
        "bytesTotal": 200_000,
        "expectedAt": at,
    }
    later = NOW + timedelta(minutes=7)
    for eta_s in (5, 5_000, None):  # another guess, or none: what stands there was made with this step
        assert plan_cache("models-1", replace(seen, eta_s=eta_s, told=first), later).status == first
    step = replace(seen, bytes_present=130_000, told=first)
    assert plan_cache("models-1", step, later).status["expectedAt"] > at
    assert "expectedAt" not in plan_cache("models-1", replace(step, eta_s=None), later).status
    assert plan_cache("models-2", replace(seen, told=first), later).status["expectedAt"] > at
    assert "expectedAt" not in plan_cache("models-1", replace(step, eta_s=10**12), later).status
