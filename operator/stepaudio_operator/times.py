"""Times as the API server writes them. What cannot be such a time counts as not there: reading never raises,
and what was read can be added to.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

_YEARS = range(1970, 3000)  # beyond them somebody has typed them, and sums with them may overflow


def stamp(time: datetime) -> str:
    """RFC 3339 in UTC, to the second."""
    return time.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def moment(value: Any) -> datetime | None:
    """An RFC 3339 time as UTC; None for anything else."""
    try:
        read = datetime.fromisoformat(value)
        return read.astimezone(UTC) if read.year in _YEARS else None
    except (TypeError, ValueError):
        return None
