"""Batches whose elements differ in length: masks, padding, and which elements to compute together."""

from __future__ import annotations

import sys
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F


def ones_before(lengths: Sequence[int], *, like: Tensor) -> Tensor:
    """(B, 1, largest length): one before an element's end, zero after it; dtype and device of `like`."""
    ends = torch.tensor(lengths, device=like.device)[:, None, None]
    return (torch.arange(max(lengths), device=like.device) < ends).to(like.dtype)


def within(x: Tensor, mask: Tensor | None) -> Tensor:
    """`x` (B, C, T) with zeros where `mask` (B, 1, T) has them."""
    return x if mask is None else x * mask


def stacked(parts: Sequence[Tensor]) -> Tensor:
    """Tensors of equal shape but for the last axis -> one (B, ..., largest), zeros at the ends."""
    longest = max(part.shape[-1] for part in parts)
    return torch.stack([F.pad(part, (0, longest - part.shape[-1])) for part in parts])


def groups(lengths: Sequence[int], waste: float, most: int = sys.maxsize) -> list[list[int]]:
    """Indices to compute together, longest first, at most `most`; padding adds at most the share `waste`."""
    order = sorted(range(len(lengths)), key=lambda i: -lengths[i])
    found: list[list[int]] = []
    for i in order:
        if found:
            group = found[-1]
            total = sum(lengths[j] for j in group) + lengths[i]
            if len(group) < most and lengths[group[0]] * (len(group) + 1) <= (1 + waste) * total:
                group.append(i)
                continue
        found.append([i])
    return found
