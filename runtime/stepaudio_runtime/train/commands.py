"""`stepaudio finetune ...`: its arguments, and what it calls."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

from stepaudio_runtime.arguments import positive


def add_finetune(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add `finetune` to the program's commands."""
    finetune = commands.add_parser("finetune", help="a new voice from a folder of recordings")
    finetune.add_argument(
        "recordings", type=Path, metavar="FOLDER", help="NAME.wav with NAME.txt beside, or a manifest.jsonl"
    )
    finetune.add_argument("--voice", metavar="NAME", required=True, help="what it is called")
    finetune.add_argument(
        "--models", type=Path, metavar="DIR", required=True, help="model folder to begin with"
    )
    finetune.add_argument(
        "-o", "--output", type=Path, metavar="DIR", required=True, help="model folder with the voice in it"
    )
    finetune.add_argument(
        "--full", action="store_true", help="change all weights (default: low-rank changes of the layers)"
    )
    finetune.add_argument("--steps", type=positive, help="default: 200")
    finetune.add_argument(
        "--rate", type=float, help="highest learning rate (default: 0.002, with --full 0.0003)"
    )
    finetune.add_argument(
        "--bfloat16", action="store_true", help="products in bfloat16, weights and sums in float32"
    )
    finetune.add_argument(
        "--accumulate",
        type=positive,
        default=1,
        metavar="N",
        help="batches of 8 utterances a step (default: 1)",
    )
    finetune.add_argument("--device", choices=("cpu", "cuda"), default="cpu", help="default: cpu")
    finetune.add_argument("--threads", type=positive, default=1, help="of the computation (default: 1)")
    finetune.set_defaults(run=_finetune)


def _finetune(arguments: argparse.Namespace) -> None:
    import torch

    from stepaudio_runtime.train.processes import join
    from stepaudio_runtime.train.voice import VoiceJob, add_voice

    torch.set_num_threads(arguments.threads)
    fabric = join(arguments.device, os.environ)
    loss = add_voice(
        VoiceJob(
            recordings=arguments.recordings,
            name=arguments.voice,
            models=arguments.models,
            out=arguments.output,
            full=arguments.full,
            steps=arguments.steps,
            rate=arguments.rate,
            bfloat16=arguments.bfloat16,
            accumulate=arguments.accumulate,
            log=sys.stdout,
            fabric=fabric,
        )
    )
    if fabric.is_global_zero:
        print(f"{arguments.output} speaks as {arguments.voice} too; the last loss was {loss:.3f}")
