"""Verdicts of checks and the kstatus conditions that they become.

`Ready` (everything asked for is there and serves), `Reconciling` (work goes on by itself), `Stalled` (a
person has to do something): one of them holds at any time. A message holds no clock, and of measurements
only what comes in coarse steps, so a steady state writes nothing; `lastTransitionTime` moves only when a
condition's status flips.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from stepaudio_operator.errors import SpecError, StillGoing
from stepaudio_operator.times import stamp

INVALID_SPEC = "InvalidSpec"
WAITING_FOR_CAPACITY = "WaitingForCapacity"
UNSCHEDULABLE = "Unschedulable"
WAITING_FOR_QUOTA = "WaitingForQuota"
STILL_GOING = StillGoing.__name__
PAUSED = "Paused"
DOWNLOADING = "DownloadingModels"
MESSAGE_LIMIT = 2000  # characters
REASON_LIMIT = 128  # characters, as in an Event


@dataclass(frozen=True)
class Verdict:
    """What a check found: `ready`, or why not; `stalled` where waiting does not help."""

    reason: str
    message: str
    ready: bool = False
    stalled: bool = False


def first(checks: Sequence[Callable[[Any], Verdict | None]], state: Any) -> Verdict:
    """What the first check that finds something says; the last check always does."""
    return next(verdict for check in checks if (verdict := check(state)) is not None)


def invalid(error: SpecError) -> Verdict:
    """The verdict on a spec that does not parse."""
    return Verdict(INVALID_SPEC, str(error), stalled=True)


def refusal(problem: tuple[str, str]) -> Verdict:
    """The verdict on a write that the API server refused: a person has to act, but where waiting helps."""
    return Verdict(*problem, stalled=problem[0] != STILL_GOING)


def conditions(
    before: Mapping[str, Any], generation: int, verdict: Verdict, now: datetime
) -> list[dict[str, Any]]:
    """The three conditions for `verdict`. `before` is the stored status: times are kept from there."""
    working = not verdict.ready and not verdict.stalled
    states = {
        "Ready": (verdict.ready, verdict.reason, verdict.message),
        "Reconciling": (working, verdict.reason, verdict.message) if working else (False, "Settled", ""),
        "Stalled": (
            (True, verdict.reason, verdict.message) if verdict.stalled else (False, "Progressing", "")
        ),
    }
    return [
        condition(before, kind, generation, now, holds=holds, reason=reason, message=message)
        for kind, (holds, reason, message) in states.items()
    ]


def condition(
    before: Mapping[str, Any],
    kind: str,
    generation: int,
    now: datetime,
    *,
    holds: bool,
    reason: str,
    message: str,
) -> dict[str, Any]:
    """One condition; its time is the stored one while its status does not flip."""
    value = "True" if holds else "False"
    stored: Mapping[str, Any] = next((c for c in before.get("conditions") or () if c.get("type") == kind), {})
    since = stored.get("lastTransitionTime") if stored.get("status") == value else None
    return {
        "type": kind,
        "status": value,
        "observedGeneration": generation,
        "lastTransitionTime": since or stamp(now),
        "reason": reason[:REASON_LIMIT],
        "message": message[:MESSAGE_LIMIT],
    }


def first_line(text: str) -> str:
    """The first line of a text that is not empty."""
    return next((line.strip() for line in text.splitlines() if line.strip()), "")


def last_words(message: str) -> tuple[str, str]:
    """Reason and message of a termination message `Reason: what and where; cure`.

    A message of another form comes whole, under the reason `ConfigurationError`.
    """
    reason, colon, text = first_line(message).partition(": ")
    is_word = reason.isascii() and reason.isalnum() and reason[:1].isupper() and len(reason) <= REASON_LIMIT
    if colon and is_word:
        return reason, text
    return "ConfigurationError", first_line(
        message
    ) or "the pod ended for a reason of configuration: see its log"
