"""Near-duplicates, found without comparing each with each: texts by letter triples, audio by fingerprint.

Both are decided in the order of the samples: the first of two stays.
"""

from __future__ import annotations

import unicodedata
from collections import defaultdict
from hashlib import blake2b

import numpy as np
from numpy.typing import NDArray

from stepaudio_runtime.audio.fbank import fbank

_ROWS, _BANDS = 4, 8
"""Of the MinHash: texts that share a band are compared. At a similarity of 0.8, 99 in 100 pairs do."""
_SEGMENTS, _LEVELS = 16, 17
FINGERPRINT_BITS = _SEGMENTS * (_LEVELS - 1)  # 256
_PIECES = 4
"""Fingerprints that differ in at most 3 bits are equal in one quarter at least."""


def plain(text: str) -> str:
    """`text` as compared: letters and digits in lower case, one space between words."""
    folded = unicodedata.normalize("NFKC", text).casefold()
    return " ".join("".join(char if char.isalnum() else " " for char in folded).split())


class NearTexts:
    """Remembers texts; `similarity` is the share of letter triples from which two are the same one."""

    def __init__(self, similarity: float) -> None:
        self._similarity = similarity
        self._seen: set[str] = set()
        self._bands: defaultdict[tuple[int, bytes], list[str]] = defaultdict(list)

    def add(self, text: str) -> bool:
        """Whether `text` is new; it is then remembered. A text without letters is not new."""
        compared = plain(text)
        if not compared or compared in self._seen:
            return False
        if self._similarity < 1:
            triples = _triples(compared)
            keys = _min_hash_bands(triples)
            near = {other for key in keys for other in self._bands[key]}
            if any(_jaccard(triples, _triples(other)) >= self._similarity for other in near):
                return False
            for key in keys:
                self._bands[key].append(compared)
        self._seen.add(compared)
        return True


class NearAudio:
    """Remembers fingerprints; up to `bits` of their 256 may differ in a duplicate."""

    def __init__(self, bits: int) -> None:
        self._bits = bits
        self._pieces: defaultdict[tuple[int, int], list[int]] = defaultdict(list)

    def add(self, fingerprint: int) -> bool:
        """Whether `fingerprint` is new; it is then remembered."""
        size = FINGERPRINT_BITS // _PIECES
        keys = [(piece, fingerprint >> piece * size & (1 << size) - 1) for piece in range(_PIECES)]
        near = {other for key in keys for other in self._pieces[key]}
        if any((other ^ fingerprint).bit_count() <= self._bits for other in near):
            return False
        for key in keys:
            self._pieces[key].append(fingerprint)
        return True


def fingerprint(wave: NDArray[np.float32]) -> int:
    """256 bits of `wave` (N,) at 16 kHz: which of two neighbouring bands is louder, in 16 parts of its time.

    They do not change with the level, and hardly with noise or a codec.
    """
    bands = fbank(wave, "povey")
    if not len(bands):
        return 0
    times = np.array_split(bands, _SEGMENTS) if len(bands) >= _SEGMENTS else [bands] * _SEGMENTS
    coarse = np.stack([part.mean(axis=0) for part in times])  # (16, 80)
    levels = np.stack([group.mean(axis=1) for group in np.array_split(coarse, _LEVELS, axis=1)], axis=1)
    bits = (np.diff(levels, axis=1) > 0).ravel()
    return int.from_bytes(np.packbits(bits).tobytes(), "big")


def _triples(text: str) -> set[str]:
    padded = f" {text} "
    return {padded[i : i + 3] for i in range(max(1, len(padded) - 2))}


def _jaccard(one: set[str], other: set[str]) -> float:
    return len(one & other) / len(one | other)


def _min_hash_bands(triples: set[str]) -> list[tuple[int, bytes]]:
    """Keys of the bands: the smallest hashes of the triples under 32 hash functions, four at a time."""
    hashes = np.array(
        [np.frombuffer(blake2b(t.encode(), digest_size=4 * _ROWS).digest(), "<u4") for t in sorted(triples)]
    )
    # Multiplications by odd numbers make the other functions of the four.
    factors = (2 * np.arange(_BANDS, dtype=np.uint32) + 1) * np.uint32(2_654_435_761)
    smallest = (hashes[:, None, :] * factors[None, :, None]).min(axis=0)  # (bands, rows)
    return [(band, smallest[band].tobytes()) for band in range(_BANDS)]
