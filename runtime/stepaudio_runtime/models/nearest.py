"""Vector quantisation: the nearest entry of a code book for every row."""

from __future__ import annotations

import torch
from torch import Tensor

_BLOCK_ROWS = 1024


def nearest(rows: Tensor, codes: Tensor) -> tuple[Tensor, Tensor]:
    """Ids (n,) int64 of the `codes` (K, D) nearest to `rows` (n, D), and squared distances (n, 2).

    The distances are the smallest and the second smallest (infinite in a code book of one). Computed in
    float64 from squares and products, so that near ties fall as exact arithmetic has them; on ties the first
    entry wins.
    """
    table = codes.double()
    norms = table.square().sum(dim=1)
    ids = [torch.empty(0, dtype=torch.int64, device=rows.device)]
    distances = [torch.empty(0, 2, dtype=torch.float64, device=rows.device)]
    for block in rows.double().split(_BLOCK_ROWS):
        squared = (block.square().sum(dim=1, keepdim=True) - 2 * block @ table.T + norms).clamp_min(0)
        ids.append(squared.argmin(dim=1))
        two = squared.topk(min(2, len(table)), dim=1, largest=False).values
        distances.append(torch.nn.functional.pad(two, (0, 2 - two.shape[1]), value=torch.inf))
    return torch.cat(ids), torch.cat(distances)
