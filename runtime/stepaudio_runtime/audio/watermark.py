"""An inaudible mark in speech, and its detector: noise that is found only by who knows it.

The mark is a fixed noise with a period of 1 s, between 500 and 6,000 Hz, `LEVEL` times as loud as the speech
in every band at every moment: so the speech masks it, and in silence there is none. The detector flattens the
spectrum of what it hears, adds up all periods, and compares with the noise at every shift: where it is, one
shift stands out of the others. So the mark is found in any piece, at any sampling rate and loudness, and
behind encoders that keep the wave's form (MP3, Opus and AAC as the gateway makes them); not behind a change
of tempo or pitch. It says "made in a cloned voice" and no more. The noise is public: who wants to remove it,
can.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from stepaudio_runtime.audio.resample import resample
from stepaudio_runtime.audio.streams import EMPTY

LEVEL = 0.07
"""Amplitude of the mark to that of the speech around it, in every band."""
LOWEST, HIGHEST = 500, 6_000
"""The band of the mark in Hz."""
PERIOD_S = 1
_SEED = 0x57E9A0D1
_HOP_S = 0.012  # about, of the frames in which speech is weighed; each is two hops long
_SMOOTH_HZ = 120.0  # to either side, over which the speech's level is taken


@lru_cache(maxsize=8)
def _noise(rate: int) -> NDArray[np.float32]:
    """One period (rate,) of the mark's noise at `rate` Hz, of power 1; the same sound at every rate."""
    phases = np.random.Generator(np.random.PCG64(_SEED)).uniform(0, 2 * np.pi, HIGHEST - LOWEST)
    spectrum = np.zeros(rate // 2 + 1, np.complex128)
    top = min(HIGHEST, rate // 2)
    spectrum[LOWEST:top] = np.exp(1j * phases[: top - LOWEST])
    noise = np.fft.irfft(spectrum, rate)
    return (noise / np.sqrt(np.mean(noise**2))).astype(np.float32)


class Marker:
    """A stage that marks a stream at `rate` Hz, the same however it is cut; it holds back up to 24 ms."""

    def __init__(self, rate: int, level: float = LEVEL) -> None:
        self._noise, self._window, self._width = _frames_of_noise(rate)
        self._level = level
        self._hop = hop = len(self._window) // 2
        self._held = np.zeros(hop, np.float32)  # the first frame begins a hop before the wave
        self._tail = np.zeros(hop)  # of the last frame's mark
        self._frames = 0  # so far
        self._taken = self._given = 0  # samples

    def push(self, wave: NDArray[np.float32]) -> NDArray[np.float32]:
        """What can be marked for good."""
        self._taken += len(wave)
        self._held = np.concatenate([self._held, wave])
        return self._advance()

    def finish(self) -> NDArray[np.float32]:
        """The rest; all in all as many samples as came."""
        rest = self._taken - self._given
        self._held = np.pad(self._held, (0, 2 * self._hop))
        return self._advance()[:rest]

    def _advance(self) -> NDArray[np.float32]:
        """Work off the whole frames among the held samples."""
        hop = self._hop
        count = len(self._held) // hop - 1
        if count < 1:
            return EMPTY
        speech = _overlapping(self._held, hop, count)
        noise = self._noise[(self._frames + np.arange(count)) % len(self._noise)]
        power = np.abs(np.fft.rfft(self._window * speech)) ** 2
        shaped = noise * np.sqrt(_smooth(power, self._width)) * self._level
        marks = np.fft.irfft(shaped, 2 * hop) * self._window
        before = np.concatenate([self._tail[None], marks[:-1, hop:]])
        out = (speech[:, :hop] + before + marks[:, :hop]).astype(np.float32).reshape(-1)
        if not self._frames:
            out = out[hop:]  # what lies before the wave
        self._held = self._held[count * hop :]
        self._tail = marks[-1, hop:]
        self._frames += count
        self._given += len(out)
        return out


@lru_cache(maxsize=8)
def _frames_of_noise(rate: int) -> tuple[NDArray[np.complex128], NDArray[np.float64], int]:
    """Spectra (frames, bins) of one period of the noise, as loud in every bin as speech of power 1 is there;
    the frames' window, two hops long; and the bins to either side over which speech is smoothed.
    """
    hop = min((n for n in range(1, rate + 1) if rate % n == 0), key=lambda n: abs(n - rate * _HOP_S))
    window = _window(hop)
    noise = _noise(rate)
    period = np.concatenate([noise[-hop:], noise])  # the first frame begins a hop early
    spectra = np.fft.rfft(window * _overlapping(period, hop, rate // hop))
    bins = np.fft.rfftfreq(2 * hop, 1 / rate)
    band = (bins >= LOWEST) & (bins <= HIGHEST)
    loudness = np.sqrt(np.mean(np.abs(spectra[:, band]) ** 2))
    return np.where(band, spectra / loudness, 0), window, _smoothing(hop, rate)


def _window(hop: int) -> NDArray[np.float64]:
    """Root of a Hann window of two hops: applied twice, overlapping frames add up to the whole."""
    window: NDArray[np.float64] = np.sqrt(np.hanning(2 * hop + 1)[:-1])
    return window


def _smoothing(hop: int, rate: int) -> int:
    return max(1, round(_SMOOTH_HZ * 2 * hop / rate))


def _overlapping(wave: NDArray[Any], hop: int, count: int) -> NDArray[Any]:
    """The first `count` frames (count, 2 * hop) of `wave`, one every hop."""
    frames: NDArray[Any] = sliding_window_view(wave, 2 * hop)[: count * hop : hop]
    return frames


def _smooth(power: NDArray[np.float64], width: int) -> NDArray[np.float64]:
    """The mean over `width` bins to either side, along the last axis."""
    padded = np.pad(power, [(0, 0)] * (power.ndim - 1) + [(width + 1, width)], mode="edge")
    total = np.cumsum(padded, axis=-1)
    return np.maximum(total[..., 2 * width + 1 :] - total[..., : -2 * width - 1], 0) / (2 * width + 1)


# --- the detector -----------------------------------------------------------------------------------

RATE = 16_000
"""Hz at which the detector works."""
THRESHOLD = 6.0
"""Score from which on the mark counts as found: by chance, one recording in about 100,000 (16,000 shifts)."""
_FAR_BELOW = 1e-4  # of the mean power: 40 dB


_SPAN_S = 8.0
"""Of a long recording, looked at one by one: a mark in one of them is found, whatever surrounds it."""


@dataclass(frozen=True)
class Finding:
    """What the detector heard: `score` is how far the best shift stands out, in standard deviations."""

    score: float
    seconds: float

    @property
    def found(self) -> bool:
        """Whether the mark is there; 2 s of speech are enough to tell."""
        return self.score >= THRESHOLD


def detect(wave: NDArray[np.float32], rate: int) -> Finding:
    """Look for the mark in `wave` (N,) at `rate` Hz, in pieces of 8 s that overlap by half."""
    heard = resample(wave, rate, RATE)
    span = round(_SPAN_S * RATE)
    best = max(
        score(heard[start : start + span]) for start in range(0, max(1, len(heard) - span // 2), span // 2)
    )
    return Finding(best, len(wave) / rate)


def score(wave: NDArray[np.float32]) -> float:
    """How far one shift of the mark stands out of all others in `wave` (N,) at 16 kHz; 0 for silence."""
    if not wave.any():
        return 0.0
    flat = _flattened(wave)
    periods = -(-len(flat) // RATE)
    folded = np.pad(flat, (0, periods * RATE - len(flat))).reshape(periods, RATE).sum(axis=0)
    spectrum = np.fft.rfft(folded)
    match = np.zeros(RATE + 1, np.complex128)  # at 32 kHz, for shifts of half a sample
    match[LOWEST:HIGHEST] = (spectrum * np.conj(np.fft.rfft(_noise(RATE))))[LOWEST:HIGHEST]
    shifts = np.fft.irfft(match, 2 * RATE)
    deviation = np.sqrt(np.mean(shifts**2))
    return float(shifts.max() / deviation) if deviation > 0 else 0.0


def _flattened(wave: NDArray[np.float32]) -> NDArray[np.float64]:
    """`wave` with the same level in every band at every time, but for what is far below the loudest."""
    hop = round(RATE * _HOP_S)
    window = _window(hop)
    padded = np.pad(wave.astype(np.float64), (hop, 3 * hop - len(wave) % hop))
    count = len(padded) // hop - 1
    spectra = np.fft.rfft(_overlapping(padded, hop, count) * window)
    power = _smooth(np.abs(spectra) ** 2, _smoothing(hop, RATE))
    spectra /= np.sqrt(power + _FAR_BELOW * np.mean(power)) + 1e-12
    frames = np.fft.irfft(spectra, 2 * hop) * window
    out = np.zeros((count + 1, hop))
    out[:-1] += frames[:, :hop]
    out[1:] += frames[:, hop:]
    return out.reshape(-1)[hop : hop + len(wave)]
