"""Features of the linguistic tokenizer: filter bank, low frame rate, mean and variance, whole or in pieces.

Low frame rate (LFR) stacks 7 frames of 80 bands every 6 frames: 560 values every 60 ms, with 3 copies of the
first frame in front. Online, the wave is cut into pieces of 3840 samples (240 ms); every whole piece gives
exactly 4 LFR frames. When the last piece leaves fewer than 7 frames in the buffer, nothing more is emitted:
the reference's cut-off for streams and whole files alike, so both go through the online front-end.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from stepaudio_runtime.audio import fbank

INT16_SCALE = np.float32(1 << 15)
"""The filter bank is taken of the wave in 16-bit units."""
STACK = 7  # frames of one LFR frame
STRIDE = 6  # frames between LFR frames
FEATURES = STACK * fbank.BANDS  # 560
_COPIES = (STACK - 1) // 2  # of the first frame, in front
SAMPLES_PER_FEATURE = STRIDE * fbank.HOP
"""960 samples, 60 ms: one LFR frame, hence one linguistic id."""


@dataclass(frozen=True)
class Cmvn:
    """Mean and variance normalisation: (x + shift) * scale, vectors of 560."""

    shift: NDArray[np.float32]
    scale: NDArray[np.float32]

    def apply(self, features: NDArray[np.float32]) -> NDArray[np.float32]:
        """Normalised `features` (n, 560)."""
        return (features + self.shift) * self.scale


def parse_cmvn(text: str) -> Cmvn:
    """The two vectors of Kaldi's `am.mvn` text. Raises ValueError, saying what is wrong with it."""
    vectors = {}
    for section in ("AddShift", "Rescale"):
        found = re.search(rf"<{section}>[^<\[]*<LearnRateCoef>\s*\S+\s*\[([^\]]*)\]", text)
        if found is None:
            raise ValueError(f"no <{section}> vector")
        vectors[section] = np.array([float(value) for value in found[1].split()], np.float32)
        if vectors[section].shape != (FEATURES,) or not np.isfinite(vectors[section]).all():
            raise ValueError(f"<{section}> is not a vector of {FEATURES} numbers")
    return Cmvn(vectors["AddShift"], vectors["Rescale"])


def wave_fbank(wave: NDArray[np.float32]) -> NDArray[np.float32]:
    """Filter bank (F, 80) of `wave` (N,), a 16 kHz wave in [-1, 1]."""
    return fbank.fbank(wave * INT16_SCALE, "hamming")


def offline_features(wave: NDArray[np.float32], cmvn: Cmvn) -> NDArray[np.float32]:
    """Features (ceil(F / 6), 560) of a whole wave without the online cut-offs, as used for training."""
    frames = wave_fbank(wave)
    if len(frames) == 0:
        return np.zeros((0, FEATURES), np.float32)
    count = -(-len(frames) // STRIDE)
    return cmvn.apply(_stack(_with_copies(frames), count))


PIECE_SAMPLES = 4 * SAMPLES_PER_FEATURE
"""3840 samples, 240 ms: what the published model's chunk of 4 frames takes."""


@dataclass
class OnlineFrontend:
    """The front-end of one stream: hand it the wave in any sizes, take the features as they become certain.

    State: the samples short of a whole piece, the samples that no window has begun with yet (up to 399), and
    the LFR buffer's rest (up to 6 frames). A frontend whose last samples have been pushed is used up.
    """

    cmvn: Cmvn
    piece_samples: int = PIECE_SAMPLES
    _waiting: NDArray[np.float32] = field(default_factory=lambda: np.zeros(0, np.float32))
    _samples: NDArray[np.float32] = field(default_factory=lambda: np.zeros(0, np.float32))
    _frames: NDArray[np.float32] = field(default_factory=lambda: np.zeros((0, fbank.BANDS), np.float32))
    _ended: bool = False

    def push(self, wave: NDArray[np.float32], *, last: bool) -> NDArray[np.float32]:
        """Features (n, 560) of the pieces that `wave` (N,) completes; with `last`, those of the rest too.

        Raises ValueError after the last push.
        """
        if self._ended:
            raise ValueError("samples after the last ones of a stream")
        waiting = np.concatenate([self._waiting, wave])
        whole = len(waiting) // self.piece_samples * self.piece_samples
        self._waiting = waiting[whole:]
        features = self._take(waiting[:whole], last=False)
        if not last:
            return features
        self._ended = True
        return np.concatenate([features, self._take(self._waiting, last=True)])

    def _take(self, samples: NDArray[np.float32], *, last: bool) -> NDArray[np.float32]:
        self._samples = np.concatenate([self._samples, samples])
        new = wave_fbank(self._samples)
        self._samples = self._samples[len(new) * fbank.HOP :]
        if len(new) and not len(self._frames):
            new = _with_copies(new)
        self._frames = np.concatenate([self._frames, new])
        if len(self._frames) < STACK:
            return np.zeros((0, FEATURES), np.float32)
        if last:
            count = -(-(len(self._frames) - _COPIES) // STRIDE)
        else:
            count = (len(self._frames) - STACK) // STRIDE + 1
        features = _stack(self._frames, count)
        self._frames = self._frames[count * STRIDE :]
        return self.cmvn.apply(features)


def _with_copies(frames: NDArray[np.float32]) -> NDArray[np.float32]:
    return np.concatenate([np.repeat(frames[:1], _COPIES, axis=0), frames])


def _stack(frames: NDArray[np.float32], count: int) -> NDArray[np.float32]:
    """The first `count` LFR frames of `frames` (n, 80), the last frame repeated where they run out."""
    rows = np.arange(count)[:, None] * STRIDE + np.arange(STACK)[None, :]
    return frames[np.minimum(rows, len(frames) - 1)].reshape(count, FEATURES)
