"""A spec parses into what it says; a spec that cannot be done is refused with every field and its cure."""

from typing import Any

import pytest

from stepaudio_operator import names
from stepaudio_operator.errors import SpecError
from stepaudio_operator.presets import PRESETS
from stepaudio_operator.spec.deployment import DeploymentSpec
from stepaudio_operator.spec.fields import seconds
from stepaudio_operator.spec.reading import parse_deployment, parse_pool


def deployment(name: str = "prod", **spec: Any) -> DeploymentSpec:
    return parse_deployment({"metadata": {"name": name}, "spec": spec})


def problems(name: str = "prod", **spec: Any) -> tuple[tuple[str, str], ...]:
    with pytest.raises(SpecError) as refused:
        deployment(name, **spec)
    return refused.value.problems


def test_the_preset_alone_is_a_whole_deployment() -> None:
    spec = deployment(preset="nano")
    assert spec.components == ("chat", "tts", "tokenizer", "gateway")
    assert spec.chat is None


def test_disabled_components_are_left_out() -> None:
    spec = deployment(preset="nano", chat={"enabled": False}, tokenizer={"enabled": False})
    assert spec.components == ("tts", "gateway")


def test_every_problem_is_named_with_its_path() -> None:
    assert problems(
        preset="big",
        chta={},
        chat={"replicas": -1, "gpu": {"count": 3}, "podTemplate": {"env": [{"value": "x"}]}},
        rollout={"drainTimeout": "10 minutes"},
    ) == (
        ("spec.preset", "must be one of 'nano' or 'step-audio'"),
        ("spec.chat.replicas", "must be at least 0"),
        ("spec.chat.gpu.count", "must be one of 0, 1, 2, 4, 8"),
        ("spec.chat.podTemplate.env[0].name", "this field is required: add it"),
        ("spec.rollout.drainTimeout", "must match ^[1-9][0-9]{0,4}(s|m|h)$"),
        ("spec.chta", "there is no such field: remove it or correct its name"),
    )


def test_rules_between_fields_say_what_to_do() -> None:
    assert problems(preset="step-audio", tokenizer={"enabled": False}, chat={"gpu": {"count": 0}}) == (
        ("spec.tokenizer.enabled", "chat hears through the tokenizer: enable it, or disable chat too"),
        (
            "spec.models",
            "no image holds the models of preset step-audio: set models.source to huggingFace, modelScope, s3"
            " or pvc.claimName, a volume claim with the folders of the download",
        ),
        (
            "spec.chat.gpu.count",
            "chat of preset step-audio does not fit a CPU: leave gpu.count out or above 0",
        ),
    )


def test_what_the_operator_sets_cannot_be_overridden() -> None:
    template = {
        "labels": {"stepaudio.io/pool": "x"},
        "annotations": {"stepaudio.io/slot": "1"},
        "env": [
            {"name": "HOME", "value": "/x"},
            {"name": "A"},
            {"name": "A"},
            {"name": names.ENV_VOICES_CONFIGMAP},
        ],
        "volumes": [{"name": "tmp"}],
        "volumeMounts": [{"name": "tmp", "mountPath": "/models"}, {"name": "tmp", "mountPath": "/dev/shm/"}],
        "resources": {"limits": {"nvidia.com/gpu": 1}},
    }
    at = "spec.tts.podTemplate"
    assert [path for path, _ in problems(preset="nano", tts={"podTemplate": template})] == [
        f"{at}.labels",
        f"{at}.annotations",
        f"{at}.volumes",
        f"{at}.resources.limits",
        f"{at}.env[0].name",
        f"{at}.env[3].name",
        f"{at}.env[2]",
        f"{at}.volumeMounts[0].mountPath",
        f"{at}.volumeMounts[1].mountPath",
    ]


def test_every_child_of_the_longest_name_fits_into_63_characters() -> None:
    name = "x" * names.DEPLOYMENT_NAME_LIMIT
    assert deployment(name, preset="nano").preset == "nano"
    assert problems(name + "x", preset="nano")[0][0] == "metadata.name"
    pod = names.pod(names.pool(name, "tokenizer"), "0123abcd", 9999)
    assert len(pod) == 63


def test_nulls_are_as_good_as_nothing_but_not_under_unknown_names() -> None:
    assert (
        deployment(preset="nano", chat=None, tts={"enabled": None}).tts
        == deployment(preset="nano", tts={}).tts
    )
    assert problems(preset="nano", tts={"a": None})[0][0] == "spec.tts.a"


def test_a_pool_is_named_after_its_deployment_and_component() -> None:
    spec = {"deployment": "prod", "component": "tts", "preset": "nano", "runtime": {"version": "1"}}
    assert parse_pool({"metadata": {"name": "prod-tts"}, "spec": spec}).component == "tts"
    with pytest.raises(SpecError) as refused:
        parse_pool({"metadata": {"name": "prod-chat"}, "spec": spec})
    assert refused.value.problems[0][0] == "metadata.name"


def test_gpus_come_from_the_preset_unless_said() -> None:
    spec = {
        "deployment": "prod",
        "component": "chat",
        "preset": "step-audio",
        "runtime": {"version": "1"},
        "models": {"source": {"pvc": {"claimName": "m"}}},
    }
    whole = parse_pool({"metadata": {"name": "prod-chat"}, "spec": spec})
    assert (whole.gpu_count, whole.gpu_words) == (4, "4x80GB on one node")
    own = parse_pool({"metadata": {"name": "prod-chat"}, "spec": spec | {"gpu": {"count": 8}}})
    assert (own.gpu_count, own.gpu_words) == (8, "8x80GB on one node")


def test_a_preset_knows_every_component() -> None:
    for preset in PRESETS.values():
        assert set(preset.pools) == set(names.COMPONENTS)


def test_durations() -> None:
    assert [seconds(text) for text in ("45s", "10m", "2h")] == [45, 600, 7200]
