"""What a pool does next, from what should be and what is: pure, no clock of its own, no I/O.

Two functions, called one after the other by every reconcile of a pool:

`decide` returns what the pool should remember (`memory.Memory`). Where that differs from what its status
holds, it is stored and nothing else is done; so a decision always stands in the status before it is acted on.
`plan_pool` returns the steps to take now, each with a reason in words, from the memory as stored. The
executor acts, the world changes, and the next plan starts from what is then: a crash between any two calls is
repaired by the next plan.

What is decided (`decisions.py`)
1. The **aim** is the revision that the spec asks for; while that one is quarantined, the last good one.
2. A revision is good once every replica of it serves at the same time, no other revision is left, and its
   release has taken over the traffic.
3. A revision that has yet to become good is quarantined where a pod of it ends again and again, loads for
   longer than `progressDeadline`, or fails as a canary. The clock of the deadline is the run of the pod's own
   container: waiting for a node, an image or a volume never counts, nor does a pod that has served before
   (its node may be gone). What something outside the pod caused never counts either. Without a good revision
   to go back to nothing is quarantined. A quarantine ends when the spec or the annotation `retry` changes.
4. A rollout begins when pods of another revision than the aim are left. Its phase is the strategy's way;
   Auto begins as Surge and becomes InPlace when the newcomer has found no node for `surgeTimeout` and the
   scheduler lacks what an old pod holds, or when a ResourceQuota has had no room for it for so long since the
   rollout began (`without_surge`). The way back from a quarantine is InPlace, without a surge.
5. A canary goes through its steps: first the pods that a share needs, then the share, then the pause.

What is planned for pods (`pods.py`)
1. The revision is stored before any pod is made from it.
2. There are at most `replicas` pods, one more while old ones are left. A pod that is going away still holds
   its GPUs: its place is filled when it is gone, or when its grace period has passed and it still is not.
3. A pod that has ended for good (evicted, refused by its node) is replaced after a delay that doubles with
   every failure in a row. The count is carried by the pods themselves: the replacement is created, with
   the count in an annotation, before the failed pod is removed, so it survives any crash.
4. Replicas that are too many go: those that do not serve first, then old revisions, then the highest slot.
5. Old pods that serve go only while enough others do, whatever their revision: never below `replicas` in a
   surge or a canary, never below `replicas - maxUnavailable` in place. So edits in quick succession cannot
   take all replicas down, and going back to a revision keeps its pods. Old pods that do not serve go first,
   one at a time; one whose node is not heard may serve, and goes only while enough others do.
6. Recreate takes all old pods away at once and makes the new ones when they are gone.
7. While a change of release is prepared (`names.ANNOTATION_KEEP`), only the kept revisions serve: those of
   one release are a set of their own, and the new revision is made beside them, as many pods as there is
   room for; what is of neither release serves nobody and goes. In place, at most `maxUnavailable` of the kept
   ones make room, and never the last. Where that cannot come to enough new pods, the status says so
   (`needsOutage`); when nothing is kept any more after that, the old pods serve nobody and go all at once.
   A TTS pool may have to keep some for the tokenizer that was in them: that is no change of release.
8. Where models lie on the nodes' disks, a pod that takes the place of one that went before it is kept to the
   nodes that have its models; after `surgeTimeout` without room there it is made anew, without that.
9. Revisions beyond the history limit that nothing may need are removed.

A replica may be a group of several pods (`records/groups.py`): it counts, is made and goes like a pod. What
it needs beside that stands in `groups.py`.

The gateway is a Deployment: its steps are ApplyWorkload, and Kubernetes does the rest.
"""

from stepaudio_operator.plan.decisions import decide, without_surge
from stepaudio_operator.plan.pool import plan_pool, pool_target
from stepaudio_operator.plan.steps import (
    ApplyWorkload,
    CreatePod,
    CreateRevision,
    DeletePod,
    DeleteRevision,
    PoolTarget,
    Step,
    Wait,
)

__all__ = [
    "ApplyWorkload",
    "CreatePod",
    "CreateRevision",
    "DeletePod",
    "DeleteRevision",
    "PoolTarget",
    "Step",
    "Wait",
    "decide",
    "plan_pool",
    "pool_target",
    "without_surge",
]
