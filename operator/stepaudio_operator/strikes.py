"""What a pool remembers of failures that a place may be to blame for; stored in its status like the rest.

Reading never raises: what cannot be understood counts as not remembered.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from stepaudio_operator.times import moment, stamp

KEPT = 32  # entries of each list in the status, the newest
FORGIVEN_LIMIT = 253  # characters of the annotation that are looked at


@dataclass(frozen=True, slots=True)
class Strike:
    """A failure of a pod (`uid`, the `end`-th of its container) on `node`."""

    node: str
    uid: str
    end: int
    reason: str
    at: datetime


@dataclass(frozen=True, slots=True)
class Replacement:
    """A pod that is taken away so that another one is made elsewhere."""

    uid: str
    at: datetime


@dataclass(frozen=True, slots=True)
class Strikes:
    """All of it. `forgiven` is the annotation's value that was heeded last."""

    strikes: tuple[Strike, ...] = ()
    replaced: tuple[Replacement, ...] = ()
    forgiven: str = ""

    @classmethod
    def from_status(cls, raw: Mapping[str, Any]) -> Strikes:
        """Reads `status.recovery`."""
        strikes = (_strike(entry) for entry in raw.get("strikes") or ())
        replaced = (_replacement(entry) for entry in raw.get("replaced") or ())
        return cls(
            tuple(entry for entry in strikes if entry is not None),
            tuple(entry for entry in replaced if entry is not None),
            raw.get("forgiven") or "",
        )

    def to_status(self) -> dict[str, Any]:
        """The value of `status.recovery`; empty where nothing is remembered."""
        status: dict[str, Any] = {}
        if self.strikes:
            status["strikes"] = [
                {
                    "node": entry.node,
                    "uid": entry.uid,
                    "end": entry.end,
                    "reason": entry.reason,
                    "at": stamp(entry.at),
                }
                for entry in self.strikes
            ]
        if self.replaced:
            status["replaced"] = [{"uid": entry.uid, "at": stamp(entry.at)} for entry in self.replaced]
        if self.forgiven:
            status["forgiven"] = self.forgiven
        return status


def _strike(raw: Mapping[str, Any]) -> Strike | None:
    at, end = moment(raw.get("at")), raw.get("end")
    if at is None or not isinstance(end, int) or not raw.get("node") or not raw.get("uid"):
        return None
    return Strike(raw["node"], raw["uid"], end, raw.get("reason") or "", at)


def _replacement(raw: Mapping[str, Any]) -> Replacement | None:
    at = moment(raw.get("at"))
    return Replacement(raw["uid"], at) if at is not None and raw.get("uid") else None
