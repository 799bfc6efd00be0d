"""What to do next, from what should be and what is: pure, no clock of its own, no I/O.

`plan_pool` looks at one pool and returns the steps to take now, each with a reason in words; the executor
acts, the world changes, and the next plan starts from what is then. So a crash between any two steps is
repaired by the next plan. For pools that own their Pods:

1. The revision is stored before any pod is made from it.
2. Replicas that are missing are created in the lowest free slots. A pod that is going away still holds its
   GPUs: its place is filled when it is gone, or when its grace period has passed and it still is not.
3. A pod that has ended for good (evicted, refused by its node) is replaced after a delay that doubles with
   every failure in a row. The count is carried by the pods themselves: the replacement is created, with
   the count in an annotation, before the failed pod is removed, so it survives any crash.
4. Replicas that are too many go: those that do not serve first, then old revisions, then the highest slot.
5. A replica of an old revision is replaced by deleting it and creating its successor: never more than
   `max_unavailable` replicas are away at once, and a new pod is ready before the next old one goes. An old
   pod that does not serve goes first, since that costs nothing.
6. Revisions beyond the history limit that no pod uses are removed.

The gateway is a Deployment: its steps are ApplyWorkload, and Kubernetes does the rest.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from stepaudio_operator import names
from stepaudio_operator.records import (
    PodRecord,
    PoolObserved,
    WorkloadRecord,
)
from stepaudio_operator.spec import PoolSpec

BACKOFF_FIRST_S = 10  # after the first failure in a row
BACKOFF_LIMIT_S = 300
# A pod that ran this long before it failed starts a new row of failures.
FORGIVEN_AFTER = timedelta(minutes=10)
# A pod that is still there this long after its grace period is on a node that does not answer.
STUCK_AFTER = timedelta(seconds=30)
HISTORY_LIMIT = 10  # revisions kept beside those in use


@dataclass(frozen=True)
class PoolTarget:
    """What a pool should be. `replicas` is None while nobody has decided it: then nothing is scaled."""

    name: str
    component: str
    hash8: str
    replicas: int | None
    max_unavailable: int = 1
    history_limit: int = HISTORY_LIMIT


@dataclass(frozen=True)
class CreateRevision:
    """Store the target revision; `number` is its order in the pool."""

    hash8: str
    number: int
    reason: str


@dataclass(frozen=True)
class CreatePod:
    """Make the pod of `hash8` in `slot`, from the stored revision."""

    hash8: str
    slot: int
    attempt: int
    reason: str


@dataclass(frozen=True)
class DeletePod:
    """Delete the pod with this uid; it drains by itself."""

    name: str
    uid: str
    reason: str


@dataclass(frozen=True)
class ApplyWorkload:
    """Apply the gateway's Deployment at `hash8`, from the stored revision."""

    hash8: str
    replicas: int
    reason: str


@dataclass(frozen=True)
class DeleteRevision:
    """Delete a stored revision that nothing uses."""

    name: str
    uid: str
    reason: str


@dataclass(frozen=True)
class Wait:
    """Nothing to do before `seconds` have passed; then plan again."""

    seconds: float
    reason: str


Step = CreateRevision | CreatePod | DeletePod | ApplyWorkload | DeleteRevision | Wait


def pool_target(name: str, spec: PoolSpec, hash8: str) -> PoolTarget:
    """The target of the pool `name` whose spec asks for revision `hash8`."""
    budget = spec.rollout.max_unavailable if spec.rollout else 1
    return PoolTarget(name, spec.component, hash8, spec.replicas, budget)


def plan_pool(desired: PoolTarget, observed: PoolObserved, now: datetime) -> tuple[Step, ...]:
    """The steps to take now, in order. Empty when the pool is as it should be, or when only time helps."""
    steps: list[Step] = []
    if not any(r.hash8 == desired.hash8 for r in observed.revisions):
        number = max((r.number for r in observed.revisions), default=0) + 1
        steps.append(CreateRevision(desired.hash8, number, "the spec asks for a revision that is not stored"))
    if desired.replicas is not None:
        if desired.component == names.GATEWAY:
            steps += _plan_workload(desired, desired.replicas, observed.workload)
        else:
            steps += _plan_pods(desired, desired.replicas, observed.pods, now)
    steps += _plan_history(desired, observed)
    return tuple(steps)


def _plan_workload(desired: PoolTarget, replicas: int, workload: WorkloadRecord | None) -> list[Step]:
    if workload is None:
        reason = "there is no Deployment yet"
    elif workload.revision != desired.hash8:
        reason = f"the Deployment is at revision {workload.revision or 'of nobody'}"
    elif workload.replicas != replicas:
        reason = f"the Deployment has {workload.replicas} replicas"
    else:
        return []
    return [ApplyWorkload(desired.hash8, replicas, reason)]


def _plan_pods(desired: PoolTarget, replicas: int, pods: Iterable[PodRecord], now: datetime) -> list[Step]:
    ordered = sorted(pods, key=lambda p: (p.revision, p.slot, p.name))
    live = [p for p in ordered if p.live]
    failed = [p for p in ordered if p.failed and not p.deleting]
    leaving = [p for p in ordered if p.deleting and not _stuck(p, now)]
    missing = replicas - len(live) - len(leaving)
    if len(live) > replicas:
        return _scale_down(desired, live, len(live) - replicas) + _remove(failed, "nothing has to replace it")
    slots = _Slots(desired.hash8, ordered)
    steps, waiting = _replace_failed(failed, max(missing, 0), slots, now)
    fresh = missing - min(len(failed), max(missing, 0))
    steps += [
        CreatePod(desired.hash8, slots.take(), 0, f"{replicas} replicas are wanted") for _ in range(fresh)
    ]
    if missing <= 0:
        steps += _replace_old(desired, replicas, live, leaving)
    return steps + waiting


def _stuck(pod: PodRecord, now: datetime) -> bool:
    return pod.delete_by is not None and now >= pod.delete_by + STUCK_AFTER


@dataclass
class _Slots:
    """Hands out the lowest slots of a revision that no pod holds, whatever its state."""

    hash8: str
    pods: list[PodRecord]
    taken: set[int] = field(init=False)

    def __post_init__(self) -> None:
        self.taken = {p.slot for p in self.pods if p.revision == self.hash8}

    def take(self) -> int:
        slot = next(i for i in range(len(self.taken) + 1) if i not in self.taken)
        self.taken.add(slot)
        return slot


def _replace_failed(
    failed: list[PodRecord], missing: int, slots: _Slots, now: datetime
) -> tuple[list[Step], list[Step]]:
    """Steps for pods that ended, and at most one Wait. Of `failed`, as many as are `missing` get a
    successor when their delay is over; the others already have one.
    """
    steps: list[Step] = []
    # Those that wait longest are kept as the ones to replace, so that a short delay cannot jump the row.
    by_due = sorted(failed, key=lambda p: (_due(p, now), p.name), reverse=True)
    waits: list[float] = []
    for pod in by_due[:missing]:
        wait = (_due(pod, now) - now).total_seconds()
        if wait > 0:
            waits.append(wait)
            continue
        cause = pod.reason or pod.exit_reason or pod.phase
        attempt = _failures(pod)
        steps.append(CreatePod(slots.hash8, slots.take(), attempt, f"{pod.name} has ended: {cause}"))
        steps.append(DeletePod(pod.name, pod.uid, f"it has ended ({cause}) and is replaced"))
    steps += _remove(by_due[missing:], "it has ended and is replaced")
    if waits:
        return steps, [Wait(min(waits), "a failed pod is replaced when its delay is over")]
    return steps, []


def _failures(pod: PodRecord) -> int:
    """Failures in a row, this one included."""
    began = pod.started or pod.created
    ran = pod.finished - began if pod.finished and began else timedelta(0)
    return 1 if ran >= FORGIVEN_AFTER else pod.attempt + 1


def _due(pod: PodRecord, now: datetime) -> datetime:
    delay = min(BACKOFF_FIRST_S * 2 ** min(_failures(pod) - 1, 16), BACKOFF_LIMIT_S)
    return (pod.finished or pod.created or now) + timedelta(seconds=delay)


def _remove(pods: Iterable[PodRecord], reason: str) -> list[Step]:
    return [DeletePod(p.name, p.uid, reason) for p in sorted(pods, key=lambda p: p.name)]


def _scale_down(desired: PoolTarget, live: list[PodRecord], surplus: int) -> list[Step]:
    def loss(pod: PodRecord) -> tuple[bool, bool, int, str]:
        return (pod.ready, pod.revision == desired.hash8, -pod.slot, pod.name)

    victims = sorted(live, key=loss)[:surplus]
    return [DeletePod(p.name, p.uid, f"{desired.replicas} replicas are wanted") for p in victims]


def _replace_old(
    desired: PoolTarget, replicas: int, live: list[PodRecord], leaving: list[PodRecord]
) -> list[Step]:
    old = [p for p in live if p.revision != desired.hash8]
    if not old:
        return []
    reason = f"revision {desired.hash8} replaces it"
    away = replicas - sum(p.ready for p in live)
    idle = [p for p in old if not p.ready]
    if idle and not leaving and all(p.ready for p in live if p.revision == desired.hash8):
        # It serves nobody, so the budget does not speak; still one at a time, since all may be unready
        # for a moment only.
        victim = min(idle, key=lambda p: (-p.slot, p.name))
        return [DeletePod(victim.name, victim.uid, f"{reason}; it does not serve")]
    room = desired.max_unavailable - away
    victims = sorted((p for p in old if p.ready), key=lambda p: (-p.slot, p.name))[: max(room, 0)]
    return [DeletePod(p.name, p.uid, reason) for p in victims]


def _plan_history(desired: PoolTarget, observed: PoolObserved) -> list[Step]:
    used = {p.revision for p in observed.pods} | {desired.hash8}
    if observed.workload is not None:
        used.add(observed.workload.revision)
    unused = sorted((r for r in observed.revisions if r.hash8 not in used), key=lambda r: r.number)
    spare = unused[: max(len(unused) - desired.history_limit, 0)]
    return [DeleteRevision(r.name, r.uid, "beyond the history limit") for r in spare]
