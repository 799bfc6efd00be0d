"""One thread that computes, so that the event loop never does.

Jobs run one at a time in order of arrival: torch already spreads one job over the cores, and two at once
would only share them. A job whose caller has gone before it began is skipped.
"""

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import Future
from queue import SimpleQueue
from typing import Any, TypeVar

from stepaudio_runtime.errors import Overloaded

T = TypeVar("T")


class Worker:
    """A thread with a bounded queue. `bound` counts the jobs that wait or run.

    `on_done` is called in the thread after each job that did not raise: one that did is no sign of life.
    The thread is a daemon: a job inside torch cannot be interrupted, and must not keep the process alive.
    """

    def __init__(self, name: str, *, bound: int = 64, on_done: Callable[[], None] = lambda: None) -> None:
        self._bound = bound
        self._on_done = on_done
        self._jobs: SimpleQueue[tuple[Future[Any], Callable[[], Any]]] = SimpleQueue()
        self._pending = 0
        threading.Thread(target=self._run, name=name, daemon=True).start()

    async def run(self, job: Callable[[], T]) -> T:
        """Run `job` in the thread; raises Overloaded where too many jobs wait already."""
        if self._pending >= self._bound:
            raise Overloaded(f"{self._pending} jobs wait here, the bound is {self._bound}")
        future: Future[T] = Future()
        self._pending += 1
        self._jobs.put((future, job))
        try:
            return await asyncio.wrap_future(future)
        finally:
            self._pending -= 1

    def _run(self) -> None:
        while True:
            future, job = self._jobs.get()
            if not future.set_running_or_notify_cancel():
                continue
            try:
                result = job()
            except BaseException as error:  # the caller decides what it means
                future.set_exception(error)
            else:
                self._on_done()
                future.set_result(result)
