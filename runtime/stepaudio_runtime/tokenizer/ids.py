"""What both tokenizers answer: ids, and by how much each was the nearest."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, eq=False)
class Ids:
    """Ids (n,) int64 of one code book, and margins (n,) float32: second smallest distance minus smallest."""

    ids: NDArray[np.int64]
    margin: NDArray[np.float32]

    def __len__(self) -> int:
        return len(self.ids)


def no_ids() -> Ids:
    """The answer to audio too short for an id."""
    return Ids(np.zeros(0, np.int64), np.zeros(0, np.float32))


def joined(parts: list[Ids]) -> Ids:
    """`parts` one after the other."""
    parts = [no_ids(), *parts]
    return Ids(np.concatenate([part.ids for part in parts]), np.concatenate([part.margin for part in parts]))
