"""The manifest of a finished folder: what is in it, what it was made of, and under which licence."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from stepaudio_runtime.checkpoints import layout
from stepaudio_runtime.checkpoints.presence import require
from stepaudio_runtime.engine.journal import Sealed, State, StoredFile
from stepaudio_runtime.engine.recipe import Recipe, portable
from stepaudio_runtime.engine.shards import FORMAT, write_atomically
from stepaudio_runtime.errors import ConfigError

_PACKAGES = ("stepaudio-runtime", "numpy", "soundfile", "soxr")


def versions(recipe: Recipe) -> dict[str, str]:
    """The packages whose versions may change the bytes that a recipe gives. Raises ConfigError."""
    names = list(_PACKAGES)
    if recipe.tokenizer is not None and recipe.tokenizer.models is not None:
        names.append("torch")
    if recipe.filters.max_word_errors is not None:
        names.append("pocketsphinx")
    if recipe.filters.speaker is not None:
        names.append("onnxruntime")
    try:
        return {name: version(name) for name in names}
    except PackageNotFoundError as missing:
        what = f"the recipe needs the package {missing.name}, which is not installed here"
        raise ConfigError(what=what, cure="pip install 'stepaudio-runtime[engine]'") from None


def model_sums(recipe: Recipe) -> dict[str, str]:
    """SHA-256 of each model file that the recipe names, by its field: names alone do not tell two apart.

    Reads every byte of them. Raises ModelFileError for one that is not there.
    """
    files: dict[str, Path] = {}
    if recipe.tokenizer is not None and recipe.tokenizer.models is not None:
        folder = recipe.tokenizer.models / layout.TOKENIZER
        files = {f"tokenizer.models/{name}": folder / name for name in layout.TOKENIZER_FILES}
    if recipe.filters.speaker is not None:
        files["filters.speaker.campplus"] = recipe.filters.speaker.campplus
    sums = {}
    for name, path in files.items():
        with require(path).open("rb") as file:
            sums[name] = hashlib.file_digest(file, "sha256").hexdigest()
    return sums


def manifest(recipe: Recipe, state: State) -> dict[str, Any]:
    """The manifest of a run whose shards are all sealed. It has no date: equal data have equal manifests."""
    if state.run is None:
        raise AssertionError("a finished run has begun")
    refused: Counter[str] = Counter()
    for sealed in state.sealed:
        refused.update(sealed.refused)
    return {
        "format": FORMAT,
        "name": recipe.name,
        "licence": recipe.licence,
        "samples": sum(sealed.samples for sealed in state.sealed),
        "seconds": round(sum(sealed.seconds for sealed in state.sealed), 3),
        "refused": dict(sorted(refused.items())),
        "shards": [_shard(sealed) for sealed in state.sealed],
        "provenance": {
            "recipe_sha256": state.run.recipe,
            "teacher": state.run.teacher,
            "versions": state.run.versions,
            "models": state.run.models,
            "recipe": portable(recipe),
        },
    }


def finish(folder: Path, recipe: Recipe, state: State) -> Path:
    """Write the manifest of `folder`; returns its path."""
    path = folder / "manifest.json"
    text = json.dumps(manifest(recipe, state), ensure_ascii=False, indent=2) + "\n"
    write_atomically(path, text.encode())
    return path


def _shard(sealed: Sealed) -> dict[str, Any]:
    return {**_file(sealed.tar), "samples": sealed.samples, "records": _file(sealed.records)}


def _file(stored: StoredFile) -> dict[str, Any]:
    return {"file": stored.name, "bytes": stored.size, "sha256": stored.sha256}
