"""Vector quantisation: the nearest entry of a code book for every row."""

from __future__ import annotations

import torch
from torch import Tensor

_BLOCK_ROWS = 1024


class CodeBook:
    """The entries `codes` (K, D), in float64 once and for all."""

    def __init__(self, codes: Tensor) -> None:
        self._table = codes.double()
        self._norms = self._table.square().sum(dim=1)

    def __len__(self) -> int:
        return len(self._table)

    @property
    def device(self) -> torch.device:
        """Where the entries are."""
        return self._table.device

    def nearest(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        """Ids (n,) int64 of the entries nearest to `rows` (n, D), and squared distances (n, 2).

        The distances are the smallest and the second smallest (infinite in a code book of one). Computed in
        float64 from squares and products, so that near ties fall as exact arithmetic has them; on ties the
        first entry wins.
        """
        ids = [torch.empty(0, dtype=torch.int64, device=rows.device)]
        distances = [torch.empty(0, 2, dtype=torch.float64, device=rows.device)]
        for block in rows.double().split(_BLOCK_ROWS):
            norms = block.square().sum(dim=1, keepdim=True)
            squared = (norms - 2 * block @ self._table.T + self._norms).clamp_min(0)
            ids.append(squared.argmin(dim=1))
            two = squared.topk(min(2, len(self)), dim=1, largest=False).values
            distances.append(torch.nn.functional.pad(two, (0, 2 - two.shape[1]), value=torch.inf))
        return torch.cat(ids), torch.cat(distances)
