"""A run of the data engine loses nothing: killed twenty times, it ends in the same bytes as undisturbed."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import sys
import time
from collections.abc import Callable
from multiprocessing import get_context
from pathlib import Path

import psutil
import pytest

from stepaudio_runtime.checkpoints import layout
from stepaudio_runtime.checkpoints.nano import generate_random_nano
from stepaudio_runtime.engine.run import run
from stepaudio_runtime.engine.shards import read_manifest, read_records, read_shards
from stepaudio_runtime.errors import ConfigError

KILLS = 20
RECIPE = """
name: tiny
licence: Apache-2.0
texts: [{domain: en, split: train, count: 200}]
voices: [en-us+f2, deep]
styles: ["", 快速1]
combinations: 1
teacher: {kind: espeak}
filters: {audio_bits: 3, duration_s: [0.9, 20]}
output: {samples_per_shard: 6}
"""
TWO = {
    "name": "two",
    "licence": "Apache-2.0",
    "texts": [{"domain": "en", "count": 2}],
    "voices": ["en-us"],
    "teacher": {"kind": "espeak"},
}


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    path = tmp_path / "recipe.yaml"
    path.write_text(RECIPE)
    return path


def test_killed_at_twenty_points_and_resumed_it_gives_the_same_bytes(tmp_path: Path, recipe: Path) -> None:
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    run(recipe, whole, workers=2, say=print)
    draws = random.Random(7)
    broken.mkdir()
    for kill in range(KILLS):
        # The real command now and then; the others are copies of this process, which need no time to start.
        start = _start_command if kill % 10 == 0 else _start_copy
        _kill_once_it_works(start, recipe, broken, draws.uniform(0, 0.03))
    assert not (broken / "manifest.json").exists(), "the last kill came too late to prove anything"
    run(recipe, broken, workers=2, say=print)
    assert _results(broken) == _results(whole)


def test_what_is_written_is_read_again(tmp_path: Path, recipe: Path) -> None:
    out = tmp_path / "out"
    run(recipe, out, workers=2, say=print)
    records = list(read_records(out))
    utterances = list(read_shards(out))
    assert len(records) == 200
    assert [u.record for u in utterances] == [r for r in records if r["refused"] is None]
    assert all(u.wave is not None and u.wave.rate == 22_050 for u in utterances)
    manifest = read_manifest(out)
    assert manifest["samples"] == len(utterances)
    assert sum(manifest["refused"].values()) == 200 - len(utterances) > 0
    tar = out / manifest["shards"][0]["file"]
    tar.write_bytes(tar.read_bytes()[:-1])
    with pytest.raises(ConfigError, match=tar.name):
        list(read_shards(out))
    recipe.write_text(RECIPE.replace("count: 200", "count: 201"))
    with pytest.raises(ConfigError, match="another recipe"):
        run(recipe, out, workers=1, say=print)


def test_other_weights_under_the_same_name_are_another_run(tmp_path: Path) -> None:
    first = [tmp_path / "first" / "models", tmp_path / "first" / "campplus.onnx"]
    generate_random_nano(first[0])
    shutil.copy(first[0] / layout.TTS / layout.COSYVOICE / layout.CAMPPLUS, first[1])
    shutil.copytree(tmp_path / "first", tmp_path / "second")

    def begun(place: str, out: Path) -> Path:
        fields = {
            "tokenizer": {"models": f"{place}/models"},
            "filters": {"speaker": {"campplus": f"{place}/campplus.onnx"}},
            "output": {"audio": "none"},
        }
        recipe = tmp_path / f"{place}.yaml"
        recipe.write_text(json.dumps({**TWO, **fields}))
        return run(recipe, out, workers=1, say=print, processes=get_context("spawn"))

    manifest = begun("first", tmp_path / "out")
    models = read_manifest(manifest.parent)["provenance"]["models"]
    assert len(models) == 6 and len(set(models.values())) == 6
    begun("second", tmp_path / "out")  # moved, and the same
    for changed, name in (
        (tmp_path / "second/models" / layout.TOKENIZER / layout.CENTROIDS, layout.CENTROIDS),
        (tmp_path / "second/campplus.onnx", r"filters\.speaker\.campplus"),
    ):
        held = changed.read_bytes()
        changed.write_bytes(held + b"\0")
        with pytest.raises(ConfigError, match=f"another content of [^ ]*{name};"):
            begun("second", tmp_path / "out")
        changed.write_bytes(held)


def _start_command(recipe: Path, out: Path) -> int:
    command = [sys.executable, "-m", "stepaudio_runtime.cli", "data", "run", str(recipe), "-o", str(out)]
    return os.posix_spawn(sys.executable, [*command, "--workers", "1"], os.environ)


def _start_copy(recipe: Path, out: Path) -> int:
    fork = get_context("fork")
    arguments = {"workers": 1, "say": print, "processes": fork}
    process = fork.Process(target=run, args=(recipe, out), kwargs=arguments)
    process.start()
    assert process.pid is not None
    return process.pid


def _kill_once_it_works(start: Callable[[Path, Path], int], recipe: Path, out: Path, delay: float) -> None:
    """Start a process, wait until it has changed something, and `delay` later kill it."""
    before = _seen(out)
    pid = start(recipe, out)
    deadline = time.monotonic() + 60
    while _seen(out) <= before and time.monotonic() < deadline:
        assert os.waitpid(pid, os.WNOHANG) == (0, 0), "it ended by itself"
        time.sleep(0.001)
    time.sleep(delay)
    os.kill(pid, signal.SIGSTOP)  # a worker that begins while they are counted would not be waited for
    workers = psutil.Process(pid).children(recursive=True)
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    _, left = psutil.wait_procs(workers, timeout=30)
    assert not left, "its workers work on"


def _seen(out: Path) -> set[str]:
    return {str(path) for path in out.rglob("*") if path.suffix in (".made", ".tar")}


def _results(out: Path) -> dict[str, bytes]:
    files = [*out.glob("shard-*"), out / "manifest.json", out / "journal.jsonl"]
    return {file.name: file.read_bytes() for file in files}
