"""Code books of a few hundred entries, found by k-means."""

from __future__ import annotations

import torch
from torch import Tensor

from stepaudio_runtime.models.nearest import CodeBook


def kmeans(rows: Tensor, entries: int, seed: int, rounds: int = 15) -> Tensor:
    """Centroids (entries, D) of `rows` (n, D), n at least `entries`; the same for the same rows and seed.

    Begins with distant rows (each drawn by its squared distance to the ones before) and moves an empty
    centroid to the row that is worst represented.
    """
    generator = torch.Generator().manual_seed(seed)
    centroids = _distant(rows, entries, generator)
    for _ in range(rounds):
        ids, squared = CodeBook(centroids).nearest(rows)
        counts = torch.bincount(ids, minlength=entries)
        sums = torch.zeros_like(centroids).index_add_(0, ids, rows)
        centroids = sums / counts.clamp_min(1)[:, None]
        empty = (counts == 0).nonzero()[:, 0]
        if len(empty):
            centroids[empty] = rows[squared[:, 0].topk(len(empty)).indices]
    return centroids


def _distant(rows: Tensor, entries: int, generator: torch.Generator) -> Tensor:
    sample = rows[torch.randperm(len(rows), generator=generator)[: max(entries * 20, 2000)]]
    chosen = [sample[0]]
    squared = (sample - chosen[0]).square().sum(dim=1)
    for _ in range(entries - 1):
        weights = squared.double() + 1e-12
        at = int(torch.multinomial(weights / weights.sum(), 1, generator=generator))
        chosen.append(sample[at])
        squared = torch.minimum(squared, (sample - sample[at]).square().sum(dim=1))
    return torch.stack(chosen)
