"""Random numbers by absolute position: any cut of an utterance into pieces draws the same ones.

A position belongs to a block of fixed length, and every block has a generator of its own, seeded with the
utterance's seed, what the numbers are for, and the block's index (which may be negative: frames of a prompt
stand before frame 0). Numbers differ between kinds of device, as torch's generators do.
"""

from __future__ import annotations

import hashlib
import math

import torch
from torch import Tensor


def normal_at(
    seed: int, purpose: str, start: int, stop: int, *, channels: int, block: int, device: torch.device
) -> Tensor:
    """Standard normal (channels, stop - start), float32, of the positions start..stop-1.

    `block` is the number of positions that are drawn at once; another one gives other numbers.
    """
    size, first = block, start // block
    blocks = [
        torch.randn(channels, size, generator=_generator(seed, f"{purpose}:{index}", device), device=device)
        for index in range(first, -(-stop // size))
    ]
    if not blocks:
        return torch.empty(channels, 0, device=device)
    return torch.cat(blocks, dim=1)[:, start - first * size : stop - first * size]


def phases(seed: int, harmonics: int, *, device: torch.device) -> Tensor:
    """Start phases (harmonics, 1) in radians, uniform in (-π, π) but zero for the first harmonic."""
    generator = _generator(seed, "phase", device)
    drawn = (torch.rand(harmonics, 1, generator=generator, device=device) * 2 - 1) * math.pi
    drawn[0] = 0
    return drawn


def _generator(seed: int, what: str, device: torch.device) -> torch.Generator:
    digest = hashlib.blake2b(f"{seed}:{what}".encode(), digest_size=8).digest()
    return torch.Generator(device).manual_seed(int.from_bytes(digest, "little") >> 1)
