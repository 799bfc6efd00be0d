"""One child process: started tethered to this one, its output relayed line by line, ended in order.

A child that ends by itself leaves its last lines of output; the one that reads like an error becomes the
pod's last words. Its text is shown, never acted upon.
"""

import asyncio
import contextlib
import os
import re
import sys
from collections import deque
from collections.abc import Callable, Mapping, Sequence

KEPT_LINES = 200
READ_BYTES = 1 << 16
ERROR_LINE = re.compile(r"\b\w*(Error|Exception)\b: \S|\bKilled\b|\bout of memory\b")
POINTER = "See root cause above"  # by which vLLM's front end points at its back end's own error
SHOWN_CHARACTERS = 300


class Child:
    """A running process, made by `Child.start`."""

    def __init__(
        self,
        process: asyncio.subprocess.Process,
        output: asyncio.StreamReader,
        label: str,
        on_line: Callable[[str], None],
    ) -> None:
        self.pid = process.pid
        self._process = process
        self._label = label
        self._on_line = on_line
        self._lines: deque[str] = deque(maxlen=KEPT_LINES)
        self._relay = asyncio.create_task(self._relay_output(output))

    @classmethod
    async def start(
        cls,
        command: Sequence[str],
        env: Mapping[str, str],
        label: str,
        on_line: Callable[[str], None] = lambda line: None,
    ) -> "Child":
        """Start `command`; `label` stands before each line that is relayed, and `on_line` sees it.

        It gets a session of its own: a terminal's Ctrl-C goes to us only, and we end it after the drain.
        """
        tether = [sys.executable, "-m", "stepaudio_runtime.health.tether", str(os.getpid())]
        process = await asyncio.create_subprocess_exec(
            *tether,
            *command,
            env=dict(env),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            start_new_session=True,
        )
        return cls(process, process.stdout or asyncio.StreamReader(), label, on_line)

    async def wait(self) -> int:
        """Its exit status (negative: the signal that ended it), after its output has been relayed."""
        status = await self._process.wait()
        # A grandchild may hold the pipe open for longer than the child lived.
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(asyncio.shield(self._relay), 2)
        return status

    async def stop(self, timeout_s: float) -> None:
        """SIGTERM, then SIGKILL after `timeout_s` seconds; nothing if it has ended."""
        if self._process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                self._process.terminate()
            try:
                await asyncio.wait_for(self._process.wait(), timeout_s)
            except TimeoutError:
                with contextlib.suppress(ProcessLookupError):
                    self._process.kill()
                await self._process.wait()
        self._relay.cancel()

    def last_error(self) -> str:
        """The last line that reads like an error, else the last line, else nothing; shortened."""
        for line in reversed(self._lines):
            if ERROR_LINE.search(line) and POINTER not in line:
                return line[-SHOWN_CHARACTERS:]
        return self._lines[-1][-SHOWN_CHARACTERS:] if self._lines else ""

    async def _relay_output(self, output: asyncio.StreamReader) -> None:
        rest = ""
        while data := await output.read(READ_BYTES):
            # Progress bars end their lines with a carriage return.
            *lines, rest = (rest + data.decode(errors="replace")).replace("\r", "\n").split("\n")
            for line in lines:
                self._show(line)
        self._show(rest)

    def _show(self, line: str) -> None:
        if line.strip():
            self._lines.append(line.strip())
            print(f"{self._label} | {line}", flush=True)
            self._on_line(line)
