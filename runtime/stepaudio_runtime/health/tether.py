"""Ties a process's life to its parent's, so that a killed pod leaves nothing running behind it.

In a container the kernel does that when process 1 ends; this is for everywhere else, and for engines whose
front end dies without its back end.

- `python -m stepaudio_runtime.health.tether COMMAND...` becomes COMMAND, killed when its parent dies.
- `follow_parent` does the same for processes started by Python's multiprocessing, as vLLM's engine core
  and workers are: they import the main module again, and the main modules of the pods call it at import.
"""

import ctypes
import multiprocessing
import os
import signal
import sys
import threading
import time

PR_SET_PDEATHSIG = 1  # from linux/prctl.h
SPAWNED_MAIN = "__mp_main__"  # multiprocessing's name for the main module in a process that it spawned


def follow_parent() -> None:
    """End this process when the one that spawned it by multiprocessing ends; elsewhere do nothing.

    To be called while the main module is imported: in a spawned process that happens before anything else.
    """
    if SPAWNED_MAIN in sys.modules:
        end_with_parent()


def end_with_parent() -> None:
    """End this process, which multiprocessing started in whatever way, when the one that started it ends."""

    born_of = os.getppid()

    def wait() -> None:
        # It is known only after the main module has been imported: a minute with vLLM, on a busy machine.
        while (parent := multiprocessing.parent_process()) is None and os.getppid() == born_of:
            time.sleep(0.05)
        if parent:
            parent.join()
        os.kill(os.getpid(), signal.SIGKILL)

    threading.Thread(target=wait, name="follow-parent", daemon=True).start()


def main(argv: list[str]) -> None:
    """`argv` is PARENT_PID COMMAND...; replaces this process."""
    parent = int(argv[0])
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_PDEATHSIG)")
    if os.getppid() != parent:  # it died before the call above
        sys.exit(1)
    os.execv(argv[1], argv[1:])  # noqa: S606 - the command is the pod's own


if __name__ == "__main__":
    main(sys.argv[1:])
