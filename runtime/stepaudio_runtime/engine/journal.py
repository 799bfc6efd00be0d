"""The journal of a run: which recipe it makes, and which shards are sealed. Pure: bytes in, bytes out.

It is a file of JSON lines that only grows. A line is written after what it says has happened, so a process
killed at any point leaves a journal that is true; a last line without its end never happened. Shards are
sealed in order, and a sealed shard is never touched again.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field, replace

from stepaudio_runtime.errors import ConfigError


@dataclass(frozen=True)
class Run:
    """What a run makes; a folder holds one."""

    recipe: str  # its hash
    teacher: str  # in words, with its version
    versions: dict[str, str]  # of what shapes the bytes
    models: dict[str, str] = field(default_factory=dict)  # SHA-256 of each; runs of before have none


@dataclass(frozen=True)
class StoredFile:
    """A file as it was written."""

    name: str
    size: int  # bytes
    sha256: str


@dataclass(frozen=True)
class Sealed:
    """A shard that is done."""

    shard: int
    samples: int
    refused: dict[str, int]  # by filter
    seconds: float
    tar: StoredFile
    records: StoredFile


@dataclass(frozen=True)
class State:
    """What a journal says."""

    run: Run | None = None
    sealed: tuple[Sealed, ...] = ()


@dataclass(frozen=True)
class Replayed:
    """A journal's state, and how many of its bytes hold: what follows them is cut off."""

    state: State
    length: int


def begin(run: Run) -> bytes:
    """The journal's first line."""
    return _line({"run": asdict(run)})


def seal(sealed: Sealed) -> bytes:
    """The line that seals a shard."""
    return _line({"sealed": asdict(sealed)})


def replay(data: bytes) -> Replayed:
    """The state after the whole lines of `data`; raises ConfigError for a line that is no journal's."""
    length = data.rfind(b"\n") + 1
    state = State()
    for number, line in enumerate(data[:length].splitlines(), start=1):
        try:
            state = _after(state, json.loads(line))
        except (ValueError, KeyError, TypeError) as error:
            what = f"line {number} of the journal is damaged: {error}"
            raise ConfigError(what=what, cure="start in an empty folder") from None
    return Replayed(state, length)


def _after(state: State, entry: dict[str, dict[str, object]]) -> State:
    if "run" in entry:
        if state.run is not None:
            raise ValueError("a second run begins")
        return replace(state, run=Run(**entry["run"]))  # type: ignore[arg-type]
    fields = dict(entry["sealed"])
    for name in ("tar", "records"):
        fields[name] = StoredFile(**fields[name])  # type: ignore[arg-type]
    sealed = Sealed(**fields)  # type: ignore[arg-type]
    if state.run is None or sealed.shard != len(state.sealed):
        raise ValueError(f"shard {sealed.shard} is sealed after {len(state.sealed)} others")
    return replace(state, sealed=(*state.sealed, sealed))


def _line(entry: object) -> bytes:
    return json.dumps(entry, ensure_ascii=False, sort_keys=True).encode() + b"\n"
