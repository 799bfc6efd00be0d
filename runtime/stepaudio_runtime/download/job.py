"""`stepaudio models fetch`: the download as a process that tells how far it is, and whose end says why.

With a port it serves the health routes of every pod, so that the operator reads bytes from `/status`.
SIGTERM ends it with what has come kept; the next run goes on.
"""

from __future__ import annotations

import asyncio
import logging
import signal
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import uvicorn
from starlette.applications import Starlette

from stepaudio_runtime.contract import EXIT_UNAVAILABLE
from stepaudio_runtime.download.copies import mark_whole
from stepaudio_runtime.download.fetch import Fetcher, Tuning
from stepaudio_runtime.download.retries import waiting_reason
from stepaudio_runtime.download.settings import source_from
from stepaudio_runtime.errors import DownloadError, StepAudioError
from stepaudio_runtime.health.metrics import PodMetrics
from stepaudio_runtime.health.process import PodServer, exit_status, last_words, leave_last_words
from stepaudio_runtime.health.routes import health_routes
from stepaudio_runtime.health.state import PodState
from stepaudio_runtime.volume import of_volume

log = logging.getLogger(__name__)
_TELL_EVERY_S = 1.0
_LOG_EVERY_S = 10.0


@dataclass(frozen=True)
class FetchJob:
    """What to fetch, where to, and where to tell about it."""

    source: str
    """JSON, as `settings` says."""
    folder: Path
    tuning: Tuning
    port: int | None
    """Serves `/status` and the rest there; None serves nothing."""
    host: str
    termination_log: Path


def fetch_models(job: FetchJob, env: Mapping[str, str]) -> int:
    """Runs the job; returns the exit status."""
    try:
        return asyncio.run(_run(job, env))
    except StepAudioError as error:
        return _ended(error, job)
    except OSError as error:
        larger = "make the volume larger (models.cache.size)"
        return _ended(of_volume(error, job.folder, DownloadError, larger), job)


def _ended(error: Exception, job: FetchJob) -> int:
    leave_last_words(last_words(error), job.termination_log)
    return exit_status(error)


async def _run(job: FetchJob, env: Mapping[str, str]) -> int:
    source = source_from(job.source, env)
    fetcher = Fetcher(source, job.folder, job.tuning)
    state = PodState("models")
    terminated = threading.Event()

    def terminate() -> None:
        terminated.set()
        fetcher.stop()

    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, terminate)
    telling = asyncio.create_task(_tell(fetcher, state, source.name))
    serving, server = _serve(job, state)
    try:
        files = await asyncio.to_thread(fetcher.run)
    finally:
        telling.cancel()
        if server is not None:
            server.should_exit = True
            await asyncio.gather(serving, return_exceptions=True)
        source.close()
    if terminated.is_set():
        return EXIT_UNAVAILABLE
    mark_whole(job.folder)
    log.info("%d files are there, %s received", len(files), f"{fetcher.progress.received:,} bytes")
    return 0


async def _tell(fetcher: Fetcher, state: PodState, name: str) -> None:
    """Puts the progress into the state every second, and into the log now and then."""
    said = -_LOG_EVERY_S
    while True:
        progress = fetcher.progress
        state.load_progress(progress.present, progress.total, progress.eta_s())
        if (fault := fetcher.trouble()) is not None:
            state.load(f"{fault.what}; it is tried again", reason=waiting_reason(fault))
        else:
            state.load(f"{name}: {progress.line()}", reason="Downloading")
        now = asyncio.get_running_loop().time()
        if progress.total and now - said >= _LOG_EVERY_S:
            log.info("%s", progress.line())
            said = now
        await asyncio.sleep(_TELL_EVERY_S)


def _serve(job: FetchJob, state: PodState) -> tuple[asyncio.Task[None], uvicorn.Server | None]:
    async def nothing() -> None:
        return None

    if job.port is None:
        return asyncio.create_task(nothing()), None
    app = Starlette(routes=list(health_routes(state, PodMetrics(state))))
    config = uvicorn.Config(
        app, host=job.host, port=job.port, log_config=None, access_log=False, lifespan="off"
    )
    server = PodServer(config)
    return asyncio.create_task(server.serve()), server
