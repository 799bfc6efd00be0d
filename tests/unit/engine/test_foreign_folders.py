"""A data folder that no run of ours wrote is refused in one line that names what is wrong with it, and
nothing of it is written outside of where it is unpacked to."""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from stepaudio_runtime.audio.encoding import Format, encode
from stepaudio_runtime.engine.shards import FORMAT
from stepaudio_runtime.engine.unpack import unpack
from stepaudio_runtime.errors import ConfigError

RECORD = {"key": "00000000", "text": "hi", "voice": "v", "style": "", "language": "en", "split": "train"}
WAVE = encode(np.full(4000, 0.1, np.float32), 16_000, Format.WAV)
SHARD = "shard-00000.tar"


def folder(place: Path, record: object = RECORD, wave: bytes = WAVE, name: str = SHARD) -> Path:
    place.mkdir()
    with tarfile.open(place / SHARD, "w") as tar:
        for member, content in (("0.wav", wave), ("0.json", json.dumps(record).encode())):
            header = tarfile.TarInfo(member)
            header.size = len(content)
            tar.addfile(header, io.BytesIO(content))
    write_manifest(place, {"format": FORMAT, "shards": [described(place / SHARD, name)]})
    return place


def described(shard: Path, name: str) -> dict[str, Any]:
    data = shard.read_bytes()
    return {"file": name, "bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}


def write_manifest(place: Path, manifest: object) -> None:
    (place / "manifest.json").write_text(json.dumps(manifest))


def test_a_folder_as_a_run_writes_it_is_unpacked(tmp_path):
    assert unpack(folder(tmp_path / "data"), tmp_path / "out") == 1
    assert (tmp_path / "out/00000000.wav").exists()


@pytest.mark.parametrize("key", ["../escaped", "/tmp/escaped", "a/b", "", 7, None])
def test_a_key_that_is_no_sample_s_number_is_refused(key, tmp_path):
    before = folder(tmp_path / "data", {**RECORD, "key": key})
    with pytest.raises(ConfigError, match=rf"{SHARD}.*0\.json"):
        unpack(before, tmp_path / "out")
    assert not list(tmp_path.rglob("*escaped*"))


def test_a_shard_outside_the_folder_is_not_read(tmp_path):
    other = folder(tmp_path / "other")
    with pytest.raises(ConfigError, match=r"shards\.0"):
        unpack(folder(tmp_path / "data", name=f"../{other.name}/{SHARD}"), tmp_path / "out")


@pytest.mark.parametrize(
    "change", [{"record": [1]}, {"record": {"key": "00000000"}}, {"wave": b"no sound"}], ids=str
)
def test_what_is_no_sample_is_refused(change, tmp_path):
    with pytest.raises(ConfigError, match=SHARD):
        unpack(folder(tmp_path / "data", **change), tmp_path / "out")


def test_what_is_no_tar_is_refused(tmp_path):
    place = folder(tmp_path / "data")
    (place / SHARD).write_text("no archive")
    write_manifest(place, {"format": FORMAT, "shards": [described(place / SHARD, SHARD)]})
    with pytest.raises(ConfigError, match=f"{SHARD} is no shard"):
        unpack(place, tmp_path / "out")


@pytest.mark.parametrize(
    ("manifest", "words"),
    [
        ([1], "not a manifest"),
        ({"name": "a web app"}, "not a manifest"),
        ({"format": FORMAT}, r"shards\.0"),
        ({"format": FORMAT, "shards": [{"file": SHARD, "bytes": "3", "sha256": ""}]}, r"shards\.0"),
    ],
)
def test_another_manifest_is_refused(manifest, words, tmp_path):
    place = folder(tmp_path / "data")
    write_manifest(place, manifest)
    with pytest.raises(ConfigError, match=words):
        unpack(place, tmp_path / "out")
