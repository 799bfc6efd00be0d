"""What every source of model files gives: a list of files, and the bytes of one between two offsets. No I/O.

A try that fails is a `Fault`; what becomes of it is decided in `retries`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from pathlib import PurePosixPath
from typing import Literal, Protocol


class FaultKind(StrEnum):
    """What a failed try means."""

    UNAUTHORIZED = "unauthorized"  # 401, 403: another try needs another token
    MISSING = "missing"  # 404: the repository, the revision or the file is not there
    BUSY = "busy"  # 429, 503 with Retry-After: later
    BROKEN = "broken"  # a connection that broke, 5xx, an answer that makes no sense: again


class Fault(Exception):  # noqa: N818 - one failed try, not yet an error
    """One try failed. `wait_s`: what the source asked for (Retry-After), None where it did not."""

    def __init__(self, kind: FaultKind, what: str, wait_s: float | None = None) -> None:
        self.kind = kind
        self.what = " ".join(what.split())[:300]
        self.wait_s = wait_s
        super().__init__(self.what)


@dataclass(frozen=True)
class Digest:
    """How a file's content is known. `git` is the SHA-1 of a git blob: of a header and the content."""

    algorithm: Literal["sha256", "git"]
    hexdigest: str

    def hasher(self, size: int) -> hashlib._Hash:
        """A hash object that has to be fed the whole content of a file of `size` bytes."""
        if self.algorithm == "sha256":
            return hashlib.sha256()
        return hashlib.sha1(b"blob %d\0" % size, usedforsecurity=False)


@dataclass(frozen=True)
class RemoteFile:
    """A file to fetch."""

    path: str
    """Where it belongs below the model folder, such as `Step-Audio-Chat/config.json`."""
    size: int
    """Bytes."""
    digest: Digest | None
    """None: the source knows none, and only the size is checked."""
    address: str
    """What the source reads it by: a URL or a key."""


class Source(Protocol):
    """Where model files are published. Every method raises `Fault`; several threads read at once."""

    name: str
    """For people, such as `https://huggingface.co/stepfun-ai`."""

    def files(self) -> list[RemoteFile]:
        """Every file of the wanted folders."""

    def read(self, file: RemoteFile, start: int, stop: int) -> Iterator[bytes]:
        """The bytes from `start` up to `stop`, in pieces as they come; a broken one ends in a Fault."""

    def close(self) -> None:
        """Ends its connections."""


def safe_path(folder: str, path: str) -> str:
    """`folder/path`, where `path` comes from a server. Raises Fault where it leads out of the folder."""
    parts = PurePosixPath(path).parts
    if not parts or path.startswith("/") or ".." in parts or "\\" in path or "\0" in path:
        raise Fault(FaultKind.BROKEN, f"the source lists a file under an impossible name: {path!r}")
    return f"{folder}/{PurePosixPath(path)}"


def wanted(path: str) -> bool:
    """Whether a listed file is part of a model: git's own files are not."""
    return not PurePosixPath(path).name.startswith(".git")
