"""A recipe that cannot be used is refused in one line that names the field."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from stepaudio_runtime.engine.recipe import read_recipe
from stepaudio_runtime.errors import ConfigError

GOOD = {
    "name": "a",
    "licence": "x",
    "texts": [{"domain": "en", "count": 1}],
    "voices": ["en-us"],
    "teacher": {"kind": "espeak"},
}
NOWHERE = "~nobody-of-this-name/x"


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"texts": [{"file": NOWHERE, "language": "en"}]}, r"texts\.0\.file: ~nobody"),
        ({"tokenizer": {"models": NOWHERE}}, r"tokenizer\.models: ~nobody"),
        ({"filters": {"speaker": {"campplus": NOWHERE}}}, r"filters\.speaker\.campplus: ~nobody"),
        ({"texts": [{"file": "gone.txt", "language": "en"}]}, r"texts\.0\.file"),
        ({"voices": []}, "voices"),
        ({"voices": ["\ud800"]}, "voices"),
        ({"vocies": ["en-us"]}, "vocies"),
    ],
)
def test_a_wrong_field_is_named(change: dict[str, object], field: str, tmp_path: Path) -> None:
    path = tmp_path / "recipe.yaml"
    path.write_text(json.dumps({**GOOD, **change}))
    with pytest.raises(ConfigError, match=field):
        read_recipe(path)


@pytest.mark.parametrize("text", ["name: " + "[" * 20_000, "name: [", "- a", "a: *b", "a: 1\na: 2", "\0"])
def test_what_is_no_recipe_is_refused(text: str, tmp_path: Path) -> None:
    path = tmp_path / "recipe.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError, match=r"recipe\.yaml"):
        read_recipe(path)
