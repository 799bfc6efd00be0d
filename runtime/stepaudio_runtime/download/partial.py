"""One file on its way into the folder: a part beside a record of what of it is there, then the file, at once.

    FOLDER/.stepaudio/PATH.part        the bytes that have come, at their places
    FOLDER/.stepaudio/PATH.part.json   `pieces.encode`: what of it can be trusted
    FOLDER/.stepaudio/PATH.done        `pieces.encode` of the whole file, written before the file appears
    FOLDER/PATH                        whole and checked, or not there

The record never says more than is on the disk: bytes are flushed to it first. So a process that is killed at
any point leaves either a trusted part or nothing.
"""

from __future__ import annotations

import os
import threading
from pathlib import Path

from stepaudio_runtime.download import pieces
from stepaudio_runtime.download.pieces import Piece
from stepaudio_runtime.download.remote import RemoteFile

WORK = ".stepaudio"
_READ_BYTES = 4 << 20


def is_done(folder: Path, file: RemoteFile) -> bool:
    """Whether an earlier run has brought this very content, and it still has its size."""
    try:
        record = (folder / WORK / f"{file.path}.done").read_text()
        size = (folder / file.path).stat().st_size
    except OSError:
        return False
    return record == pieces.encode(file, []) and size == file.size


class Partial:
    """A file that is being fetched. `write` and `save` may be called from several threads.

    Every method raises OSError for what the disk does not take.
    """

    def __init__(self, folder: Path, file: RemoteFile, piece_bytes: int) -> None:
        self.file = file
        self._final = folder / file.path
        self._part = folder / WORK / f"{file.path}.part"
        self._record = folder / WORK / f"{file.path}.part.json"
        self._done = folder / WORK / f"{file.path}.done"
        self._lock = threading.Lock()
        self._part.parent.mkdir(parents=True, exist_ok=True)
        self._final.parent.mkdir(parents=True, exist_ok=True)
        fresh = not self._part.exists()
        self._fd = os.open(self._part, os.O_RDWR | os.O_CREAT, 0o644)
        os.ftruncate(self._fd, file.size)
        text = self._record.read_text() if self._record.exists() and not fresh else ""
        self.pieces = pieces.decode(text, file, piece_bytes)
        self._piece_bytes = piece_bytes

    @property
    def present(self) -> int:
        """Bytes that are there."""
        return sum(piece.at - piece.start for piece in self.pieces)

    def write(self, piece: Piece, chunk: bytes) -> None:
        """The next bytes of `piece`, which one thread at a time fills."""
        view = memoryview(chunk)
        while view:
            written = os.pwrite(self._fd, view, piece.at)
            piece.at += written
            view = view[written:]

    def save(self) -> None:
        """Records what is there, after it has reached the disk."""
        with self._lock:
            text = pieces.encode(self.file, self.pieces)
            os.fdatasync(self._fd)
            _replace(self._record, text)

    def checked(self) -> bool:
        """Whether the whole content is what the source says it is; reads it again."""
        digest = self.file.digest
        if digest is None:
            return True
        hasher, at = digest.hasher(self.file.size), 0
        while chunk := os.pread(self._fd, _READ_BYTES, at):
            hasher.update(chunk)
            at += len(chunk)
        return hasher.hexdigest() == digest.hexdigest

    def forget(self) -> int:
        """Gives up everything that is there; returns how many bytes that were."""
        lost = self.present
        self.pieces = pieces.split(self.file.size, self._piece_bytes)
        self.save()
        return lost

    def finish(self) -> None:
        """The file appears under its name, whole; one of another revision goes before."""
        os.fsync(self._fd)
        # Of another revision: were it still there, the record would speak of it until the move.
        self._final.unlink(missing_ok=True)
        _replace(self._done, pieces.encode(self.file, []))
        self._part.replace(self._final)
        self._record.unlink(missing_ok=True)
        self.close()

    def close(self) -> None:
        """Lets go of the file."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


def _replace(path: Path, text: str) -> None:
    fresh = path.with_name(f"{path.name}.new")
    with fresh.open("w") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    fresh.replace(path)
