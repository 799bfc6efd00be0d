"""What gateways have seen of revisions, as they say it at `names.FIGURES_PATH`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from stepaudio_operator import names

_COUNTS = len(names.FIRST_BYTE_BOUNDS_S) + 1


@dataclass(frozen=True, slots=True)
class Figures:
    """Of one revision: requests, those that failed, and answers by the time to their first byte (counts up to
    each of `names.FIRST_BYTE_BOUNDS_S`, and beyond the last).
    """

    requests: int = 0
    errors: int = 0
    first_byte: tuple[int, ...] = (0,) * _COUNTS

    def __add__(self, other: Figures) -> Figures:
        """What two gateways have seen together."""
        counts = zip(self.first_byte, other.first_byte, strict=True)
        return Figures(
            self.requests + other.requests, self.errors + other.errors, tuple(a + b for a, b in counts)
        )


FiguresOf = Mapping[str, Mapping[str, Figures]]
"""By component and revision."""


def figures_of(body: Any) -> FiguresOf | None:
    """The answer of a gateway; None where it cannot be understood."""
    try:
        return {
            str(component): {
                str(revision): Figures(
                    _count(seen["requests"]),
                    _count(seen["errors"]),
                    tuple(_count(n) for n in _exactly(seen["firstByte"], _COUNTS)),
                )
                for revision, seen in revisions.items()
            }
            for component, revisions in body["pools"].items()
        }
    except (KeyError, TypeError, ValueError, AttributeError):
        return None


def _count(value: Any) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        raise ValueError("no count")
    return value


def _exactly(values: Any, length: int) -> Any:
    if len(values) != length:
        raise ValueError("another number of bounds")
    return values
