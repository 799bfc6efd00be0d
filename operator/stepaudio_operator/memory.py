"""What a pool remembers between two reconciles, and stores in its status before it acts on it.

Everything else is seen in the cluster anew each time. Times are UTC, to the second. Reading never raises:
what somebody else wrote there and cannot be understood counts as not remembered.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal

from stepaudio_operator.strikes import Strikes
from stepaudio_operator.times import moment, stamp

Phase = Literal["Surge", "InPlace", "Recreate", "Canary"]
PHASES: tuple[Phase, ...] = ("Surge", "InPlace", "Recreate", "Canary")


@dataclass(frozen=True, slots=True)
class Rollout:
    """From one revision to another, while that goes on."""

    revision: str
    """Where to."""
    stable: str
    """What served when it began; `from` in the status."""
    phase: Phase
    """How pods are replaced now: the strategy's way, or what it came to (Auto that found no room)."""
    started: datetime
    step: int | None = None
    """Of a canary, from 0."""
    step_started: datetime | None = None
    """Since when that step has its share of the traffic; None while its pods are being made."""
    traffic: int | None = None
    """Per cent of the requests that should go to `revision`; None: by ready pods."""
    needs_outage: bool = False
    """Whether it cannot go on while what serves is kept (`names.ANNOTATION_KEEP`): there is no room."""


@dataclass(frozen=True, slots=True)
class Quarantine:
    """A revision that failed and is not tried again while `ask` stays what it is."""

    revision: str
    reason: str
    message: str
    at: datetime
    ask: str
    """Digest of what somebody asks for: the spec without its replicas, and the retry annotation."""


@dataclass(frozen=True, slots=True)
class Scaling:
    """How many replicas the autoscaler has decided on, and what it leans to."""

    replicas: int
    reason: str
    at: datetime
    """When it decided so."""
    towards: int | None = None
    """Other replicas that were asked for at every look since `since`: the least of more, the most of fewer.
    """
    since: datetime | None = None


@dataclass(frozen=True, slots=True)
class Memory:
    """All of it. `good` is the last revision of which every replica served, "" before the first."""

    good: str = ""
    rollout: Rollout | None = None
    quarantined: tuple[Quarantine, ...] = ()
    strikes: Strikes = field(default_factory=Strikes)
    scaling: Scaling | None = None

    @classmethod
    def from_status(cls, status: Mapping[str, Any]) -> Memory:
        """Reads a pool's status."""
        held = (_quarantine(entry) for entry in status.get("quarantined") or ())
        return cls(
            good=status.get("goodRevision") or "",
            rollout=_rollout(status.get("rollout") or {}),
            quarantined=tuple(entry for entry in held if entry is not None),
            strikes=Strikes.from_status(status.get("recovery") or {}),
            scaling=_scaling(status.get("autoscaling") or {}),
        )

    def to_status(self) -> dict[str, Any]:
        """The part of a pool's status that stores it; what is not remembered has no field."""
        status: dict[str, Any] = {}
        if self.good:
            status["goodRevision"] = self.good
        if self.rollout is not None:
            rollout = {
                "revision": self.rollout.revision,
                "from": self.rollout.stable or None,
                "phase": self.rollout.phase,
                "startedAt": stamp(self.rollout.started),
                "step": self.rollout.step,
                "stepStartedAt": self.rollout.step_started and stamp(self.rollout.step_started),
                "traffic": self.rollout.traffic,
                "needsOutage": self.rollout.needs_outage or None,
            }
            status["rollout"] = {key: value for key, value in rollout.items() if value is not None}
        if self.quarantined:
            status["quarantined"] = [
                {
                    "revision": entry.revision,
                    "reason": entry.reason,
                    "message": entry.message,
                    "at": stamp(entry.at),
                    "ask": entry.ask,
                }
                for entry in self.quarantined
            ]
        if recovery := self.strikes.to_status():
            status["recovery"] = recovery
        if self.scaling is not None:
            scaling = {
                "replicas": self.scaling.replicas,
                "reason": self.scaling.reason,
                "at": stamp(self.scaling.at),
                "towards": self.scaling.towards,
                "since": self.scaling.since and stamp(self.scaling.since),
            }
            status["autoscaling"] = {key: value for key, value in scaling.items() if value is not None}
        return status


def _rollout(raw: Mapping[str, Any]) -> Rollout | None:
    started = moment(raw.get("startedAt"))
    if not raw.get("revision") or raw.get("phase") not in PHASES or started is None:
        return None
    return Rollout(
        revision=raw["revision"],
        stable=raw.get("from") or "",
        phase=raw["phase"],
        started=started,
        step=raw.get("step"),
        step_started=moment(raw.get("stepStartedAt")),
        traffic=raw.get("traffic"),
        needs_outage=raw.get("needsOutage") is True,
    )


def _quarantine(raw: Mapping[str, Any]) -> Quarantine | None:
    at = moment(raw.get("at"))
    if not raw.get("revision") or at is None:
        return None
    return Quarantine(
        raw["revision"], raw.get("reason") or "", raw.get("message") or "", at, raw.get("ask") or ""
    )


def _scaling(raw: Mapping[str, Any]) -> Scaling | None:
    at, since = moment(raw.get("at")), moment(raw.get("since"))
    replicas, towards = raw.get("replicas"), raw.get("towards")
    if not isinstance(replicas, int) or at is None:
        return None
    if not isinstance(towards, int) or since is None:
        towards = since = None
    return Scaling(replicas, raw.get("reason") or "", at, towards, since)
