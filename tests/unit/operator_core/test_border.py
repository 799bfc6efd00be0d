"""Which pods may work on one request together: the same download and the same wire, whatever else differs."""

from typing import Any

import pytest

from stepaudio_operator.border import Release, release_of, wire_series
from stepaudio_operator.spec.reading import parse_pool


def release(component: str = "chat", **spec: Any) -> Release:
    base = {
        "deployment": "prod",
        "component": component,
        "preset": "step-audio",
        "runtime": {"version": "1.4.2"},
    }
    if component != "gateway":
        base["models"] = {"source": {"pvc": {"claimName": "models", "subPath": "2025-02"}}}
    return release_of(parse_pool({"metadata": {"name": f"prod-{component}"}, "spec": base | spec}))


def nano(**spec: Any) -> Release:
    return release(preset="nano", models=None, **spec)


@pytest.mark.parametrize(
    ("version", "series"),
    [
        ("1.4.2", "1"),
        ("v1.4", "1"),
        ("1.5.0-rc1", "1"),
        ("12.0.0", "12"),
        ("0.3.1", "0.3"),
        ("0.3.9+cuda", "0.3"),
        ("latest", "latest"),
        ("sha-1f0c22aa", "sha-1f0c22aa"),
        ("1", "1"),
    ],
)
def test_versions_of_one_major_number_speak_one_wire(version: str, series: str) -> None:
    assert wire_series(version) == series


def test_pools_of_one_deployment_belong_together() -> None:
    assert release("chat") == release("tts") == release("tokenizer")
    assert release("gateway") == Release("", "1")
    assert release("gateway").speaks(release("chat"))


def test_what_is_another_download_or_another_wire_crosses_the_border() -> None:
    other = [
        release(models={"source": {"pvc": {"claimName": "models", "subPath": "2025-06"}}}),
        release(models={"source": {"pvc": {"claimName": "others", "subPath": "2025-02"}}}),
        release(models={"source": {"image": {"path": "/models"}}}),
        release(runtime={"version": "2.0.0"}),
        nano(),
        nano(runtime={"version": "1.4.3"}),  # its models lie in the image
        nano(runtime={"version": "1.4.2", "registry": "r"}),
    ]
    assert len({release(), *other}) == 1 + len(other)
    assert not release(runtime={"version": "2.0.0"}).speaks(release())


def test_what_touches_neither_does_not() -> None:
    for spec in (
        {"runtime": {"version": "1.5.0"}},
        {"runtime": {"version": "1.4.2", "registry": "elsewhere", "pullPolicy": "Always"}},
        {"maxModelLen": 512},
        {"gpu": {"count": 8}},
        {"replicas": 7},
        {"podTemplate": {"labels": {"a": "b"}}},
        {"rollout": {"drainTimeout": "61s"}},
    ):
        assert release(**spec) == release()


def test_a_release_is_read_back_by_its_name() -> None:
    for one in (release(), Release("1f0c22aa", "sha-1f"), Release("", "0.1")):
        assert Release.parse(str(one)) == one
    assert Release.parse("") is Release.parse("b1946ac9") is None
