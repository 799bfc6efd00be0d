"""Resampling by a windowed sinc, the numbers of `torchaudio.transforms.Resample` with its defaults.

An output sample at position p (in input samples) is the sum of the inputs within +-reach of p, weighted by a
Hann-windowed sinc that cuts off a little below the lower of the two Nyquist frequencies. p repeats its
fraction every `new` outputs (rates divided by their gcd), so the weights form a table of `new` rows, one a
fraction. Memory: the table holds about 12 * max(old, new) values even for rates without a common divisor, and
the wave is worked on in blocks, so neither odd rates nor long waves cost more.
"""

from __future__ import annotations

from functools import lru_cache
from math import ceil, gcd

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from stepaudio_runtime.errors import AudioError

ZERO_CROSSINGS = 6
"""Of the sinc on either side of its centre."""
ROLLOFF = 0.99
"""Cut-off as a part of the lower Nyquist frequency."""
_BLOCK_VALUES = 1 << 22
"""Products held at a time: 16 MiB of float32, whatever the length of the wave."""


def resampled_length(samples: int, rate: int, to_rate: int) -> int:
    """Number of samples that `resample` makes of `samples`: the ratio, rounded up."""
    return -(-samples * to_rate // rate)


def resample(wave: NDArray[np.float32], rate: int, to_rate: int) -> NDArray[np.float32]:
    """`wave` (N,) at `rate` Hz as `(resampled_length(N),)` at `to_rate` Hz.

    Raises AudioError for a rate that is not positive.
    """
    if rate <= 0 or to_rate <= 0:
        raise AudioError(f"cannot resample from {rate} to {to_rate} Hz", code="invalid_rate")
    wave = np.ascontiguousarray(wave, np.float32)
    if rate == to_rate:
        return wave
    divisor = gcd(rate, to_rate)
    old, new = rate // divisor, to_rate // divisor
    table, reach = _weights(old, new)
    taps = table.shape[1]
    count = resampled_length(len(wave), rate, to_rate)
    windows = sliding_window_view(np.pad(wave, (reach, reach + 1)), taps)
    out = np.empty(count, np.float32)
    step = max(1, _BLOCK_VALUES // taps)
    for start in range(0, count, step):
        centre, phase = np.divmod(np.arange(start, min(start + step, count), dtype=np.int64) * old, new)
        # Window k of the padded wave covers inputs k - reach .. k + reach.
        out[start : start + step] = np.einsum("nt,nt->n", windows[centre], table[phase])
    return out


@lru_cache(maxsize=16)
def _weights(old: int, new: int) -> tuple[NDArray[np.float32], int]:
    """Table (new, 2 * reach + 1) and reach: row r weighs the inputs around a position of fraction r / new."""
    cutoff = min(old, new) * ROLLOFF
    reach = ceil(ZERO_CROSSINGS * old / cutoff)
    offsets = np.arange(-reach, reach + 1)[None, :] - np.arange(new)[:, None] / new
    t = np.clip(offsets * (cutoff / old), -ZERO_CROSSINGS, ZERO_CROSSINGS)
    window = np.cos(t * (np.pi / ZERO_CROSSINGS / 2)) ** 2
    return (np.sinc(t) * window * (cutoff / old)).astype(np.float32), reach
