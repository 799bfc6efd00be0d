"""What only replicas of several pods need: that a group goes as a whole, and never holds GPUs by halves.

1. When a pod of a group is taken away (an eviction, a drained node), the whole group is: the leader hears in
   time that it leaves, and ends what is in flight while the others still compute for it.
2. A group of which some pods have a node and others find none holds GPUs for nothing. It has `surgeTimeout`,
   in which a rollout may still make room, and `PATIENCE`; then it is taken away, and another one is made. So
   two groups that each hold what the other one lacks come free of each other. A queue that admits groups
   whole (Kueue) never lets it come to that.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime, timedelta

from stepaudio_operator.plan.steps import DeletePod, PoolTarget, Step, Wait
from stepaudio_operator.records import PodRecord

PATIENCE = timedelta(minutes=1)


def plan_groups(target: PoolTarget, replicas: Iterable[PodRecord], now: datetime) -> list[Step]:
    """The groups to take away, and when to look again."""
    steps: list[Step] = []
    limit = timedelta(seconds=target.surge_timeout_s) + PATIENCE
    for group in sorted((r for r in replicas if r.group and r.live), key=lambda r: r.name):
        if group.delete_by is not None:
            steps.append(
                DeletePod(group.name, group.uid, "one of its pods is taken away, and all go with it")
            )
        elif group.unschedulable_since is not None and group.node:
            left = (group.unschedulable_since + limit - now).total_seconds()
            if left > 0:
                steps.append(Wait(left, "a part of a group waits for a node"))
            else:
                reason = f"a part of it found no node for {limit.total_seconds():.0f} s, the rest holds GPUs"
                steps.append(DeletePod(group.name, group.uid, reason))
    return steps
