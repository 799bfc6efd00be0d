"""The last lines of what a process wrote, and which of them says why it ended. Shown, never acted upon."""

from __future__ import annotations

import contextlib
import os
import re
import sys
import threading
from collections import deque
from collections.abc import Iterator

from stepaudio_runtime.errors import beginning

KEPT_LINES = 200
READ_BYTES = 1 << 16
NAMED_ERROR = re.compile(r"\b\w*(Error|Exception)\b: \S")
OTHER_END = re.compile(r"\bKilled\b|\bout of memory\b")
POINTER = "See root cause above"  # by which vLLM's front end points at its back end's own error
SHOWN_CHARACTERS = 300
_DRAINED_S = 2.0  # what a process that has failed wrote last is in the pipe, not yet read


class LastLines:
    """Takes bytes as they come, gives whole lines."""

    def __init__(self) -> None:
        self._lines: deque[str] = deque(maxlen=KEPT_LINES)
        self._rest = ""

    def take(self, data: bytes) -> list[str]:
        """The lines that end in `data`, but for empty ones; progress bars end theirs by a carriage return."""
        *lines, self._rest = (self._rest + data.decode(errors="replace")).replace("\r", "\n").split("\n")
        return self._kept(lines)

    def end(self) -> list[str]:
        """What came after the last line's end."""
        lines, self._rest = [self._rest], ""
        return self._kept(lines)

    def _kept(self, lines: list[str]) -> list[str]:
        found = [line for line in lines if line.strip()]
        self._lines.extend(line.strip() for line in found)
        return found

    def last_error(self) -> str:
        """The last line that reads like an error, else the last line, else nothing; shortened.

        Of an error the first sentences are shown, from its name on: there it says what is wrong.
        """
        lines = list(self._lines)
        for line in reversed(lines):
            if POINTER in line:
                continue
            if (named := NAMED_ERROR.search(line)) is not None:
                return beginning(line[named.start() :], SHOWN_CHARACTERS)
            if OTHER_END.search(line):
                return line[-SHOWN_CHARACTERS:]
        return lines[-1][-SHOWN_CHARACTERS:] if lines else ""


@contextlib.contextmanager
def overheard() -> Iterator[LastLines]:
    """What this process, and for as long as they live those that are started in here, write to the standard
    outputs. All of it still goes where it went.

    For libraries that start processes themselves and say of their end only that it came.
    """
    lines = LastLines()
    source, sink = os.pipe()
    kept = {stream: os.dup(stream) for stream in (1, 2)}
    relay = threading.Thread(target=_relay, args=(source, os.dup(2), lines), name="overheard", daemon=True)
    relay.start()
    for stream in kept:
        os.dup2(sink, stream)
    os.close(sink)
    try:
        yield lines
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        for stream, original in kept.items():
            os.dup2(original, stream)
            os.close(original)
        if sys.exc_info()[0] is not None:
            relay.join(_DRAINED_S)


def _relay(source: int, to: int, lines: LastLines) -> None:
    """Until nobody can write any more; a reader that stopped would block whoever writes."""
    while data := os.read(source, READ_BYTES):
        lines.take(data)
        with contextlib.suppress(OSError):
            os.write(to, data)
    lines.end()
    os.close(source)
    os.close(to)
