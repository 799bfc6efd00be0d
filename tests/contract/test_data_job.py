"""What the operator tells a data job's pod, the data engine understands: command line, recipe, folder."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from stepaudio_operator import names
from stepaudio_operator.render import data as render
from stepaudio_operator.spec.reading import parse_data_job
from stepaudio_runtime.cli import _parser
from stepaudio_runtime.engine.recipe import read_recipe

ROOT = Path(__file__).parents[2]
SPEECH = (ROOT / "examples/data/nano-speech.yaml", None)
RESOURCE = (ROOT / "examples/data/job.yaml", "spec")


def container(recipe: Any) -> dict[str, Any]:
    raw = {
        "apiVersion": names.API_VERSION,
        "kind": names.DATA_JOB_KIND,
        "metadata": {"name": "speech", "namespace": "ns", "uid": "u"},
        "spec": {"recipe": recipe, "output": {"volume": {"size": "1Gi"}}, "workers": 4},
    }
    made: dict[str, Any] = render.job(raw, parse_data_job(raw), "image")["spec"]["template"]["spec"][
        "containers"
    ][0]
    return made


def test_the_command_line() -> None:
    program, *arguments = container({})["command"]
    assert program == "stepaudio"
    understood = vars(_parser().parse_args(arguments))
    assert {k: understood[k] for k in ("recipe", "output", "workers", "port")} == {
        "recipe": None,
        "output": Path(names.DATA_MOUNT),
        "workers": 4,
        "port": names.POOL_PORT,
    }


@pytest.mark.parametrize(("file", "within"), [SPEECH, RESOURCE], ids=["speech", "resource"])
def test_the_recipe_is_the_one_that_was_written(file: Path, within: str | None, tmp_path: Path) -> None:
    document = yaml.safe_load(file.read_text())
    written = document if within is None else document[within]["recipe"]
    env = {each["name"]: each["value"] for each in container(written)["env"]}
    told, plain = tmp_path / "told.yaml", tmp_path / "plain.yaml"
    told.write_text(env[names.ENV_RECIPE])
    plain.write_text(yaml.safe_dump(written, allow_unicode=True))
    assert read_recipe(told) == read_recipe(plain)
