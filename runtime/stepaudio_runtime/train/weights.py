"""Writes the weights that a stage ends with, where `checkpoints.nano_trained` reads them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor

Words = Mapping[str, str]
"""What is written beside the tensors: steps, seed, last losses."""


def save_weights(
    path: Path, tensors: Mapping[str, Tensor], words: Words, *, whole: tuple[str, ...] = ()
) -> None:
    """Write `tensors` at half precision, but those named in `whole`; the file appears whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    halves = {
        name: (value.half() if value.is_floating_point() and name not in whole else value).contiguous()
        for name, value in sorted(tensors.items())
    }
    for name, value in halves.items():
        if value.is_floating_point() and not torch.isfinite(value).all():
            raise FloatingPointError(f"{name} does not fit half precision")
    beside = path.with_name(path.name + ".part")
    save_file(halves, beside, metadata={"format": "pt", **words})
    beside.replace(path)


def words_of(steps: int, seed: int, losses: Mapping[str, float], **more: str) -> dict[str, str]:
    """The words of a stage's file."""
    rounded = {name: round(value, 4) for name, value in losses.items()}
    return {"steps": str(steps), "seed": str(seed), "losses": json.dumps(rounded), **more}
