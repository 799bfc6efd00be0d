"""One child process: started tethered to this one, its output relayed line by line, ended in order.

A child that ends by itself leaves its last lines of output; the one that reads like an error becomes the
pod's last words.
"""

import asyncio
import contextlib
import os
import sys
from collections.abc import Callable, Mapping, Sequence

from stepaudio_runtime.service.last_lines import READ_BYTES, LastLines


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
        self._lines = LastLines()
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
        return self._lines.last_error()

    async def _relay_output(self, output: asyncio.StreamReader) -> None:
        while data := await output.read(READ_BYTES):
            self._show(self._lines.take(data))
        self._show(self._lines.end())

    def _show(self, lines: Sequence[str]) -> None:
        for line in lines:
            print(f"{self._label} | {line}", flush=True)
            self._on_line(line)
