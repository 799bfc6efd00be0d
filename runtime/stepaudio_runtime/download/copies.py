"""A folder of models that another process fills: whether it is whole, waiting until it is, taking it away.

Where models lie on the nodes' own disks, a Job fills the folder on a node and pods of that node wait for it.
A folder is whole from the end of the first run of `fetch` that found every file there and right.
"""

from __future__ import annotations

import contextlib
import logging
import shutil
import time
from collections.abc import Callable
from pathlib import Path

from stepaudio_runtime.download.partial import WORK

log = logging.getLogger(__name__)
_LOOK_EVERY_S = 1.0
_TELL_EVERY_S = 30.0


def mark_whole(folder: Path) -> None:
    """Says that every file of `folder` is there and checked."""
    (folder / WORK).mkdir(parents=True, exist_ok=True)
    (folder / WORK / "whole").touch()


def is_whole(folder: Path) -> bool:
    """Whether an earlier run has said so."""
    return (folder / WORK / "whole").exists()


def await_whole(
    folder: Path,
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> None:
    """Returns when `folder` is whole."""
    told: float | None = None
    while not is_whole(folder):
        now = clock()
        if told is None or now - told >= _TELL_EVERY_S:
            log.info("%s is being filled by another pod of this node; waiting for it", folder)
            told = now
        sleep(_LOOK_EVERY_S)
    log.info("%s is whole", folder)


def remove(folder: Path) -> None:
    """Takes `folder` away: at once for whoever looks for it, then from the disk. Fine where there is none."""
    going = folder.with_name(f".{folder.name}.going")
    shutil.rmtree(going, ignore_errors=True)  # of an earlier run that was killed
    with contextlib.suppress(FileNotFoundError):
        folder.rename(going)
    if going.exists():
        shutil.rmtree(going)
    log.info("%s is gone", folder)
