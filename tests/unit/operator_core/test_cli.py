"""`stepaudio-operator plan` and `crd`, the committed CRDs, and every example."""

from pathlib import Path

import kubernetes_validate
import pytest
import yaml

from stepaudio_operator import crd
from stepaudio_operator.cli import main

ROOT = Path(__file__).parents[3]
EXAMPLES = [
    *sorted((ROOT / "examples").glob("*.yaml")),
    ROOT / "examples/autoscaling/built-in.yaml",
    ROOT / "examples/node-local/deployment.yaml",
]


@pytest.mark.parametrize("folder", ["crds", "charts/step-audio/files/crds"])
def test_the_committed_crds_are_the_generated_ones(folder: str) -> None:
    # After a change of spec.py: stepaudio-operator crd --dir crds, and the same for the chart's folder.
    committed = {path.name: path.read_text() for path in (ROOT / folder).glob("*.yaml")}
    assert committed == crd.render()


def test_crd_writes_what_it_prints(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["crd", "--dir", str(tmp_path)]) == 0
    assert main(["crd"]) == 0
    printed = [d["metadata"]["name"] for d in yaml.safe_load_all(capsys.readouterr().out)]
    written = [yaml.safe_load(p.read_text())["metadata"]["name"] for p in sorted(tmp_path.iterdir())]
    kinds = ("stepaudiodeployments", "stepaudiopools", "stepaudiovoices", "stepaudiodatajobs")
    assert sorted(printed) == written == sorted(f"{kind}.stepaudio.io" for kind in kinds)


def test_there_is_an_example_of_each_use() -> None:
    assert {path.stem for path in EXAMPLES} >= {"nano", "a800-4x80", "tts-only"}


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: path.stem)
def test_every_example_can_be_planned(example: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plan", str(example)]) == 0
    planned = list(yaml.safe_load_all(capsys.readouterr().out))
    for body in planned:
        if body["kind"] == "LeaderWorkerSet":  # by its own schema: tests/integration/operator/test_groups.py
            template = body["spec"]["leaderWorkerTemplate"]
            for pod in (template["leaderTemplate"], template["workerTemplate"]):
                kubernetes_validate.validate({"apiVersion": "v1", "kind": "Pod", **pod}, "1.31", strict=True)
        elif not body["apiVersion"].startswith("stepaudio.io/"):
            kubernetes_validate.validate(body, "1.31", strict=True)
    kinds = {body["kind"] for body in planned}
    assert {"StepAudioPool", "Service", "ControllerRevision", "Pod", "Deployment", "ConfigMap"} <= kinds


def test_the_volume_of_the_example_is_one_for_its_claim() -> None:
    volume, claim = yaml.safe_load_all((ROOT / "examples/node-local/volume.yaml").read_text())
    for body in (volume, claim):
        kubernetes_validate.validate(body, "1.31", strict=True)
    deployment = yaml.safe_load((ROOT / "examples/node-local/deployment.yaml").read_text())
    asked = deployment["spec"]["models"]["cache"]["nodeLocal"]["claimName"]
    place = {"namespace": deployment["metadata"]["namespace"], "name": asked}
    assert claim["metadata"] == volume["spec"]["claimRef"] == place
    for field in ("storageClassName", "accessModes"):
        assert claim["spec"][field] == volume["spec"][field]


def test_the_plan_of_a_data_job_is_its_volume_and_its_job(capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["plan", str(ROOT / "examples/data/job.yaml"), "--runtime-version", "7"]
    assert main(arguments) == 0
    planned = list(yaml.safe_load_all(capsys.readouterr().out))
    assert [(body["kind"], body["metadata"]["name"]) for body in planned] == [
        ("PersistentVolumeClaim", "nano-echo-data"),
        ("Job", "nano-echo-data"),
    ]
    for body in planned:
        kubernetes_validate.validate(body, "1.31", strict=True)
    (container,) = planned[1]["spec"]["template"]["spec"]["containers"]
    assert container["image"] == "stepaudio/runtime-cpu:7"


def test_the_plan_of_nano(capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["plan", str(ROOT / "examples/nano.yaml"), "--runtime-version", "7", "--registry", "r"]
    assert main(arguments) == 0
    planned = list(yaml.safe_load_all(capsys.readouterr().out))
    pods = [body for body in planned if body["kind"] == "Pod"]
    assert [body["spec"]["containers"][0]["image"] for body in pods] == ["r/stepaudio/runtime-cpu:7"] * 3
    revisions = [body["metadata"]["labels"]["stepaudio.io/revision"] for body in pods]
    assert [body["metadata"]["name"] for body in pods] == [
        f"nano-{component}-{revision}-0"
        for component, revision in zip(("chat", "tts", "tokenizer"), revisions, strict=True)
    ]


def test_a_summary_is_one_line_an_object(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plan", str(ROOT / "examples/nano.yaml"), "--summary"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == ["ServiceAccount", "nano-gateway", "belongs", "to", "nano"]


def test_a_wrong_file_is_refused_with_path_and_cure(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "bad.yaml"
    file.write_text(
        "apiVersion: stepaudio.io/v1alpha1\nkind: StepAudioDeployment\nmetadata: {name: a}\n"
        "spec: {preset: nano, chat: {replicas: -1}}\n"
    )
    assert main(["plan", str(file)]) == 1
    assert capsys.readouterr().err == f"{file}: spec.chat.replicas: must be at least 0\n"
    file.write_text("kind: Pod\n")
    assert main(["plan", str(file)]) == 1
    assert "there is no StepAudioDeployment or StepAudioDataJob" in capsys.readouterr().err
    for part, path in (
        ("metadata: [a]", "metadata"),
        ("metadata: {name: a, annotations: [b]}", "metadata.annotations"),
        ("metadata: {name: a}\nspec: nano", "spec"),
    ):
        for kind in ("StepAudioDeployment", "StepAudioDataJob"):
            file.write_text(f"apiVersion: stepaudio.io/v1alpha1\nkind: {kind}\n{part}\n")
            assert main(["plan", str(file)]) == 1
            assert f"{file}: {path}: has to be a map of names to values\n" == capsys.readouterr().err
    file.write_text("apiVersion: stepaudio.io/v1alpha1\nkind: StepAudioDataJob\nmetadata: {name: a}\n")
    assert main(["plan", str(file)]) == 1
    assert f"{file}: spec.recipe: this field is required" in capsys.readouterr().err
    file.write_text("a: [")
    assert main(["plan", str(file)]) == 1
    assert main(["plan", str(tmp_path / "absent.yaml")]) == 1
