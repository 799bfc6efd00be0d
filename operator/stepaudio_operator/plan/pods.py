"""The steps for a pool's own pods, on a given course; the rules stand in the package's docstring."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from stepaudio_operator.plan.course import Course
from stepaudio_operator.plan.steps import CreatePod, DeletePod, Step, Wait
from stepaudio_operator.records import PodRecord

BACKOFF_FIRST_S = 10  # after the first failure in a row
BACKOFF_LIMIT_S = 300
# A pod that ran this long before it failed starts a new row of failures.
FORGIVEN_AFTER = timedelta(minutes=10)
# A pod that is still there this long after its grace period is on a node that does not answer.
STUCK_AFTER = timedelta(seconds=30)


def plan_pods(course: Course, replicas: int, pods: Iterable[PodRecord], now: datetime) -> list[Step]:
    """What to do with `pods`, so that there are `replicas` of them and they move along `course`."""
    world = _World.of(course, pods, now)
    surplus = len(world.live) - replicas - (course.spare if world.old else 0)
    if course.phase == "Recreate" and world.old:
        reason = f"revision {course.aim} replaces all at once"
        return _delete(world.old, reason) + _delete(world.failed, "nothing has to replace it")
    if surplus > 0:
        return _scale_down(course, replicas, world, surplus) + _delete(
            world.failed, "nothing has to replace it"
        )
    wanted = _missing(course, replicas, world)
    steps, waiting = _make(wanted, replicas, course, world, now)
    if not wanted:
        steps += _replace_old(course, world)
    return steps + waiting


@dataclass(frozen=True)
class _World:
    """The pods, sorted by what they are."""

    new: list[PodRecord]
    old: list[PodRecord]
    failed: list[PodRecord]
    leaving: list[PodRecord]  # those whose node answers
    slots: _Slots

    @classmethod
    def of(cls, course: Course, pods: Iterable[PodRecord], now: datetime) -> _World:
        ordered = sorted(pods, key=lambda p: (p.revision, p.slot, p.name))
        ended = [p for p in ordered if p.failed or _misplaced(course, p, now)]
        live = [p for p in ordered if p.live and p not in ended]
        return cls(
            new=[p for p in live if p.revision == course.aim],
            old=[p for p in live if p.revision != course.aim],
            failed=[p for p in ended if not p.deleting],
            leaving=[p for p in ordered if p.deleting and not _stuck(p, now)],
            slots=_Slots(ordered),
        )

    @property
    def live(self) -> list[PodRecord]:
        return self.new + self.old


@dataclass
class _Slots:
    """Hands out the lowest slots of a revision that no pod holds, whatever its state and its labels."""

    pods: list[PodRecord]
    taken: set[tuple[str, ...]] = field(init=False)

    def __post_init__(self) -> None:
        self.taken = {tuple(p.name.rsplit("-", 2)[1:]) for p in self.pods}

    def take(self, hash8: str) -> int:
        slot = next(i for i in range(len(self.taken) + 1) if (hash8, str(i)) not in self.taken)
        self.taken.add((hash8, str(slot)))
        return slot


def _misplaced(course: Course, pod: PodRecord, now: datetime) -> bool:
    """Whether a pod that is kept to certain nodes has found room on none of them for long enough."""
    since = pod.unschedulable_since if pod.bound else None
    return since is not None and now >= since + timedelta(seconds=course.bound_s or 0)


def _stuck(pod: PodRecord, now: datetime) -> bool:
    return pod.delete_by is not None and now >= pod.delete_by + STUCK_AFTER


def _missing(course: Course, replicas: int, world: _World) -> list[str]:
    """The revisions of the pods to make now, one entry a pod."""
    surge = 1 if world.old and course.phase in ("Surge", "Canary") else 0
    room = max(replicas + surge - len(world.live) - len(world.leaving), 0)
    old = max(min(room, course.old_min - len(world.old)), 0) if course.stable else 0
    new = max(min(room - old, min(course.new_max, replicas) - len(world.new)), 0)
    return [course.stable] * old + [course.aim] * new


def _make(
    wanted: list[str], replicas: int, course: Course, world: _World, now: datetime
) -> tuple[list[Step], list[Step]]:
    """Steps that make the `wanted` pods, and at most one Wait. A pod that ended holds one of them up until
    its delay is over; those that ended beyond that already have a successor, or need none.
    """
    steps: list[Step] = []
    open_ = list(wanted)
    # Those that wait longest are kept as the ones to replace, so that a short delay cannot jump the row.
    by_due = sorted(world.failed, key=lambda p: (_due(p, now), p.name), reverse=True)
    waits: list[float] = []
    for pod in by_due[: len(wanted)]:
        hash8 = pod.revision if pod.revision in open_ else open_[-1]
        open_.remove(hash8)
        wait = (_due(pod, now) - now).total_seconds()
        if wait > 0:
            waits.append(wait)
            continue
        cause = pod.reason or pod.exit_reason or pod.phase
        if pod.live:
            cause = "no node that has its models has room"
        reason = f"{pod.name} has ended: {cause}"
        steps.append(CreatePod(hash8, world.slots.take(hash8), _failures(pod), reason))
        steps.append(DeletePod(pod.name, pod.uid, f"it has ended ({cause}) and is replaced"))
    steps += _delete(by_due[len(wanted) :], "it has ended and is replaced")
    reason = f"{replicas} replicas are wanted"
    bound = course.bound_s is not None
    steps += [CreatePod(hash8, world.slots.take(hash8), 0, reason, bound) for hash8 in open_]
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


def _delete(pods: Iterable[PodRecord], reason: str) -> list[Step]:
    return [DeletePod(p.name, p.uid, reason) for p in sorted(pods, key=lambda p: p.name)]


def _scale_down(course: Course, replicas: int, world: _World, surplus: int) -> list[Step]:
    by_worth = sorted(world.old, key=lambda p: (not p.ready, not p.unheard, p.slot, p.name))
    stay = {p.uid for p in by_worth[: course.old_min]}

    def loss(pod: PodRecord) -> tuple[bool, bool, bool, bool, int, str]:
        return (pod.ready, pod.unheard, pod.uid in stay, pod.revision == course.aim, -pod.slot, pod.name)

    victims = sorted(world.live, key=loss)[:surplus]
    return [DeletePod(p.name, p.uid, f"{replicas} replicas are wanted") for p in victims]


def _replace_old(course: Course, world: _World) -> list[Step]:
    spare = len(world.old) - course.old_min
    if spare <= 0:
        return []
    reason = f"revision {course.aim} replaces it"
    serving = sum(p.ready for p in world.live)
    idle = [p for p in world.old if not p.ready and not (p.unheard and serving < course.floor)]
    if idle and not world.leaving and all(p.ready or not p.scheduled for p in world.new):
        # It serves nobody, so the budget does not speak; still one at a time, since all may be unready
        # for a moment only.
        victim = min(idle, key=lambda p: (-p.slot, p.name))
        return [DeletePod(victim.name, victim.uid, f"{reason}; it does not serve")]
    room = min(serving - course.floor, spare)
    ready = sorted((p for p in world.old if p.ready), key=lambda p: (-p.slot, p.name))
    return [DeletePod(p.name, p.uid, reason) for p in ready[: max(room, 0)]]
