"""The operator's process, forked from one that has the imports done: a start costs little."""

import multiprocessing
import os
import sys
from collections.abc import Callable
from multiprocessing.process import BaseProcess
from pathlib import Path

from stepaudio_operator.main import main


def lives(environment: dict[str, str], log: Path) -> Callable[[], BaseProcess]:
    """What begins another life of the operator, with this environment and log."""
    processes = multiprocessing.get_context("forkserver")
    processes.set_forkserver_preload([__name__])

    def start() -> BaseProcess:
        process = processes.Process(target=_live, args=(environment, log), daemon=True)
        process.start()
        return process

    return start


def _live(environment: dict[str, str], log: Path) -> None:
    os.environ.clear()
    os.environ.update(environment)
    with log.open("ab") as stream:
        os.dup2(stream.fileno(), 1)
        os.dup2(stream.fileno(), 2)
    sys.exit(main())
