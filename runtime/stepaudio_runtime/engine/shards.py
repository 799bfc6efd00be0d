"""Shards: webdataset tar files, each with its records beside it; the same samples are the same bytes.

    shard-00000.tar     KEY.flac, KEY.codes.json, KEY.json of every sample taken, in order
    shard-00000.jsonl   one line a sample, refused ones with the reason

A file is complete under its name or is not there: it is written under another name, synchronised and moved.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import re
import tarfile
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from stepaudio_runtime.audio.files import decode
from stepaudio_runtime.audio.wave import Wave
from stepaudio_runtime.engine.journal import Sealed, StoredFile
from stepaudio_runtime.engine.make import Made
from stepaudio_runtime.errors import ConfigError, InputError

FORMAT = "stepaudio-data/1"
MAX_SECONDS = 3600.0
_MODE = 0o644
_CURE = "make the folder anew"
_SHARD = re.compile(r"shard-[0-9]{5,12}\.tar")
_KEY = re.compile(r"[0-9]{8,12}")
"""Names as a run gives them. A folder may come from strangers: any other could lead out of it."""
_TEXTS = ("text", "voice", "style", "language", "split")


@dataclass(frozen=True, eq=False)
class Utterance:
    """A sample read back: its record, its codes (empty without a tokenizer), its wave (None if not kept)."""

    record: dict[str, Any]
    codes: tuple[int, ...]
    wave: Wave | None


def write_shard(folder: Path, shard: int, samples: Iterable[Made], audio: str) -> Sealed:
    """Write both files of a shard from its samples in order; one sample at a time is held in memory."""
    refused: dict[str, int] = {}
    taken, seconds = 0, 0.0
    records = _Atomic(folder / f"shard-{shard:05d}.jsonl")
    tar_file = _Atomic(folder / f"shard-{shard:05d}.tar")
    with records as lines, tar_file as out:
        with tarfile.open(fileobj=out, mode="w", format=tarfile.USTAR_FORMAT) as tar:
            for made in samples:
                lines.write(_json(made.record) + b"\n")
                if made.refused:
                    name = made.record["refused"][0]
                    refused[name] = refused.get(name, 0) + 1
                    continue
                taken += 1
                seconds += made.record["duration_s"]
                key = made.record["key"]
                if audio != "none":
                    _add(tar, f"{key}.{audio}", made.audio)
                if made.codes:
                    _add(tar, f"{key}.codes.json", _json(made.codes))
                _add(tar, f"{key}.json", _json(made.record))
    _sync_folder(folder)
    counts = dict(sorted(refused.items()))
    return Sealed(shard, taken, counts, round(seconds, 3), tar_file.stored, records.stored)


def read_records(folder: Path) -> Iterator[dict[str, Any]]:
    """The records of every sample of a finished or running folder, refused ones too, in order."""
    for file in sorted(folder.glob("shard-*.jsonl")):
        with file.open("rb") as lines:
            for line in lines:
                yield json.loads(line)


def read_shards(folder: Path) -> Iterator[Utterance]:
    """The samples of a finished folder, in order.

    Raises ConfigError for a shard that was changed, or that holds what no run writes.
    """
    for sealed in read_manifest(folder)["shards"]:
        path = folder / sealed["file"]
        check_file(path, sealed["bytes"], sealed["sha256"])
        try:
            with tarfile.open(path) as tar:
                yield from _utterances(tar)
        except (tarfile.TarError, ValueError, TypeError, KeyError, InputError) as error:
            raise ConfigError(what=f"{path} is no shard: {error}", cure=_CURE) from None


def read_manifest(folder: Path) -> dict[str, Any]:
    """The manifest of a finished folder; raises ConfigError, also for one that no run wrote."""
    path = folder / "manifest.json"
    try:
        manifest: dict[str, Any] = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError) as error:
        what = f"{folder} is not a finished data folder: {error}"
        raise ConfigError(what=what, cure="run the recipe to its end") from None
    if not isinstance(manifest, dict) or manifest.get("format") != FORMAT:
        raise ConfigError(what=f"{path} is not a manifest of {FORMAT}", cure="give a folder of `data run`")
    shards = manifest.get("shards")
    for number, sealed in enumerate(shards if isinstance(shards, list) else [shards]):
        held: dict[str, Any] = sealed if isinstance(sealed, dict) else {}
        said: list[Any] = [held.get(name) for name in ("file", "bytes", "sha256")]
        if [type(value) for value in said] != [str, int, str] or not _SHARD.fullmatch(said[0]):
            what = f"{path}: shards.{number} is not a shard's file, bytes and sha256: {sealed!r:.100}"
            raise ConfigError(what=what, cure=_CURE)
    return manifest


def check_file(path: Path, size: int, sha256: str) -> None:
    """Raises ConfigError unless `path` has this size and checksum."""
    try:
        with path.open("rb") as file:
            same = os.fstat(file.fileno()).st_size == size
            same = same and hashlib.file_digest(file, "sha256").hexdigest() == sha256
    except OSError as error:
        raise ConfigError(what=f"{path} cannot be read: {error}", cure=_CURE) from None
    if not same:
        raise ConfigError(what=f"{path} is not the file that was written", cure=_CURE)


def write_atomically(path: Path, content: bytes) -> StoredFile:
    """`content` under `path`, whole or not at all."""
    atomic = _Atomic(path)
    with atomic as file:
        file.write(content)
    _sync_folder(path.parent)
    return atomic.stored


def _utterances(tar: tarfile.TarFile) -> Iterator[Utterance]:
    """Members come by sample, the record last. Others raise ValueError, TypeError or InputError."""
    codes: tuple[int, ...] = ()
    wave: Wave | None = None
    for member in tar:
        file = tar.extractfile(member)
        content = b"" if file is None else file.read()
        ending = member.name.partition(".")[2]
        if ending == "codes.json":
            codes = tuple(json.loads(content))
        elif ending == "json":
            yield Utterance(_record(json.loads(content), member.name), codes, wave)
            codes, wave = (), None
        else:
            wave = decode(content, max_seconds=MAX_SECONDS)


def _record(held: Any, member: str) -> dict[str, Any]:
    """A record as `make` writes it; raises ValueError for another."""
    if not isinstance(held, dict) or not all(isinstance(held.get(name), str) for name in ("key", *_TEXTS)):
        raise ValueError(f"{member} is not a sample's record")
    if not _KEY.fullmatch(held["key"]):
        raise ValueError(f"{member}: the key {held['key']!r:.100} is not a sample's number")
    return held


def _add(tar: tarfile.TarFile, name: str, content: bytes) -> None:
    # No time, no owner: equal content must be equal bytes.
    member = tarfile.TarInfo(name)
    member.size, member.mode, member.mtime = len(content), _MODE, 0
    tar.addfile(member, io.BytesIO(content))


def _json(value: object) -> bytes:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode()


class _Hashed:
    """A file that knows what was written to it, front to back."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self.digest = hashlib.sha256()
        self.size = 0
        self.tell: Callable[[], int] = lambda: self.size

    def write(self, data: bytes) -> int:
        self.digest.update(data)
        self.size += len(data)
        return self._file.write(data)


class _Atomic:
    """Write, synchronise, move into place; nothing is left under the name after an error."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._new = path.with_name(path.name + ".new")

    def __enter__(self) -> Any:
        self._file = self._new.open("wb")
        self._hashed = _Hashed(self._file)
        return self._hashed

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is None:
            self._file.flush()
            os.fsync(self._file.fileno())
        self._file.close()
        if kind is None:
            self._new.replace(self._path)
            self.stored = StoredFile(self._path.name, self._hashed.size, self._hashed.digest.hexdigest())


def _sync_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
