"""The objects of a data job, whole: its claim, its Job, and which image that runs."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

from stepaudio_operator.data_job import plan_data
from stepaudio_operator.errors import SpecError
from stepaudio_operator.records import DataObserved, JobRecord, PodRecord
from stepaudio_operator.render import data as render
from stepaudio_operator.render.images import ImageDefaults
from stepaudio_operator.spec.data import DataJobSpec
from stepaudio_operator.spec.reading import parse_data_job

EXAMPLE = Path(__file__).parents[3] / "examples/data/job.yaml"
IMAGES = ImageDefaults("1.2.3", "reg:5000/team")
COMMAND = [
    *("stepaudio", "data", "run", "--output", "/var/lib/stepaudio/data"),
    *("--workers", "3", "--port", "8000"),
]
LABELS = {
    "app.kubernetes.io/name": "step-audio",
    "app.kubernetes.io/managed-by": "stepaudio-operator",
    "stepaudio.io/data-job": "speech",
}


def owner(**spec: Any) -> dict[str, Any]:
    return {
        "apiVersion": "stepaudio.io/v1alpha1",
        "kind": "StepAudioDataJob",
        "metadata": {"name": "speech", "namespace": "ns", "uid": "u1"},
        "spec": {"recipe": {"name": "speech", "styles": ["", "快速1"]}, **spec},
    }


def parsed(**spec: Any) -> DataJobSpec:
    return parse_data_job(owner(**{"output": {"volume": {"size": "1Gi"}}, **spec}))


def test_the_claim_belongs_to_nobody() -> None:
    said = {"size": "1Gi", "storageClassName": "fast", "accessMode": "ReadWriteMany"}
    volume = parsed(output={"volume": said}).output.volume
    assert volume is not None
    assert render.claim("ns", "speech", volume, "2Gi") == {
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": {"name": "speech-data", "namespace": "ns", "labels": LABELS},
        "spec": {
            "accessModes": ["ReadWriteMany"],
            "resources": {"requests": {"storage": "2Gi"}},
            "storageClassName": "fast",
        },
    }
    assert render.claim_name("speech", parsed(output={"pvc": {"claimName": "mine"}})) == "mine"


def test_the_job() -> None:
    key = {"name": "TEACHER_KEY", "valueFrom": {"secretKeyRef": {"name": "keys", "key": "data"}}}
    texts = {"name": "texts", "configMap": {"name": "stories"}}
    mount = {"name": "texts", "mountPath": "/texts"}
    raw = owner(
        output={"pvc": {"claimName": "mine", "subPath": "a/b"}},
        workers=3,
        runtime={"pullPolicy": "Always"},
        podTemplate={
            "labels": {"team": "voice"},
            "annotations": {"note": "a"},
            "nodeSelector": {"disk": "fast"},
            "env": [key],
            "volumes": [texts],
            "volumeMounts": [mount],
            "resources": {"limits": {"memory": "9Gi"}},
        },
    )
    spec = parse_data_job(raw)
    made = render.job(raw, spec, render.reference(spec, IMAGES, ""))
    kubernetes_validate.validate(made, "1.31", strict=True)
    failed_for_good = {"containerName": "main", "operator": "In", "values": [78]}
    disrupted = [{"type": "DisruptionTarget", "status": "True"}]
    assert made == {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {
            "name": "speech-data",
            "namespace": "ns",
            "labels": LABELS,
            "annotations": {"stepaudio.io/inputs": render.inputs(spec)},
            "ownerReferences": [
                {
                    "apiVersion": "stepaudio.io/v1alpha1",
                    "kind": "StepAudioDataJob",
                    "name": "speech",
                    "uid": "u1",
                    "controller": True,
                }
            ],
        },
        "spec": {
            "backoffLimit": 1000,
            "podFailurePolicy": {
                "rules": [
                    {"action": "FailJob", "onExitCodes": failed_for_good},
                    {"action": "Ignore", "onPodConditions": disrupted},
                ]
            },
            "template": {
                "metadata": {"labels": {"team": "voice", **LABELS}, "annotations": {"note": "a"}},
                "spec": {
                    "restartPolicy": "Never",
                    "enableServiceLinks": False,
                    "automountServiceAccountToken": False,
                    "securityContext": {
                        "runAsNonRoot": True,
                        "runAsUser": 10001,
                        "runAsGroup": 10001,
                        "fsGroup": 10001,
                        "fsGroupChangePolicy": "OnRootMismatch",
                        "seccompProfile": {"type": "RuntimeDefault"},
                    },
                    "containers": [
                        {
                            "name": "main",
                            "image": "reg:5000/team/stepaudio/runtime-cpu:1.2.3",
                            "imagePullPolicy": "Always",
                            "command": COMMAND,
                            "env": [
                                {"name": "HOME", "value": "/tmp"},
                                {
                                    "name": "STEPAUDIO_RECIPE",
                                    "value": '{"name": "speech", "styles": ["", "快速1"]}',
                                },
                                key,
                            ],
                            "ports": [{"name": "http", "containerPort": 8000, "protocol": "TCP"}],
                            "resources": {"requests": {"cpu": "3"}, "limits": {"memory": "9Gi"}},
                            "securityContext": {
                                "allowPrivilegeEscalation": False,
                                "readOnlyRootFilesystem": True,
                                "capabilities": {"drop": ["ALL"]},
                            },
                            "terminationMessagePath": "/dev/termination-log",
                            "terminationMessagePolicy": "File",
                            "volumeMounts": [
                                {"name": "tmp", "mountPath": "/tmp"},
                                {"name": "shm", "mountPath": "/dev/shm"},
                                {
                                    "name": "training-data",
                                    "mountPath": "/var/lib/stepaudio/data",
                                    "subPath": "a/b",
                                },
                                mount,
                            ],
                        }
                    ],
                    "volumes": [
                        {"name": "tmp", "emptyDir": {}},
                        {"name": "shm", "emptyDir": {"medium": "Memory", "sizeLimit": "64Mi"}},
                        {"name": "training-data", "persistentVolumeClaim": {"claimName": "mine"}},
                        texts,
                    ],
                    "nodeSelector": {"disk": "fast"},
                },
            },
        },
    }


@pytest.mark.parametrize(
    ("runtime", "registry", "before", "image"),
    [
        (None, None, "", "reg:5000/team/stepaudio/runtime-cpu:1.2.3"),
        (None, None, "stepaudio/runtime-cpu:1.0.0", "stepaudio/runtime-cpu:1.0.0"),
        ({"version": "2"}, None, "old:1/stepaudio/runtime-cpu:1.0.0", "old:1/stepaudio/runtime-cpu:2"),
        ({"registry": "new"}, None, "stepaudio/runtime-cpu:1.0.0", "new/stepaudio/runtime-cpu:1.0.0"),
        ({"registry": "new"}, "near", "", "near/stepaudio/runtime-cpu:1.2.3"),
    ],
)
def test_the_image_stays_where_the_spec_leaves_it_open(
    runtime: dict[str, Any] | None, registry: str | None, before: str, image: str
) -> None:
    template = {"podTemplate": {"registry": registry}} if registry else {}
    spec = parsed(**({"runtime": runtime} if runtime else {}), **template)
    assert render.reference(spec, IMAGES, before) == image


def test_a_recipe_that_no_variable_can_hold_is_refused_by_its_bytes() -> None:
    parsed(recipe={"texts": ["a" * 90_000]})
    with pytest.raises(SpecError) as refused:
        parsed(recipe={"texts": ["语" * 40_000]})
    message = "has more than 100,000 bytes as JSON: put texts into a file"
    assert refused.value.problems == (("spec.recipe", message),)


def test_last_words_that_cannot_be_are_not_stored() -> None:
    spec = parsed()
    asked = render.asked("speech", spec)
    job = JobRecord("speech-data", "u", True, False, "", "", None, False, asked.inputs, "i")
    for words in ('{"samples": -1, "refused": 2}', '{"samples": true}', "[1]", f'{{"samples": 1{"0" * 40}}}'):
        ended = {"exitCode": 0, "finishedAt": "2026-01-02T00:00:00Z", "message": words}
        status = {
            "phase": "Succeeded",
            "containerStatuses": [{"name": "main", "state": {"terminated": ended}}],
        }
        pod = PodRecord.from_raw({"metadata": {"name": "p"}, "status": status})
        figures = plan_data(
            asked, DataObserved(job=job, pods=(pod,)), {}, datetime(2026, 1, 2, tzinfo=UTC)
        ).figures
        assert not {"samples", "samplesTotal"} & figures.keys()


def test_what_makes_another_job() -> None:
    one = parsed()
    assert render.inputs(one) == render.inputs(parsed(output={"volume": {"size": "9Gi"}}, workers=1))
    others = [
        parsed(workers=2),
        parsed(recipe={"name": "other"}),
        parsed(output={"pvc": {"claimName": "mine"}}),
        parsed(output={"pvc": {"claimName": "mine", "subPath": "a"}}),
        parsed(runtime={"version": "2"}),
        parsed(podTemplate={"env": [{"name": "A", "value": "1"}]}),
    ]
    assert len({render.inputs(each) for each in (one, *others)}) == 7


def test_the_example_renders() -> None:
    raw = yaml.safe_load(EXAMPLE.read_text())
    raw["metadata"] |= {"namespace": "ns", "uid": "u"}
    spec = parse_data_job(raw)
    made = render.job(raw, spec, render.reference(spec, replace(IMAGES, registry=""), ""))
    kubernetes_validate.validate(made, "1.31", strict=True)
