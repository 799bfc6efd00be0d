"""A run of the data engine loses nothing: killed twenty times, it ends in the same bytes as undisturbed."""

from __future__ import annotations

import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

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
PROGRAM = """
import sys
from pathlib import Path
from stepaudio_runtime.engine.run import run
if __name__ == "__main__":
    run(Path(sys.argv[1]), Path(sys.argv[2]), workers=1, say=print)
"""


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    path = tmp_path / "recipe.yaml"
    path.write_text(RECIPE)
    return path


def test_killed_at_twenty_points_and_resumed_it_gives_the_same_bytes(tmp_path: Path, recipe: Path) -> None:
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    run(recipe, whole, workers=2, say=print)
    program = tmp_path / "program.py"
    program.write_text(PROGRAM)
    draws = random.Random(7)
    broken.mkdir()
    for _ in range(KILLS):
        _kill_once_it_works(program, recipe, broken, draws.uniform(0, 0.03))
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


def _kill_once_it_works(program: Path, recipe: Path, out: Path, delay: float) -> None:
    """Start the real process, wait until it has changed something, and `delay` later kill it."""
    before = _seen(out)
    process = subprocess.Popen(
        [sys.executable, str(program), str(recipe), str(out)], stdout=subprocess.DEVNULL
    )
    deadline = time.monotonic() + 30
    while _seen(out) <= before and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.001)
    time.sleep(delay)
    process.send_signal(signal.SIGKILL)
    process.wait()


def _seen(out: Path) -> set[str]:
    return {str(path) for path in out.rglob("*") if path.suffix in (".made", ".tar")}


def _results(out: Path) -> dict[str, bytes]:
    files = [*out.glob("shard-*"), out / "manifest.json", out / "journal.jsonl"]
    return {file.name: file.read_bytes() for file in files}
