"""How the values of a raw object are read; what cannot be read counts as not there."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

_MESSAGE_LIMIT = 1024  # characters kept of a message; a termination message may hold 4096
_SIZES = 1 << 53  # what JSON carries without loss; a petabyte is far below


@dataclass(frozen=True, slots=True)
class ConditionRecord:
    """One condition of a resource's status."""

    status: str  # True, False, Unknown
    reason: str
    message: str


def conditions_of(status: Mapping[str, Any]) -> dict[str, ConditionRecord]:
    """The conditions of a status by type."""
    return {
        c["type"]: ConditionRecord(intern(c.get("status")), intern(c.get("reason")), text(c.get("message")))
        for c in status.get("conditions") or ()
    }


def manages(meta: Mapping[str, Any], manager: str, path: tuple[str, ...]) -> bool:
    """Whether `manager` holds the field at `path` by server-side apply."""
    for entry in meta.get("managedFields") or ():
        if entry.get("manager") != manager or entry.get("operation") != "Apply":
            continue
        fields: Any = entry.get("fieldsV1") or {}
        for step in path:
            fields = fields.get(step) if isinstance(fields, Mapping) else None
            if fields is None:
                break
        else:
            return True
    return False


def intern(value: Any) -> str:
    """A short text that many objects share, "" for anything else."""
    # Names, labels and reasons repeat over thousands of records; one string object each saves memory.
    return sys.intern(value) if isinstance(value, str) else ""


def text(value: Any) -> str:
    """A message for people, cut to its limit."""
    return str(value)[:_MESSAGE_LIMIT] if value else ""


def size(value: Any) -> int | None:
    """A number of bytes, samples, requests or seconds that a status can hold; None for anything else."""
    return value if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < _SIZES else None


def integer(value: Any, default: int) -> int:
    """A whole number, `default` for anything else."""
    try:
        return int(value)
    except (TypeError, ValueError):
        return default


def latest(times: list[datetime | None]) -> datetime | None:
    """The latest of the times that are known."""
    return max((t for t in times if t is not None), default=None)
