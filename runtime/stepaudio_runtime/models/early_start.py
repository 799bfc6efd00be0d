"""Kernels that start while the one before them ends: CUDA's programmatic dependent launch, from Hopper on.

Such a kernel calls `gdc_launch_dependents`, so that the next one may start, and `gdc_wait` before it reads or
writes anything but weights: it returns when all before it are done. Every kernel that is started so must call
both, whatever it computes.
"""

from __future__ import annotations

from functools import cache

import torch
from torch import Tensor

MANY_ROWS = 4096
"""Of a tensor (B, T, C): from so many on the arithmetic costs more than the starts."""


def early(x: Tensor, rows: int) -> dict[str, bool]:
    """Options for starting a Triton kernel over `rows` rows that has the constant EARLY."""
    possible = rows < MANY_ROWS and _starts_early(x.device)
    return {"EARLY": True, "launch_pdl": True} if possible else {"EARLY": False}


@cache
def _starts_early(device: torch.device) -> bool:
    return device.type == "cuda" and torch.cuda.get_device_capability(device) >= (9, 0)
