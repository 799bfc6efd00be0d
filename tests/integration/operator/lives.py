"""Processes of the operator, forked from one that has the imports done: a start costs little."""

import multiprocessing
import os
import signal
import sys
from multiprocessing.process import BaseProcess
from pathlib import Path

from stepaudio_operator.main import main


class Life:
    """One process of the operator, with what of `subprocess.Popen` is needed."""

    def __init__(self, environment: dict[str, str], log: Path) -> None:
        processes = multiprocessing.get_context("forkserver")
        processes.set_forkserver_preload(["__main__", __name__])  # else every child reads both
        self._process: BaseProcess = processes.Process(target=_live, args=(environment, log), daemon=True)
        self._process.start()
        assert self._process.pid is not None
        self.pid = self._process.pid

    def poll(self) -> int | None:
        """The exit status; None while it lives."""
        return self._process.exitcode

    def wait(self, timeout: float) -> int:
        """The exit status, once it has ended. Raises TimeoutError."""
        self._process.join(timeout)
        if self._process.exitcode is None:
            raise TimeoutError(f"the operator {self.pid} has not ended within {timeout:.0f} s")
        return self._process.exitcode

    def send_signal(self, number: int) -> None:
        """Nothing where it has ended."""
        if self.poll() is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        """SIGKILL."""
        self.send_signal(signal.SIGKILL)


def _live(environment: dict[str, str], log: Path) -> None:
    os.environ.clear()
    os.environ.update(environment)
    with log.open("ab") as stream:
        os.dup2(stream.fileno(), 1)
        os.dup2(stream.fileno(), 2)
    sys.exit(main())
