"""What a pool should remember: whether its rollout goes on, how, and which revision has failed for good.

The rules stand in the package's docstring.
"""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta

from stepaudio_operator import names
from stepaudio_operator.conditions import first_line, last_words
from stepaudio_operator.memory import Memory, Phase, Quarantine, Rollout
from stepaudio_operator.plan.course import (
    aim,
    canary_pods,
    canary_share,
    divide,
    has_fallback,
    is_quarantined,
    keeps,
    least,
    phases,
    rolls_back,
)
from stepaudio_operator.plan.steps import PoolTarget, Wait
from stepaudio_operator.records import CanaryVerdict, PodRecord, PoolObserved
from stepaudio_operator.spec.rollout import CANARY

CRASH_LOOP = 3  # restarts of a pod that does not serve
# Ends of a container that say nothing of what ran in it: its node was restarted, or lost it.
_NODE_REASONS = frozenset({"ContainerStatusUnknown", "Unknown"})
# What the API server says of a pod with a gate: a queue holds it back until its quota has room.
GATED = "non-empty scheduling gates"
# What the scheduler says where it lacks something that a pod which goes gives back. Anything else (a node
# selector, a taint, a volume's zone) an old pod's going does not cure.
_ROOM = (
    "Insufficient ",
    "Too many pods",
    "free ports",
    "anti-affinity",
    "cannot allocate all claims",
)


def decide(
    target: PoolTarget, observed: PoolObserved, now: datetime, verdict: CanaryVerdict | None = None
) -> Memory:
    """What the pool should remember, from what it does and what is. `verdict` is of a canary that failed."""
    memory = observed.memory
    memory = replace(memory, quarantined=tuple(q for q in memory.quarantined if q.ask == target.ask))
    if target.replicas is None:
        return memory
    observed = replace(observed, memory=memory)
    if (failed := _condemned(target, observed, now, verdict)) is not None:
        memory = replace(memory, quarantined=(*memory.quarantined, failed))
        observed = replace(observed, memory=memory)
    to = aim(target, observed)
    _, old = divide(observed, to)
    if _whole(target, observed, to):
        proven = target.replicas and not (target.trial and to == target.wanted and memory.good)
        return replace(memory, good=to if proven else memory.good, rollout=None)
    rollout = memory.rollout
    if rollout is None or rollout.revision != to:
        rollout = _begin(target, observed, to, now) if old else None
    elif not target.replicas and not old:
        rollout = None
    return replace(memory, rollout=rollout and _proceed(target, observed, rollout, now))


def without_surge(target: PoolTarget, observed: PoolObserved, now: datetime) -> Rollout | None:
    """The rollout in place, where a quota leaves no room for one pod more and that has been put up with as
    long as the strategy allows; None where it goes on as it is.
    """
    rollout = observed.memory.rollout
    if rollout is None or rollout.phase != "Surge" or "InPlace" not in phases(target, observed):
        return None
    patient = now < rollout.started + timedelta(seconds=target.surge_timeout_s)
    return None if patient or not divide(observed, rollout.revision)[1] else replace(rollout, phase="InPlace")


def deadlines(target: PoolTarget, observed: PoolObserved, now: datetime) -> list[Wait]:
    """When the next decision may fall that no event announces."""
    waits: list[Wait] = []
    memory, to = observed.memory, aim(target, observed)
    new, old = divide(observed, to)
    if to == target.wanted and has_fallback(target, observed) and not is_quarantined(target, memory):
        loading = [since for p in new if (since := _loading_since(p)) is not None]
        if loading:
            waits.append(_wait(min(loading), target.progress_deadline_s, now, "a pod is loading"))
    bound = [p.unschedulable_since for p in new if p.bound and p.unschedulable_since]
    if bound:
        waits.append(_wait(min(bound), target.surge_timeout_s, now, "a pod is kept to nodes with its models"))
    rollout = memory.rollout
    if rollout is None or rollout.revision != to:
        return waits
    if rollout.phase == "Surge" and old and "InPlace" in phases(target, observed):
        pending = [p.unschedulable_since for p in new if p.unschedulable_since and _draining_helps(p, old)]
        if pending:
            waits.append(_wait(min(pending), target.surge_timeout_s, now, "a newcomer waits for a node"))
    if rollout.phase == "Canary" and rollout.step_started and rollout.step is not None:
        pause = target.canary[rollout.step][1] if rollout.step < len(target.canary) else 0
        if not unseen(target, rollout, now):
            waits.append(_wait(rollout.step_started, pause, now, "the canary is watched"))
    return waits


def unseen(target: PoolTarget, rollout: Rollout, now: datetime) -> bool:
    """Whether a canary's step would be over, had anybody seen what became of its requests."""
    return rollout.phase == "Canary" and not target.watched and _over(target, rollout, now)


def _over(target: PoolTarget, rollout: Rollout, now: datetime) -> bool:
    """Whether the pause of a canary's step is over."""
    step = rollout.step or 0
    if rollout.step_started is None or step >= len(target.canary):
        return False
    return now >= rollout.step_started + timedelta(seconds=target.canary[step][1])


def _wait(since: datetime, length_s: float, now: datetime, reason: str) -> Wait:
    return Wait(max((since + timedelta(seconds=length_s) - now).total_seconds(), 0.0), reason)


def _whole(target: PoolTarget, observed: PoolObserved, to: str) -> bool:
    """Whether every replica of `to` serves and no other revision is left."""
    work = observed.workload
    if target.component == names.GATEWAY:
        return work is not None and work.is_settled(to, target.replicas)
    new, old = divide(observed, to)
    return not old and len(new) == target.replicas and all(p.ready for p in new)


def _begin(target: PoolTarget, observed: PoolObserved, to: str, now: datetime) -> Rollout:
    """The rollout to `to`, from the good revision where it has pods, else from what most pods are of."""
    _, old = divide(observed, to)
    counts = {p.revision: sum(o.revision == p.revision for o in old) for p in old}
    from_ = max(counts, key=lambda hash8: (hash8 == observed.memory.good, counts[hash8], hash8))
    began = Rollout(to, from_, _first_phase(target, observed, to), _stamp(now))
    if began.phase == "Canary":
        return replace(began, step=0, traffic=0)
    before = observed.memory.rollout
    left_canary = before is not None and before.phase == "Canary" and to == observed.memory.good
    if rolls_back(target, observed) or left_canary:
        return replace(began, traffic=100)  # the revision that is left gets no more requests
    return began


def _first_phase(target: PoolTarget, observed: PoolObserved, to: str) -> Phase:
    phase = phases(target, observed)[0]
    if phase == "Canary" and (to == observed.memory.good or not _any_ready(observed, to)):
        return "Surge"  # it is known to be good, or nothing serves that it could be compared with
    return phase


def _any_ready(observed: PoolObserved, to: str) -> bool:
    return any(p.ready for p in divide(observed, to)[1])


def _proceed(target: PoolTarget, observed: PoolObserved, rollout: Rollout, now: datetime) -> Rollout:
    """The rollout, a phase or a step further where it is time."""
    allowed = phases(target, observed)
    new, old = divide(observed, rollout.revision)
    if rollout.phase not in allowed:
        first = _first_phase(target, observed, rollout.revision)
        rollout = replace(rollout, phase=first, step=None, step_started=None, traffic=None)
        if rollout.phase == "Canary":
            rollout = replace(rollout, step=0, traffic=0)
    if rollout.phase == "Canary":
        return _canary(target, rollout, sum(p.ready for p in new), now)
    if _needs_outage(target, observed, rollout, new):
        return replace(rollout, needs_outage=True)
    if rollout.phase == "Surge" and old and "InPlace" in allowed:
        limit = timedelta(seconds=target.surge_timeout_s)
        for pod in new:
            if (
                pod.unschedulable_since
                and now >= pod.unschedulable_since + limit
                and _draining_helps(pod, old)
            ):
                return replace(rollout, phase="InPlace")
    return rollout


def _needs_outage(target: PoolTarget, observed: PoolObserved, rollout: Rollout, new: list[PodRecord]) -> bool:
    """Whether not enough of the new pods can be made while those that serve another release are kept."""
    replicas = target.replicas or 0
    release = observed.releases
    kept = {release.get(hash8) for hash8 in keeps(target, observed)} - {release.get(rollout.revision)}
    if not kept or not replicas:
        return False
    if rollout.phase == "Recreate":
        return True
    given_up = replicas - least(target, replicas)
    return rollout.phase == "InPlace" and max(given_up, sum(p.scheduled for p in new)) < least(
        target, replicas
    )


def _canary(target: PoolTarget, rollout: Rollout, ready: int, now: datetime) -> Rollout:
    share = canary_share(target, rollout)
    step = rollout.step or 0
    if share is None:  # the steps have been shortened meanwhile
        return _promoted(rollout)
    if rollout.step_started is None:
        if ready < canary_pods(target.replicas or 0, share)[0]:
            return rollout
        return replace(rollout, step=step, step_started=_stamp(now), traffic=share)
    if not _over(target, rollout, now) or not target.watched:
        return rollout
    if step + 1 == len(target.canary):
        return _promoted(rollout)
    return replace(rollout, step=step + 1, step_started=None)


def _promoted(rollout: Rollout) -> Rollout:
    return replace(rollout, phase="Surge", step=None, step_started=None, traffic=None)


def _condemned(
    target: PoolTarget, observed: PoolObserved, now: datetime, verdict: CanaryVerdict | None
) -> Quarantine | None:
    """The quarantine of the wanted revision, where it has failed and there is a good one."""
    memory = observed.memory
    if is_quarantined(target, memory) or not has_fallback(target, observed):
        return None
    rollout = memory.rollout
    found: tuple[str, str] | None = None
    new, _ = divide(observed, target.wanted)
    for pod in sorted((p for p in new if not p.may_serve), key=lambda p: p.name):
        found = found or _crashed(pod) or _overdue(pod, target, now)
    watched = rollout is not None and rollout.revision == target.wanted and target.strategy == CANARY
    if found is None and watched and verdict is not None and verdict.revision == target.wanted:
        found = "CanaryFailed", verdict.message or "the gateways' figures are worse than before"
    if found is None:
        return None
    return Quarantine(target.wanted, found[0], found[1], _stamp(now), target.ask)


def _crashed(pod: PodRecord) -> tuple[str, str] | None:
    """Reason and message where a pod's container has shown that it cannot run."""
    if pod.exit_code is None or pod.exit_reason in _NODE_REASONS or pod.exit_code == names.EXIT_UNAVAILABLE:
        return None
    if pod.unschedulable:
        return None  # a group of which a part has no node: the rest cannot but end
    if pod.exit_code == names.EXIT_CONFIGURATION:
        reason, message = last_words(pod.exit_message)
        return reason, f"{pod.name}: {message}"
    if pod.ends < CRASH_LOOP:
        return None
    if pod.exit_reason == "OOMKilled":
        return "OutOfMemory", f"{pod.name} used more memory than its limit, again and again"
    said = f": {first_line(pod.exit_message)}" if pod.exit_message else ""
    return "CrashLoopBackOff", f"{pod.name} ends again and again with exit code {pod.exit_code}{said}"


def _overdue(pod: PodRecord, target: PoolTarget, now: datetime) -> tuple[str, str] | None:
    since = _loading_since(pod)
    if since is None or now < since + timedelta(seconds=target.progress_deadline_s):
        return None
    return "ProgressDeadlineExceeded", f"{pod.name} was still loading at the end of rollout.progressDeadline"


def _loading_since(pod: PodRecord) -> datetime | None:
    """Since when a pod loads; None where it does not, or has served in this run of its container."""
    if pod.ready or not pod.live or pod.running_since is None:
        return None
    if pod.ready_changed is not None and pod.ready_changed > pod.running_since:
        return None
    return pod.running_since


def _draining_helps(pod: PodRecord, old: list[PodRecord]) -> bool:
    """Whether what the newcomer `pod` lacks is what `old` pods give back."""
    if GATED in pod.unschedulable:
        return any(p.queue == pod.queue for p in old if p.queue)
    return lacks_room(pod)


def lacks_room(pod: PodRecord) -> bool:
    """Whether a node would do for `pod` that had more of something free."""
    return any(words in pod.unschedulable for words in _ROOM)


def _stamp(now: datetime) -> datetime:
    return now.replace(microsecond=0)  # as it is stored
