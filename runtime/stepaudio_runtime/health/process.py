"""The life of a pod's process: serve health at once, load, serve, drain on SIGTERM, leave last words.

    serve health -> start() -> Ready -> ... -> SIGTERM -> leave -> drain -> stop() -> exit 0
                       |                  |
                       +- ModelFileError  +- the service's `failed` future, or a stall -> last words -> exit 1
                       |  -> last words -> exit 78
                       +- nothing read or reported for long -> last words -> exit 1

Last words are one line, `Reason: what and where; cure`, on stderr and in the termination log, from where
the kubelet copies it into the container's status.
"""

import asyncio
import contextlib
import functools
import gc
import logging
import os
import signal
import socket
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import uvicorn
from starlette.types import ASGIApp

from stepaudio_runtime.contract import EXIT_CONFIG, EXIT_UNAVAILABLE
from stepaudio_runtime.errors import ConfigError, JobError, ModelFileError, StepAudioError
from stepaudio_runtime.health.load_watch import LoadStalled, pod_activity, watch_load
from stepaudio_runtime.health.sockets import MAX_MESSAGE_BYTES, BoundedWebSocket
from stepaudio_runtime.health.state import PodState

log = logging.getLogger(__name__)

STALL_LOOK_S = 0.25
LEAVE_LOOK_S = 0.05
STUCK_STOP_S = 1.0
CLOSE_TIMEOUT_S = 5
"""How long connections may take to close once nothing is in flight, or the drain timeout is over."""


class Service(Protocol):
    """What a pod does besides serving its routes."""

    failed: "asyncio.Future[StepAudioError]"
    """Set when the service has failed for good after its start."""

    async def start(self) -> None:
        """Load, and prove by a canary that the model answers; then the pod is Ready."""

    async def stop(self) -> None:
        """End child processes and threads; called once, also after a failed start."""


class EngineStalled(StepAudioError):  # noqa: N818 - named as the condition's reason
    """Requests are in flight and the engine takes no step: the pod ends at once, and is started anew."""

    reason = "EngineStalled"


@dataclass(frozen=True)
class Listen:
    """Where a pod serves, for how many seconds it drains, where its last words go, how long (s) its load
    may stand still, and how long (s) it serves on after SIGTERM for those who hold connections to it.
    """

    host: str
    port: int
    drain_timeout_s: float
    termination_log: Path
    load_stall_timeout_s: float = 600.0
    leave_timeout_s: float = 0.0


class PodServer(uvicorn.Server):
    """Uvicorn without its own signal handling: SIGTERM means drain here, and drain comes first."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Captures none."""
        yield


def leave_last_words(line: str, termination_log: Path) -> None:
    """Print `line` and write it to the termination log, if there is one to write to."""
    print(line, file=sys.stderr, flush=True)
    # Outside a pod there is no such file, and a regular user may not create one under /dev.
    with contextlib.suppress(OSError):
        termination_log.write_text(line + "\n", encoding="utf-8")


def exit_status(error: Exception) -> int:
    """78 where a restart cannot help, 75 where a later one may, else 1."""
    if isinstance(error, JobError):
        return EXIT_CONFIG if error.for_a_person else EXIT_UNAVAILABLE
    return EXIT_CONFIG if isinstance(error, ModelFileError | ConfigError) else 1


def last_words(error: Exception) -> str:
    """One line for `error`, beginning with its CamelCase reason."""
    text = " ".join(str(error).split()) or type(error).__name__
    reason = error.reason if isinstance(error, StepAudioError) else "InternalError"
    return text if text.startswith(f"{reason}:") else f"{reason}: {text}"


async def run_pod(app: ASGIApp, state: PodState, service: Service, listen: Listen) -> int:
    """Run a pod from its start to its end; returns the exit status."""
    loop = asyncio.get_running_loop()
    terminate = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, terminate.set)
    try:
        family = socket.AF_INET6 if ":" in listen.host else socket.AF_INET
        listener = socket.create_server((listen.host, listen.port), family=family, backlog=1024)
    except OSError as fault:
        raise ConfigError(
            what=f"{listen.host}:{listen.port} cannot be served: {fault}", cure="free it"
        ) from fault
    server = PodServer(
        uvicorn.Config(
            app,
            log_config=None,
            access_log=False,
            lifespan="off",
            timeout_graceful_shutdown=CLOSE_TIMEOUT_S,
            timeout_keep_alive=75,
            ws=BoundedWebSocket,
            ws_max_size=MAX_MESSAGE_BYTES,
        )
    )
    serving = asyncio.create_task(server.serve([listener]), name="http")
    working = asyncio.create_task(_work(state, service, listen.load_stall_timeout_s), name="service")
    terminated = asyncio.create_task(terminate.wait(), name="terminate")
    stuck = False
    try:
        log.info("%s listens on %s:%d", state.component, *listener.getsockname()[:2])
        await asyncio.wait({serving, working, terminated}, return_when=asyncio.FIRST_COMPLETED)
        if terminated.done() and not working.done():
            await _leave(state, server, listen.leave_timeout_s, working)
            await _drain(state, listen.drain_timeout_s, working)
        error = _outcome(working)
        if error is not None:
            state.fail(error.reason if isinstance(error, StepAudioError) else "InternalError", str(error))
            if not isinstance(error, StepAudioError):
                log.error("the service failed", exc_info=error)
            leave_last_words(last_words(error), listen.termination_log)
            stuck = isinstance(error, EngineStalled | LoadStalled)
    finally:
        for task in (working, terminated):
            task.cancel()
        server.should_exit, server.force_exit = True, stuck
        await asyncio.gather(serving, working, terminated, return_exceptions=True)
        with contextlib.suppress(TimeoutError):
            # What hangs does not hear that it should end; it dies with this process.
            await asyncio.wait_for(service.stop(), STUCK_STOP_S if stuck else None)
        listener.close()
    return 0 if error is None else exit_status(error)


async def _work(state: PodState, service: Service, load_stall_timeout_s: float) -> StepAudioError:
    """Start the service, then wait for it to fail or to hang; never returns otherwise."""
    activity = functools.partial(pod_activity, os.getpid())
    starting = asyncio.create_task(service.start(), name="start")
    watching = asyncio.create_task(watch_load(state, load_stall_timeout_s, activity), name="load-watch")
    try:
        await asyncio.wait({starting, watching}, return_when=asyncio.FIRST_COMPLETED)
        if not starting.done():
            return watching.result()
        starting.result()
        gc.collect()
        gc.freeze()  # what was loaded stays: from now on garbage is looked for among the rest, and often
    finally:
        starting.cancel()
        watching.cancel()
        await asyncio.gather(starting, watching, return_exceptions=True)
    state.become_ready()
    log.info("%s is ready", state.component)
    hanging = asyncio.create_task(_hang(state), name="stall-watch")
    try:
        ends: set[asyncio.Future[Any]] = {service.failed, hanging}
        await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
        return service.failed.result() if service.failed.done() else hanging.result()
    finally:
        hanging.cancel()


async def _hang(state: PodState) -> EngineStalled:
    """Returns when the pod is stalled."""
    while (stalled := state.stalled()) is None:  # noqa: ASYNC110 - time alone changes it
        await asyncio.sleep(STALL_LOOK_S)
    return EngineStalled(f"{stalled['message']}; the pod is started anew")


async def _leave(
    state: PodState, server: uvicorn.Server, timeout_s: float, working: "asyncio.Task[StepAudioError]"
) -> None:
    """Serve on until nobody is connected, for at most `timeout_s`, unless the service fails meanwhile.

    While its connection stands a client does not hear that the pod leaves: refused, its request were lost.
    """
    state.leave()
    loop = asyncio.get_running_loop()
    end = loop.time() + timeout_s
    while server.server_state.connections and loop.time() < end and not working.done():  # noqa: ASYNC110
        await asyncio.sleep(LEAVE_LOOK_S)


async def _drain(state: PodState, timeout_s: float, working: "asyncio.Task[StepAudioError]") -> None:
    """Stop admission and wait for what is in flight, unless the service fails meanwhile."""
    state.drain()
    log.info("draining %d requests for at most %g s", state.all_in_flight, timeout_s)
    idle = asyncio.create_task(state.wait_idle(timeout_s))
    await asyncio.wait(
        {idle, working} if state.all_in_flight else {idle}, return_when=asyncio.FIRST_COMPLETED
    )
    if not (idle.done() and idle.result()):
        log.warning("%d requests were still in flight at the end of the drain", state.all_in_flight)
    idle.cancel()


def _outcome(working: "asyncio.Task[StepAudioError]") -> Exception | None:
    """The error by which the service ended, or None while it runs."""
    if not working.done() or working.cancelled():
        return None
    error = working.exception()
    if error is None:
        return working.result()
    if isinstance(error, Exception):
        return error
    raise error


def exit_process(status: int) -> None:
    """End the process now.

    Threads inside torch or a model file's reader cannot be interrupted, and the interpreter's own exit
    would wait for them.
    """
    logging.shutdown()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)
