"""Bounded recovery: which pods are made anew elsewhere, how soon, and which nodes they keep away from; pure.

The kubelet restarts a container where it is, with growing pauses. That does not help where the place is to
blame (`failures.py`, retry Elsewhere): so such failures are counted by node as strikes, and at the second one
the pod is taken away. The planner then makes one in its place like for any other that is missing, a whole
replica with all its GPUs or none, and that new pod alone is told to keep away from the nodes with two
strikes: it prefers others, and comes back where there is no other. A node is free again when its strikes have
expired, or when somebody changes the annotation `names.ANNOTATION_FORGIVE` of the pool.

The budget is the pool's: at most `BUDGET` pods are taken away in any `WINDOW`, and between two of them is a
pause that doubles with every one in the window. Beyond it the kubelet's own restarts are all that happens,
and the pool is Stalled. Strikes and replacements are stored in the status before anything is done: a pod is
taken away because it stands in `replaced`, however often the operator is started anew meanwhile.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from datetime import datetime, timedelta

from stepaudio_operator.failures import diagnose_pod
from stepaudio_operator.plan.steps import DeletePod, Step, Wait
from stepaudio_operator.records import PodRecord
from stepaudio_operator.strikes import FORGIVEN_LIMIT, KEPT, Replacement, Strike, Strikes

ENOUGH = 2  # strikes for a node to be avoided
EXPIRY = timedelta(hours=6)
BUDGET = 6  # pods taken away in a window
WINDOW = timedelta(hours=1)
PAUSE_FIRST = timedelta(seconds=30)
PAUSE_LIMIT = timedelta(minutes=10)


def decide(strikes: Strikes, pods: Iterable[PodRecord], now: datetime, forgive: str = "") -> Strikes:
    """What the pool should remember now. `forgive` is the value of the annotation."""
    forgive = forgive[:FORGIVEN_LIMIT]
    now, pods = now.replace(microsecond=0), sorted(pods, key=lambda p: (p.name, p.uid))  # as it is stored
    if forgive != strikes.forgiven:
        # What has happened until now is forgiven: counted ends stay known, so that they are not counted anew.
        forgiven = tuple(replace(entry, node=_FORGIVEN) for entry in strikes.strikes)
        strikes = Strikes(forgiven, strikes.replaced, forgive)
    present = {pod.uid for pod in pods}
    held = tuple(
        s for s in strikes.strikes if now < s.at + EXPIRY and (s.node != _FORGIVEN or s.uid in present)
    )
    replaced = tuple(r for r in strikes.replaced if now < r.at + WINDOW or r.uid in present)
    counted = {(s.uid, s.end) for s in held}
    new = tuple(
        Strike(pod.node, pod.uid, pod.ends, row.reason, now)
        for pod in pods
        if pod.node
        and (pod.uid, pod.ends) not in counted
        and (row := diagnose_pod(pod)) is not None
        and row.retry == "Elsewhere"
    )
    strikes = Strikes((*held, *new)[-KEPT:], replaced[-KEPT:], strikes.forgiven)
    due = next((pod for pod in pods if _is_due(strikes, pod)), None)
    if due is not None and now >= allowed_from(strikes, now):
        strikes = replace(strikes, replaced=(*strikes.replaced, Replacement(due.uid, now))[-KEPT:])
    return strikes


def steps(strikes: Strikes, pods: Iterable[PodRecord], now: datetime) -> list[Step]:
    """What follows from it: pods to take away, and when to decide again."""
    pods = sorted(pods, key=lambda p: (p.name, p.uid))
    going = {entry.uid for entry in strikes.replaced}
    found: list[Step] = [
        DeletePod(pod.name, pod.uid, f"it fails on {pod.node}: another one is made elsewhere")
        for pod in pods
        if pod.uid in going and pod.live
    ]
    waits = [(allowed_from(strikes, now) - now).total_seconds() for pod in pods if _is_due(strikes, pod)]
    if waits:
        found.append(Wait(max(min(waits), 1.0), "a pod that fails where it is may be made anew elsewhere"))
    return found


def avoided(strikes: Strikes) -> tuple[str, ...]:
    """Nodes that new pods keep away from, in order."""
    nodes = [entry.node for entry in strikes.strikes if entry.node != _FORGIVEN]
    return tuple(sorted({node for node in nodes if nodes.count(node) >= ENOUGH}))


def is_spent(strikes: Strikes, now: datetime) -> bool:
    """Whether the budget of the present window is used up."""
    return len(_recent(strikes, now)) >= BUDGET


def allowed_from(strikes: Strikes, now: datetime) -> datetime:
    """From when on the next pod may be taken away."""
    recent = _recent(strikes, now)
    if not recent:
        return now
    if len(recent) >= BUDGET:
        return recent[-BUDGET] + WINDOW
    return recent[-1] + min(PAUSE_FIRST * 2 ** (len(recent) - 1), PAUSE_LIMIT)


_FORGIVEN = "-"  # no node's name


def _recent(strikes: Strikes, now: datetime) -> list[datetime]:
    return sorted(entry.at for entry in strikes.replaced if now < entry.at + WINDOW)


def _is_due(strikes: Strikes, pod: PodRecord) -> bool:
    """Whether `pod` should be made anew elsewhere: it does not serve, on a node that has enough strikes of
    which one is its own.
    """
    return (
        pod.live
        and not pod.may_serve
        and pod.node in avoided(strikes)
        and any(entry.uid == pod.uid and entry.node == pod.node for entry in strikes.strikes)
        and all(entry.uid != pod.uid for entry in strikes.replaced)
    )
