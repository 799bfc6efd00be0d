"""What a model pod says of itself, as far as its pool's status shows it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from stepaudio_operator.records.reading import size, text

_PRODUCT_LIMIT = 253  # characters, as in the pool's status


@dataclass(frozen=True, slots=True)
class GpuReading:
    """Memory of one GPU as its driver tells it, of all processes (bytes)."""

    product: str
    used: int
    total: int


@dataclass(frozen=True, slots=True)
class PodReport:
    """The last answer of a pod. `bytes_total` is 0 before the pod knows how much it has to load."""

    serves: bool
    """Whether it says that it serves: only then its GPUs hold all that they will."""
    bytes_loaded: int
    bytes_total: int
    gpus: tuple[GpuReading, ...] = ()


def gpus_of(body: Any) -> tuple[GpuReading, ...]:
    """The readings in the answer of a pod; those that cannot be understood are left out."""
    found = []
    for entry in body if isinstance(body, list) else ():
        if not isinstance(entry, Mapping):
            continue
        used, total = size(entry.get("usedBytes")), size(entry.get("totalBytes"))
        if used is not None and total:
            found.append(GpuReading(text(entry.get("product"))[:_PRODUCT_LIMIT], used, total))
    return tuple(found)
