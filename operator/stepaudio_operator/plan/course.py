"""Where a pool is going, read from its target and its memory: what both deciding and planning start from."""

from __future__ import annotations

import math
from dataclasses import dataclass

from stepaudio_operator import names
from stepaudio_operator.memory import Memory, Phase, Rollout
from stepaudio_operator.plan.steps import PoolTarget
from stepaudio_operator.records import PodRecord, PoolObserved
from stepaudio_operator.spec.rollout import AUTO, CANARY, IN_PLACE, RECREATE, SURGE


@dataclass(frozen=True)
class Course:
    """Where to, and how far for now."""

    aim: str
    stable: str
    """Revision of which missing old pods are made while the new one is bounded; "" for none."""
    phase: Phase
    floor: int
    """Pods that have to serve, of whatever revision, for an old one that serves to be taken."""
    new_max: int
    """Pods of the aim, at most."""
    old_min: int = 0
    """Old pods that stay."""
    spare: int = 1
    """Pods beyond the replicas that may stay while old ones are left."""
    bound_s: float | None = None
    """How long new pods are kept to the nodes that have their models; None: not at all."""


def aim(target: PoolTarget, observed: PoolObserved) -> str:
    """The revision that the pool works towards."""
    return fallback(target, observed) if rolls_back(target, observed) else target.wanted


def rolls_back(target: PoolTarget, observed: PoolObserved) -> bool:
    """Whether the pool goes, or has gone, back to its last good revision."""
    return target.auto_rollback and is_quarantined(target, observed.memory) and has_fallback(target, observed)


def is_quarantined(target: PoolTarget, memory: Memory) -> bool:
    """Whether the revision that the spec asks for is quarantined, or its release has failed elsewhere."""
    return target.condemned or any(entry.revision == target.wanted for entry in memory.quarantined)


def fallback(target: PoolTarget, observed: PoolObserved) -> str:
    """The revision to go back to: the last good one; where all pools are to go back to another release than
    that one's, one of that release: what serves of it, else the newest.
    """
    good = observed.memory.good
    same = [r for r in observed.revisions if r.release == target.back]
    if not target.back or not same or any(r.hash8 == good for r in same):
        return good
    serving = {p.revision for p in observed.pods if p.live and p.may_serve}
    return max(same, key=lambda r: (r.hash8 in serving, r.number)).hash8


def has_fallback(target: PoolTarget, observed: PoolObserved) -> bool:
    """Whether there is a stored revision to go back to."""
    back = fallback(target, observed)
    return back != target.wanted and any(r.hash8 == back for r in observed.revisions)


def phases(target: PoolTarget, observed: PoolObserved) -> tuple[Phase, ...]:
    """The phases that a rollout to the aim may be in; it begins in the first."""
    if target.component == names.GATEWAY:
        return ("Surge",)
    if rolls_back(target, observed):
        return ("InPlace",)
    kept, rollout = keeps(target, observed), observed.memory.rollout
    if rollout is not None and rollout.needs_outage and not kept:
        return ("Recreate",)  # the outage is declared: what is old serves nobody
    if kept and target.strategy == CANARY:
        return ("Surge",)  # a share of a release cannot be tried
    by_strategy: dict[str, tuple[Phase, ...]] = {
        AUTO: ("Surge", "InPlace"),
        SURGE: ("Surge",),
        IN_PLACE: ("InPlace",),
        RECREATE: ("Recreate",),
        CANARY: ("Canary", "Surge"),
    }
    return by_strategy[target.strategy]


def keeps(target: PoolTarget, observed: PoolObserved) -> frozenset[str]:
    """The revisions beside the aim that have to go on serving, as far as they have pods."""
    kept = frozenset(target.keep) - {aim(target, observed)}
    return kept & {p.revision for p in observed.pods if p.live}


def least(target: PoolTarget, replicas: int) -> int:
    """Pods that make a release able to serve, and that stay of the one that is kept."""
    return max(1, replicas - target.max_unavailable) if replicas else 0


def course(target: PoolTarget, replicas: int, observed: PoolObserved) -> Course:
    """The course of a pool of `replicas` pods."""
    to, rollout = aim(target, observed), observed.memory.rollout
    on = rollout if rollout is not None and rollout.revision == to else None
    phase = on.phase if on is not None else phases(target, observed)[0]
    floor = replicas if phase in ("Surge", "Canary") else replicas - target.max_unavailable
    if is_quarantined(target, observed.memory) and not target.auto_rollback:
        # It stands still: for somebody to look at, with what serves untouched.
        new, old = (len(pods) for pods in divide(observed, to))
        stay = max(replicas - new, min(old, replicas))
        return Course(to, _stored(observed, fallback(target, observed)), phase, floor, new, stay)
    if on is not None and phase == "Canary" and (share := canary_share(target, on)) is not None:
        new, old = canary_pods(replicas, share)
        return Course(to, _stored(observed, on.stable), phase, floor, new, old)
    makes_room = on is not None and phase in ("InPlace", "Recreate")
    bound_s = target.surge_timeout_s if makes_room and target.local_models else None
    return Course(to, "", phase, floor, replicas, bound_s=bound_s)


def canary_share(target: PoolTarget, rollout: Rollout) -> int | None:
    """Per cent of the traffic that the current step is about; None behind the last step."""
    step = rollout.step or 0
    return target.canary[step][0] if step < len(target.canary) else None


def canary_pods(replicas: int, share: int) -> tuple[int, int]:
    """How many new pods `share` per cent of the traffic needs, and how many old ones the rest."""
    return max(1, math.ceil(replicas * share / 100)), math.ceil(replicas * (100 - share) / 100)


def divide(observed: PoolObserved, to: str) -> tuple[list[PodRecord], list[PodRecord]]:
    """The live pods of revision `to`, and those of any other."""
    live = [p for p in observed.pods if p.live]
    return [p for p in live if p.revision == to], [p for p in live if p.revision != to]


def _stored(observed: PoolObserved, hash8: str) -> str:
    return hash8 if any(r.hash8 == hash8 for r in observed.revisions) else ""
