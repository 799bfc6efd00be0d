"""Replicas that consist of several pods: a LeaderWorkerSet of one group each, and its pods.

What plans, counts and reports knows of replicas only. `replicas` makes one record of a group, as if it were a
pod: it bears the set's name and uid, it serves when the leader is ready and every other pod too, and of what
is wrong it has what the pod in the most trouble says.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from stepaudio_operator import names
from stepaudio_operator.records.pods import PodRecord
from stepaudio_operator.records.reading import integer, intern, latest


@dataclass(frozen=True, slots=True)
class GroupRecord:
    """A LeaderWorkerSet that `render.group` made."""

    namespace: str
    name: str
    uid: str
    pool: str
    size: int  # pods
    deleting: bool
    blank: PodRecord  # the replica as long as no pod is there

    @classmethod
    def from_raw(cls, raw: Mapping[str, Any]) -> GroupRecord:
        """Project a LeaderWorkerSet."""
        meta, template = raw["metadata"], (raw.get("spec") or {}).get("leaderWorkerTemplate") or {}
        pod = template.get("leaderTemplate") or {}
        return cls(
            namespace=intern(meta.get("namespace")),
            name=meta["name"],
            uid=meta.get("uid") or "",
            pool=intern((meta.get("labels") or {}).get(names.LABEL_POOL)),
            size=integer(template.get("size"), 1),
            deleting=meta.get("deletionTimestamp") is not None,
            blank=PodRecord.from_raw({"metadata": meta, "spec": pod.get("spec") or {}}),
        )


def replicas(groups: Iterable[GroupRecord], pods: Iterable[PodRecord]) -> tuple[PodRecord, ...]:
    """The replicas of a pool, by name: pods that are one each as they are, and a record of every group."""
    alone: list[PodRecord] = []
    members: dict[str, list[PodRecord]] = defaultdict(list)
    for pod in pods:
        if pod.group:
            members[pod.group].append(pod)
        else:
            alone.append(pod)
    known = {group.name: group for group in groups}
    for name in known.keys() | members.keys():
        group, its = known.get(name), sorted(members.get(name, ()), key=lambda p: p.name)
        alone.append(_left(name, its) if group is None else _whole(group, its))
    return tuple(sorted(alone, key=lambda p: p.name))


def _whole(group: GroupRecord, members: Sequence[PodRecord]) -> PodRecord:
    if not members:
        return replace(group.blank, deleting=group.deleting, group=group.name)
    leader = next((p for p in members if p.name == names.leader(group.name)), None)
    worst = min(members, key=_soundness)
    present = [p for p in members if p.live]
    return replace(
        worst,
        name=group.name,
        uid=group.uid,
        queue=group.blank.queue,
        attempt=group.blank.attempt,
        slot=group.blank.slot,
        phase="Running" if all(p.phase == "Running" for p in members) else "Pending",
        ready=len(present) == group.size and all(p.ready for p in present),
        unheard=len(present) == group.size
        and any(p.unheard for p in present)
        and all(p.may_serve for p in present),
        ready_changed=latest([p.ready_changed for p in members]),
        deleting=group.deleting,
        delete_by=latest([p.delete_by for p in members]),
        node=worst.node or next((p.node for p in members if p.node), ""),
        ip=leader.ip if leader is not None else "",
        created=group.blank.created,
        scheduled=len(present) == group.size and all(p.scheduled for p in present),
        running_since=_last_start(group, members),
        awaiting_since=min((p.awaiting_since for p in members if p.awaiting_since), default=None),
        ends=sum(p.ends for p in members),
        finished=None,
        group=group.name,
    )


def _left(name: str, members: Sequence[PodRecord]) -> PodRecord:
    """Of a group whose set is gone: its pods are on their way, whether or not they know it yet."""
    last = members[0]
    by = latest([p.delete_by for p in members])
    return replace(last, name=name, ready=False, unheard=False, deleting=True, delete_by=by, group=name)


_CONSEQUENCES = ("EngineFailed", "EngineStalled", "LeaderGone")
"""First words of a pod whose end may come of another one's; the last of them always does."""


def _soundness(pod: PodRecord) -> tuple[bool, int, bool, bool, str]:
    """The smallest is the pod that says most of what is wrong; the leader where nothing is."""
    return (not pod.failed, _end(pod), not pod.waiting, not pod.unschedulable, pod.name)


def _end(pod: PodRecord) -> int:
    """The smaller, the more the end of a pod's container says of why the group ended."""
    if pod.exit_code is None or pod.may_serve:
        return len(_CONSEQUENCES) + 1
    word = pod.exit_message.partition(":")[0]
    return _CONSEQUENCES.index(word) + 1 if word in _CONSEQUENCES else 0


def _last_start(group: GroupRecord, members: Sequence[PodRecord]) -> datetime | None:
    """Since when all of it runs: a leader that waits for the others does not load."""
    starts = [p.running_since for p in members if p.running_since is not None]
    return max(starts) if len(starts) == group.size else None
