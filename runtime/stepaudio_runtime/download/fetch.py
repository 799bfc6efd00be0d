"""The download itself: list, lay out, fetch pieces side by side, check each file, let it appear.

files = source.files()  ->  those not done: Partial  ->  queue of pieces  ->  threads
thread: piece -> source.read from where it stands -> write, save now and then -> next try after a Fault
the thread that ends a file's last piece checks its sum and lets it appear
"""

from __future__ import annotations

import logging
import shutil
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from stepaudio_runtime.download.partial import WORK, Partial, is_done
from stepaudio_runtime.download.pieces import Piece
from stepaudio_runtime.download.progress import Progress, size
from stepaudio_runtime.download.remote import Fault, FaultKind, RemoteFile, Source
from stepaudio_runtime.download.retries import CHECKSUM, Patience, wait_s
from stepaudio_runtime.errors import DownloadError
from stepaudio_runtime.volume import FULL

log = logging.getLogger(__name__)
TROUBLE_AFTER_S = 5.0
"""A source that gives nothing for so long, and says or shows why, is told of."""


@dataclass(frozen=True)
class Tuning:
    """How a download is made."""

    connections: int = 8
    """Pieces that are fetched at once."""
    piece_bytes: int = 64 << 20
    """Size of a piece."""
    save_bytes: int = 8 << 20
    """After so many bytes of a piece the record is written: what a kill may cost, a piece."""
    patience: Patience = field(default_factory=Patience)


@dataclass(frozen=True)
class World:
    """What a download takes from outside."""

    clock: Callable[[], float] = time.monotonic
    """Seconds."""
    free: Callable[[Path], int] = lambda folder: shutil.disk_usage(folder).free
    """Bytes that a folder's volume has left."""


class Fetcher:
    """One download into one folder; `run` once."""

    def __init__(self, source: Source, folder: Path, tuning: Tuning, world: World | None = None) -> None:
        self._source = source
        self._folder = folder
        self._tuning = tuning
        self._world = world or World()
        self.progress = Progress(self._world.clock)
        self._todo: deque[tuple[Partial, Piece]] = deque()
        self._left: dict[Partial, int] = {}
        """Unfinished files, each with the pieces that are queued or being filled."""
        self._wrong: set[Partial] = set()
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._error: Exception | None = None
        self._trouble: Fault | None = None
        self._quiet_until = 0.0

    def run(self) -> list[RemoteFile]:
        """Fetches what is not there yet. Returns every file. Raises DownloadError, OSError of the disk."""
        files = self._list()
        missing = [file for file in files if not is_done(self._folder, file)]
        (self._folder / WORK).mkdir(parents=True, exist_ok=True)
        partials = [Partial(self._folder, file, self._tuning.piece_bytes) for file in missing]
        left = sum(partial.file.size - partial.present for partial in partials)
        self.progress.begin(sum(file.size for file in files), sum(file.size for file in files) - left)
        self._require_room(left)
        for partial in partials:
            if partial.pieces:
                self._queue(partial)
            else:
                self._take_empty(partial)
        threads = [
            threading.Thread(target=self._work, name=f"fetch-{number}", daemon=True)
            for number in range(self._tuning.connections)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        for partial in partials:
            partial.close()
        if self._error is not None:
            raise self._error
        if self._left and not self._stop.is_set():
            raise AssertionError(f"{len(self._left)} files were fetched by nobody")
        return files

    def trouble(self) -> Fault | None:
        """Why the source has given nothing for a while; None where it has, or is not known to be at fault."""
        quiet_s = self._world.clock() - self.progress.last_byte
        return self._trouble if quiet_s > TROUBLE_AFTER_S else None

    def stop(self) -> None:
        """Ends `run` soon; what has come stays."""
        self._stop.set()

    def _list(self) -> list[RemoteFile]:
        fruitless = 0
        while True:
            try:
                files = self._source.files()
            except Fault as fault:
                fruitless += 1
                self._pause(fault, fruitless)
                if self._stop.is_set():
                    return []
                continue
            self._trouble = None
            if not files:
                raise DownloadError(
                    "SourceNotFound",
                    what=f"{self._source.name} holds no files of these models",
                    cure="correct the names and revisions in models.source",
                    for_a_person=True,
                )
            return sorted(files, key=lambda file: file.path)

    def _require_room(self, left: int) -> None:
        # Parts are sparse: what they hold already is not in the free space any more.
        free = self._world.free(self._folder)
        if left > free:
            raise DownloadError(
                FULL,
                what=f"{size(left)} are still to come, {self._folder} has {size(free)} left",
                cure="make the volume larger (models.cache.size)",
                for_a_person=True,
            )

    def _queue(self, partial: Partial) -> None:
        """What of a file is to be fetched; a file whose last piece is there already only needs its check."""
        tasks = [piece for piece in partial.pieces if piece.missing] or partial.pieces[:1]
        self._left[partial] = len(tasks)
        self._todo.extend((partial, piece) for piece in tasks)

    def _take_empty(self, partial: Partial) -> None:
        """A file without a byte is there at once. Raises DownloadError where its sum is another's."""
        if not partial.checked():
            raise self._disowned(partial, "is listed as empty, with the sum of something else")
        partial.finish()

    def _work(self) -> None:
        try:
            while not self._stop.is_set():
                with self._lock:
                    if not self._left:
                        return
                    task = self._todo.popleft() if self._todo else None
                if task is None:
                    self._stop.wait(0.05)  # others fetch the last pieces; a wrong sum may bring more
                    continue
                self._fill(*task)
        except Exception as error:
            with self._lock:
                self._error = self._error or error
            self._stop.set()

    def _fill(self, partial: Partial, piece: Piece) -> None:
        fruitless = 0
        while piece.missing and not self._stop.is_set():
            self._stop.wait(max(0.0, self._quiet_until - self._world.clock()))
            before = piece.at
            try:
                self._read(partial, piece)
            except Fault as fault:
                fruitless = 0 if piece.at > before else fruitless + 1
                self._pause(fault, fruitless)
        partial.save()
        with self._lock:
            self._left[partial] -= not piece.missing
            last = self._left[partial] == 0
        if last and not self._appeared(partial):
            self._begin_anew(partial)

    def _read(self, partial: Partial, piece: Piece) -> None:
        """One try to fill a piece."""
        unsaved = 0
        for chunk in self._source.read(partial.file, piece.at, piece.stop):
            partial.write(piece, chunk)
            self.progress.add(len(chunk))
            self._trouble = None
            unsaved += len(chunk)
            if unsaved >= self._tuning.save_bytes:
                partial.save()
                unsaved = 0
            if self._stop.is_set():
                return
        if piece.missing:
            raise Fault(FaultKind.BROKEN, f"{partial.file.address}: the answer is too short")

    def _appeared(self, partial: Partial) -> bool:
        """Lets a file appear whose content is right, and says whether it is."""
        if not partial.checked():
            return False
        partial.finish()
        log.info("%s is there (%d bytes)", partial.file.path, partial.file.size)
        with self._lock:
            del self._left[partial]
        return True

    def _begin_anew(self, partial: Partial) -> None:
        """Gives up a wrong content and fetches it again. Raises DownloadError where that was done before."""
        log.warning("%s: the content is not what %s says it is", partial.file.path, self._source.name)
        self.progress.lose(partial.forget())
        with self._lock:
            if partial in self._wrong:
                raise self._disowned(partial, "came twice with a content that its sum disowns")
            self._wrong.add(partial)
            self._queue(partial)

    def _disowned(self, partial: Partial, what: str) -> DownloadError:
        return DownloadError(
            CHECKSUM,
            what=f"{partial.file.path} of {self._source.name} {what}",
            cure="it is tried again later; if it stays so, the file is spoilt where it is published",
            for_a_person=False,
        )

    def _pause(self, fault: Fault, fruitless: int) -> None:
        """Waits after a failed try, or raises DownloadError. "Later" (429) holds up every thread."""
        now = self._world.clock()
        self._trouble = fault
        pause = wait_s(fault, fruitless, now - self.progress.last_byte, self._tuning.patience)
        if fault.kind is FaultKind.BUSY:
            self._quiet_until = max(self._quiet_until, now + pause)
        if pause:
            log.info("%s; next try in %.1f s", fault.what, pause)
        self._stop.wait(pause)
