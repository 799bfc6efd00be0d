"""`stepaudio data ...`: its arguments, and what each one calls."""

from __future__ import annotations

import argparse
import os
import sys
import time
from pathlib import Path

from stepaudio_runtime.contract import Env


def add_data(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add `data` to the program's commands."""
    data = commands.add_parser("data", help="make training data by a recipe")
    actions = data.add_subparsers(dest="action", required=True, metavar="ACTION")

    run = actions.add_parser("run", help="make a recipe's data, or go on with it where it was ended")
    run.add_argument(
        "recipe",
        type=Path,
        nargs="?",
        metavar="RECIPE",
        help=f"a file; with --port it may be left out: the text in ${Env.RECIPE} is taken",
    )
    run.add_argument("-o", "--output", type=Path, metavar="DIR", required=True)
    run.add_argument(
        "--workers", type=int, default=os.cpu_count() or 1, help="processes (default: one a core)"
    )
    run.add_argument(
        "--ray",
        metavar="ADDRESS",
        help='make samples on a Ray cluster ("auto": the one of this node), with --workers actors',
    )
    run.add_argument("--port", type=int, help="serve /status there, as the pod of a Job (default: no)")
    run.add_argument("--host", default="0.0.0.0", help="address to serve at (default: all)")  # noqa: S104
    run.set_defaults(run=_run)

    unpack = actions.add_parser("unpack", help="finished data as waves and a manifest.jsonl")
    unpack.add_argument("folder", type=Path, metavar="DIR")
    unpack.add_argument("-o", "--output", type=Path, metavar="FOLDER", required=True)
    unpack.set_defaults(run=_unpack)


def _run(arguments: argparse.Namespace) -> None:
    from stepaudio_runtime.engine.run import run
    from stepaudio_runtime.errors import InputError

    if not 1 <= arguments.workers <= 1024:
        raise InputError(f"--workers {arguments.workers} is not from 1 to 1024", param="workers")
    if arguments.port is not None:
        _run_as_pod(arguments)
    if arguments.recipe is None:
        raise InputError("a recipe is needed: give its file", param="recipe")
    elsewhere = None
    if arguments.ray is not None:
        from stepaudio_runtime.engine.on_ray import OnRay

        elsewhere = OnRay(arguments.ray, arguments.workers)
    try:
        manifest = run(
            arguments.recipe,
            arguments.output,
            workers=arguments.workers,
            say=lambda progress: print(progress.line(time.monotonic()), file=sys.stderr, flush=True),
            elsewhere=elsewhere,
        )
    except KeyboardInterrupt:
        print("stopped; the same command goes on", file=sys.stderr)
        sys.exit(130)
    print(manifest)


def _run_as_pod(arguments: argparse.Namespace) -> None:
    import logging

    from stepaudio_runtime.engine.job import DataJob, run_job
    from stepaudio_runtime.health.process import exit_process
    from stepaudio_runtime.settings import ENV_TERMINATION_LOG, PodSettings

    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    job = DataJob(
        recipe=arguments.recipe or os.environ.get(Env.RECIPE, ""),
        out=arguments.output,
        workers=arguments.workers,
        host=arguments.host,
        port=arguments.port,
        termination_log=Path(os.environ.get(ENV_TERMINATION_LOG) or PodSettings.termination_log),
    )
    exit_process(run_job(job, time.monotonic))


def _unpack(arguments: argparse.Namespace) -> None:
    from stepaudio_runtime.engine.unpack import unpack

    count = unpack(arguments.folder, arguments.output)
    print(f"{arguments.output}: {count} samples")
