"""The repetition rule of the TTS model's sampling, in NumPy: the rule itself, apart from any engine."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

WINDOW = 10
"""Last ids that the rule looks at; with fewer it does nothing."""
RATIO = 0.1
"""The last id may make up this part of the window: with ten ids, it may stand there once."""


def repeats(ids: NDArray[np.int64]) -> NDArray[np.bool_]:
    """For each row of `ids` (..., n), whether its last id stands too often among its last ten."""
    if ids.shape[-1] < WINDOW:
        return np.zeros(ids.shape[:-1], np.bool_)
    window = ids[..., -WINDOW:]
    # Counts are compared, not ratios: 1 / 10 > 0.1 must not hang on rounding.
    return np.asarray((window == window[..., -1:]).sum(axis=-1) > round(RATIO * WINDOW))


def forbid_repetition(ids: NDArray[np.int64], scores: NDArray[np.float32]) -> NDArray[np.float32]:
    """`scores` (B, vocabulary) with the last id's score at -inf where `ids` (B, n) repeat it; a copy."""
    out = scores.copy()
    if (rows := np.flatnonzero(repeats(ids))).size:
        out[rows, ids[rows, -1]] = -np.inf
    return out
