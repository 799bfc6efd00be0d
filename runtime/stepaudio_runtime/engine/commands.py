"""`stepaudio data ...`: its arguments, and what each one calls."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path


def add_data(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add `data` to the program's commands."""
    data = commands.add_parser("data", help="make training data by a recipe")
    actions = data.add_subparsers(dest="action", required=True, metavar="ACTION")

    run = actions.add_parser("run", help="make a recipe's data, or go on with it where it was ended")
    run.add_argument("recipe", type=Path, metavar="RECIPE")
    run.add_argument("-o", "--output", type=Path, metavar="DIR", required=True)
    run.add_argument(
        "--workers", type=int, default=os.cpu_count() or 1, help="processes (default: one a core)"
    )
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
    try:
        manifest = run(
            arguments.recipe,
            arguments.output,
            workers=arguments.workers,
            say=lambda line: print(line, file=sys.stderr, flush=True),
        )
    except KeyboardInterrupt:
        print("stopped; the same command goes on", file=sys.stderr)
        sys.exit(130)
    print(manifest)


def _unpack(arguments: argparse.Namespace) -> None:
    from stepaudio_runtime.engine.unpack import unpack

    count = unpack(arguments.folder, arguments.output)
    print(f"{arguments.output}: {count} samples")
