"""Resampling by a windowed sinc, the numbers of `torchaudio.transforms.Resample` with its defaults.

An output sample at position p (in input samples) is the sum of the inputs within +-reach of p, weighted by a
Hann-windowed sinc that cuts off a little below the lower of the two Nyquist frequencies. p repeats its
fraction every `new` outputs (rates divided by their gcd), so the weights form a table of `new` rows, one a
fraction. Memory: the table holds about 12 * max(old, new) values even for rates without a common divisor, and
the wave is worked on in blocks, so neither odd rates nor long waves cost more.

A stream is resampled by a `Resampler`, which holds back the outputs whose inputs have not all come; a whole
wave is a stream of one push, so both give the same samples.
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
    return Resampler(rate, to_rate).push(wave, last=True)


class Resampler:
    """One stream from `rate` to `to_rate` Hz; at its end it has given what `resample` gives at once."""

    def __init__(self, rate: int, to_rate: int) -> None:
        divisor = gcd(rate, to_rate)
        self._old, self._new = rate // divisor, to_rate // divisor
        self._table, self._reach = _weights(self._old, self._new)
        self._held = np.zeros(self._reach, np.float32)  # what is before the stream counts as zeros
        self._first = -self._reach  # position in the stream of the first held sample
        self._given = 0  # outputs so far

    def push(self, wave: NDArray[np.float32], *, last: bool) -> NDArray[np.float32]:
        """The samples that `wave` (N,), after what came before, makes certain; with `last`, the rest."""
        if self._old == self._new:
            return np.asarray(wave, np.float32)
        held = np.concatenate([self._held, np.asarray(wave, np.float32)])
        end = self._first + len(held)
        if last:
            until = -(-end * self._new // self._old)
            held = np.pad(held, (0, self._reach + 1))
        else:
            # Output n needs the inputs up to n * old // new + reach.
            until = max(self._given, -(-(end - self._reach) * self._new // self._old))
        out = self._outputs(held, until)
        begin = max(self._first, until * self._old // self._new - self._reach)
        self._held, self._first, self._given = held[begin - self._first :].copy(), begin, until
        return out

    def _outputs(self, held: NDArray[np.float32], until: int) -> NDArray[np.float32]:
        taps = self._table.shape[1]
        out = np.empty(until - self._given, np.float32)
        if not len(out):
            return out
        windows = sliding_window_view(held, taps)
        step = max(1, _BLOCK_VALUES // taps)
        for start in range(self._given, until, step):
            stop = min(start + step, until)
            centre, phase = np.divmod(np.arange(start, stop, dtype=np.int64) * self._old, self._new)
            # Window k covers the inputs k + first .. k + first + 2 * reach.
            rows = windows[centre - self._reach - self._first]
            out[start - self._given : stop - self._given] = np.einsum("nt,nt->n", rows, self._table[phase])
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
