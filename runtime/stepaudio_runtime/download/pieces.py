"""Which bytes of a file are still to be fetched: pieces of a fixed size, each filled from its start. No I/O.

Pieces of one file are fetched side by side. What is stored of them (`encode`) says how far each has come, so
that a process that was killed goes on where the last stored state stands.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from stepaudio_runtime.download.remote import RemoteFile


@dataclass
class Piece:
    """Bytes `start` to `stop` of a file, of which those before `at` are there."""

    start: int
    stop: int
    at: int

    @property
    def missing(self) -> int:
        """Bytes still to fetch."""
        return self.stop - self.at


def split(size: int, piece_bytes: int) -> list[Piece]:
    """A file of `size` bytes in pieces, none of them begun; an empty file has none."""
    return [Piece(at, min(at + piece_bytes, size), at) for at in range(0, size, piece_bytes)]


def encode(file: RemoteFile, pieces: list[Piece]) -> str:
    """The state of a file's pieces as text."""
    return json.dumps({**_identity(file), "pieces": [[p.start, p.stop, p.at] for p in pieces]})


def decode(text: str, file: RemoteFile, piece_bytes: int) -> list[Piece]:
    """The pieces that `encode` wrote; a fresh split where the text is of another content, or no state."""
    try:
        state: Any = json.loads(text)
        if {key: state[key] for key in _identity(file)} == _identity(file):
            pieces = [Piece(int(start), int(stop), int(at)) for start, stop, at in state["pieces"]]
            if _covers(pieces, file.size):
                return pieces
    except (ValueError, KeyError, TypeError):
        pass
    return split(file.size, piece_bytes)


def _covers(pieces: list[Piece], size: int) -> bool:
    at = 0
    for piece in pieces:
        if piece.start != at or not piece.start <= piece.at <= piece.stop or piece.stop <= piece.start:
            return False
        at = piece.stop
    return at == size


def _identity(file: RemoteFile) -> dict[str, Any]:
    digest = [file.digest.algorithm, file.digest.hexdigest] if file.digest else None
    return {"path": file.path, "size": file.size, "digest": digest}
