"""`stepaudio data run --port`: a run as the pod of a Job, which tells how far it is and whose end says why.

`/status` counts the samples. SIGTERM ends the process at once: the engine loses nothing by a kill, and the
pod that follows goes on. The last words of a run that is whole are its figures, as JSON.
"""

from __future__ import annotations

import json
import logging
import signal
import socket
import tempfile
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route as HttpRoute

from stepaudio_runtime.bodies import DataFigures, DataStatus, SampleCounts
from stepaudio_runtime.contract import EXIT_UNAVAILABLE, Route
from stepaudio_runtime.engine.progress import Progress
from stepaudio_runtime.engine.run import run
from stepaudio_runtime.engine.shards import read_manifest
from stepaudio_runtime.errors import ConfigError, DataError, StepAudioError, Unavailable
from stepaudio_runtime.health.metrics import PodMetrics
from stepaudio_runtime.health.process import (
    PodServer,
    exit_process,
    exit_status,
    last_words,
    leave_last_words,
)
from stepaudio_runtime.health.routes import health_routes
from stepaudio_runtime.health.state import PodState
from stepaudio_runtime.volume import of_volume

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class DataJob:
    """What to make, where to, and where to tell about it."""

    recipe: Path | str
    """A file, or the recipe itself."""
    out: Path
    workers: int
    host: str
    port: int
    termination_log: Path


def run_job(job: DataJob, clock: Callable[[], float]) -> int:
    """Makes the data; returns the exit status."""
    told = _Told()
    signal.signal(signal.SIGTERM, lambda *_: exit_process(EXIT_UNAVAILABLE))
    try:
        _serve(job, told)
        manifest = run(
            _file(job.recipe),
            job.out,
            workers=job.workers,
            say=lambda progress: told.take(progress, clock()),
            clock=clock,
        )
    except OSError as error:
        return _ended(of_volume(error, job.out, DataError, "make the volume larger"), job)
    except StepAudioError as error:
        return _ended(error, job)
    except Exception as error:
        log.exception("a mistake of the engine")
        return _ended(error, job)
    whole = read_manifest(manifest.parent)
    figures = DataFigures(
        samples=whole["samples"], refused=sum(whole["refused"].values()), seconds=round(whole["seconds"])
    )
    leave_last_words(json.dumps(figures), job.termination_log)
    return 0


class _Told:
    """The newest progress, for the server's thread."""

    def __init__(self) -> None:
        self.counts = SampleCounts(made=0, refused=0, total=0)

    def take(self, progress: Progress, now: float) -> None:
        log.info("%s", progress.line(now))
        self.counts = SampleCounts(made=progress.done, refused=progress.refused, total=progress.total)


def _serve(job: DataJob, told: _Told) -> None:
    """Serves the health routes of every pod beside the run, until the process ends."""
    state = PodState("data")
    state.load("making training data", reason="MakingData")

    async def status(_request: Request) -> JSONResponse:
        return JSONResponse(DataStatus(**state.status(), samples=told.counts))

    routes = [HttpRoute(Route.STATUS, status), *health_routes(state, PodMetrics(state))]
    config = uvicorn.Config(Starlette(routes=routes), log_config=None, access_log=False, lifespan="off")
    try:
        family = socket.AF_INET6 if ":" in job.host else socket.AF_INET
        listener = socket.create_server((job.host, job.port), family=family)
    except OSError as fault:
        what = f"{job.host}:{job.port} cannot be served: {fault}"
        raise ConfigError(what=what, cure="free it") from fault
    server = PodServer(config)
    threading.Thread(target=server.run, args=([listener],), name="http", daemon=True).start()


def _file(recipe: Path | str) -> Path:
    if isinstance(recipe, Path):
        return recipe
    # The same place in every pod: it stands in last words, which must not change with each try.
    path = Path(tempfile.gettempdir()) / "recipe.yaml"
    path.write_text(recipe, "utf-8")
    return path


def _ended(error: Exception, job: DataJob) -> int:
    leave_last_words(last_words(error), job.termination_log)
    return EXIT_UNAVAILABLE if isinstance(error, Unavailable) else exit_status(error)
