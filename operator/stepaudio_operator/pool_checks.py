"""What keeps a pool from being ready: ordered pure checks, the first that finds something speaks."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from stepaudio_operator import names
from stepaudio_operator.conditions import (
    DOWNLOADING,
    PAUSED,
    UNSCHEDULABLE,
    WAITING_FOR_CAPACITY,
    WAITING_FOR_QUOTA,
    Verdict,
    first_line,
    last_words,
    refusal,
)
from stepaudio_operator.failures import NEVER, diagnose, diagnose_pod
from stepaudio_operator.failures import message as failure_message
from stepaudio_operator.loading import in_words
from stepaudio_operator.memory import Memory
from stepaudio_operator.plan.decisions import CRASH_LOOP, GATED, lacks_room
from stepaudio_operator.records import PodRecord, WorkloadRecord
from stepaudio_operator.spec.pool import PoolSpec

# Reasons of a waiting container that no time alone cures.
_IMAGE_REASONS = frozenset({"ImagePullBackOff", "ErrImagePull", "InvalidImageName", "ErrImageNeverPull"})
_CONFIG_REASONS = frozenset({"CreateContainerConfigError", "CreateContainerError", "RunContainerError"})
_CLAIM_MISSING = re.compile(r'persistentvolumeclaim "([^"]+)" not found')
# Why no node may take a pod, by the scheduler's words, and what to do. Its counts of nodes come and go with
# them; these sentences stay.
_UNPLACED = (
    (
        ("unbound immediate PersistentVolumeClaims", "find available persistent volumes to bind"),
        "a claim that it mounts has no volume yet: the claim's events say why",
    ),
    (
        ("volume node affinity conflict",),
        "a volume that it mounts can be used on none of the nodes where it may be: choose others with"
        " podTemplate.nodeSelector, or a claim that nodes share",
    ),
    (
        ("match Pod's node affinity",),
        "nodes do not match podTemplate.nodeSelector, podTemplate.affinity, gpu.products or"
        " gpu.requireMemory: correct these, or label a node",
    ),
    (
        ("untolerated taint", "the pod didn't tolerate"),
        "nodes have taints that podTemplate.tolerations does not name: name them there",
    ),
    (
        ("topology spread constraints",),
        "podTemplate.topologySpreadConstraints keep it off nodes: allow more skew, or ScheduleAnyway",
    ),
    (("node(s) were unschedulable",), "nodes are cordoned: uncordon one"),
)


@dataclass(frozen=True)
class PoolState:
    """Everything that a pool's checks may look at."""

    name: str
    spec: PoolSpec
    wanted: str  # revision that the spec asks for
    hash8: str  # revision that the pool works towards
    condemned: bool  # its release has failed in another pool, or is given up
    memory: Memory
    pods: tuple[PodRecord, ...]  # neither ended nor going
    leaving: int
    failed: tuple[PodRecord, ...]
    workload: WorkloadRecord | None
    problem: tuple[str, str] | None
    budget_spent: bool  # no pod is made anew elsewhere for now
    left_undone: str | None  # why something would be done, were the deployment not paused
    loading: tuple[Mapping[str, Any], ...]  # how far pods are with their models, as the status says it
    unseen: bool  # a canary's step is over, and nobody could say what became of its requests


def _refused(state: PoolState) -> Verdict | None:
    if state.problem is None:
        return None
    return refusal(state.problem)


def _undecided(state: PoolState) -> Verdict | None:
    if state.spec.replicas is not None:
        return None
    return Verdict("ReplicasUndecided", "waits until somebody sets spec.replicas")


def _paused(state: PoolState) -> Verdict | None:
    if state.left_undone is None:
        return None
    return Verdict(PAUSED, f"paused, else something would be done: {state.left_undone}", stalled=True)


def _quarantined(state: PoolState) -> Verdict | None:
    for entry in state.memory.quarantined:
        if entry.revision == state.wanted:
            back = f"revision {state.hash8} takes its place"
            then = back if state.hash8 != state.wanted else "it goes no further"
            return Verdict(
                "RevisionQuarantined",
                f"revision {entry.revision} has failed ({entry.reason}: {entry.message}); {then}: change the"
                f" spec, or set the annotation {names.ANNOTATION_RETRY} to another value",
                stalled=True,
            )
    if state.condemned:
        return Verdict(
            "ReleaseFailed",
            f"the release of revision {state.wanted} has failed in another pool, or is given up:"
            f" {state.hash8} takes its place",
            stalled=True,
        )
    return None


def _model_files(state: PoolState) -> Verdict | None:
    """A pod said, in its last words, what a person has to change."""
    for pod in _unready(state):
        if pod.exit_code == names.EXIT_CONFIGURATION:
            reason, message = last_words(pod.exit_message)
            return Verdict(reason, f"{pod.name}: {message}", stalled=True)
    return None


def _images(state: PoolState) -> Verdict | None:
    for pod in _unready(state):
        if pod.waiting in _IMAGE_REASONS:
            # The kubelet alternates between the two while it tries; the status stays calm.
            reason = "ImagePullBackOff" if pod.waiting == "ErrImagePull" else pod.waiting
            return Verdict(
                reason,
                f"{pod.name}: image {pod.image} cannot be pulled: check runtime.version, runtime.registry and"
                " podTemplate.imagePullSecrets",
                stalled=True,
            )
        if pod.waiting in _CONFIG_REASONS:
            return Verdict(pod.waiting, f"{pod.name}: {pod.waiting_message}", stalled=True)
    return None


def _crashes(state: PoolState) -> Verdict | None:
    for pod in _unready(state):
        if pod.unschedulable:
            continue  # a group of which a part has no node: the rest cannot but end
        # The kubelet's word for it comes and goes with every start; the count stays.
        again = pod.waiting == "CrashLoopBackOff" or pod.ends >= CRASH_LOOP
        if (row := diagnose(pod)) is not None:
            elsewhere = row.retry == "Elsewhere" and not state.budget_spent
            stalled = row.retry == NEVER or (again and not elsewhere)
            return Verdict(row.reason, failure_message(pod, row), stalled=stalled)
        if pod.exit_code is not None and again:
            said = f": {first_line(pod.exit_message)}" if pod.exit_message else ""
            return Verdict(
                "CrashLoopBackOff",
                f"{pod.name} ends again and again with exit code {pod.exit_code}{said}",
                stalled=True,
            )
    return None


def _refused_by_node(state: PoolState) -> Verdict | None:
    if not state.failed or len(state.pods) >= (state.spec.replicas or 0):
        return None
    pod = min(state.failed, key=lambda p: p.name)
    if pod.phase == "Succeeded":
        # It drained and ended in peace, which the kubelet lets no pod of a pool do unless it takes the pod
        # away; and then it names no reason in the status.
        return Verdict(
            "Evicted", f"{pod.name} was taken away by its node and will be replaced: its events say why"
        )
    row = diagnose_pod(pod)
    reason = row.reason if row else pod.reason or pod.exit_reason or "PodFailed"
    return Verdict(reason, f"{pod.name} has ended and will be replaced: {first_line(pod.message) or reason}")


def _queued(state: PoolState) -> Verdict | None:
    """Held back before the scheduler sees it; Kueue takes its gate away when the quota has room."""
    held = [p.name for p in state.pods if GATED in p.unschedulable]
    if not held:
        return None
    template = state.spec.pod_template
    queue = (
        f"queue {template.queue.name}"
        if template is not None and template.queue is not None
        else "its scheduling gates"
    )
    return Verdict(WAITING_FOR_QUOTA, f"{', '.join(held[:4])}: held back by {queue}")


def _capacity(state: PoolState) -> Verdict | None:
    waiting = [p for p in state.pods if p.unschedulable]
    if not waiting:
        return None
    if not any(map(lacks_room, waiting)):
        return Verdict(UNSCHEDULABLE, _unplaced(" ".join(p.unschedulable for p in waiting)))
    needs = "no node has room for a replica"
    if state.spec.gpu_count:
        needs = f"a replica needs {state.spec.gpu_words} and no node has that free"
    return Verdict(WAITING_FOR_CAPACITY, f"{needs}: the scheduler's words are in the pods' events")


def _unplaced(said: str) -> str:
    """What the scheduler `said` of pods that room alone does not help, and the cure."""
    missing = sorted(set(_CLAIM_MISSING.findall(said)))
    found = [
        f"claim {name} is not there: make it, or correct its name in models.source, voices.store or"
        " podTemplate.volumes"
        for name in missing
    ]
    found += [cure for words, cure in _UNPLACED if any(each in said for each in words)]
    why = "; ".join(found) or "the scheduler finds none"
    return f"no node may take a replica: {why}; the scheduler's own words are in the pods' events"


def _workload_trouble(state: PoolState) -> Verdict | None:
    work = state.workload
    if work is None or work.observed_generation != work.generation:
        return None
    if work.replica_failure is not None and work.replica_failure.status == "True":
        return Verdict(work.replica_failure.reason, first_line(work.replica_failure.message), stalled=True)
    if work.progressing is not None and work.progressing.reason == "ProgressDeadlineExceeded":
        return Verdict("ProgressDeadlineExceeded", f"Deployment {work.name} makes no progress", stalled=True)
    return None


def _unseen(state: PoolState) -> Verdict | None:
    if not state.unseen or state.memory.rollout is None:
        return None
    step = (state.memory.rollout.step or 0) + 1
    return Verdict(
        "CanaryUnseen",
        f"step {step} of the canary is over, but no gateway can be asked what became of the requests to"
        f" revision {state.hash8}: it goes on when one answers",
    )


def _unheard(state: PoolState) -> Verdict | None:
    """A pod is not ready only because its node counts as lost."""
    lost = sorted((p for p in state.pods if p.unheard), key=lambda p: p.name)
    if not lost:
        return None
    who = ", ".join(f"{p.name} on {p.node}" for p in lost[:4])
    return Verdict(
        "NodeNotReady",
        f"the cluster does not hear the node of {who}, which served when it last did and is asked on; it is"
        " replaced when Kubernetes evicts it",
    )


def _awaiting(state: PoolState) -> Verdict | None:
    """A pod has come to a node that has yet to get its models."""
    waiting = [p for p in _unready(state) if p.awaiting_since is not None]
    if not waiting:
        return None
    who = ", ".join(f"{p.name} for models on node {p.node}" for p in waiting[:4])
    return Verdict(DOWNLOADING, f"waits: {who}; status.cache of {state.spec.deployment} says how far")


def _rolling(state: PoolState) -> Verdict | None:
    if all(p.revision == state.hash8 for p in state.pods):
        return None
    how, rollout = "", state.memory.rollout
    if rollout is not None and rollout.phase == "InPlace":
        how = " in place"
    elif rollout is not None and rollout.phase == "Canary":
        how = f", step {(rollout.step or 0) + 1} of the canary, {rollout.traffic}% of the requests"
    done = in_words(state.loading, _unready(state))
    return Verdict("RollingOut", f"pods are being replaced by revision {state.hash8}{how}{done}")


def _workload_rolling(state: PoolState) -> Verdict | None:
    work = state.workload
    if state.spec.component != names.GATEWAY:
        return None
    if work is None:
        return Verdict("Creating", "the Deployment is being made")
    if work.is_settled(state.hash8, state.spec.replicas):
        return None
    return Verdict("RollingOut", f"the Deployment moves to revision {state.hash8}")


def _scaling(state: PoolState) -> Verdict | None:
    wanted = state.spec.replicas or 0
    if len(state.pods) == wanted and not state.leaving:
        return None
    return Verdict("Scaling", f"the pool is on its way to {wanted} replicas")


def _loading(state: PoolState) -> Verdict | None:
    unready = _unready(state)
    if not unready:
        return None
    who = ", ".join(p.name for p in unready[:4])
    return Verdict("PodsNotReady", f"waits until {who} can serve{in_words(state.loading, unready)}")


def _pool_ready(state: PoolState) -> Verdict | None:
    wanted = state.spec.replicas or 0
    if wanted == 0 and state.spec.autoscaling is not None:
        return Verdict("Asleep", "nobody has asked for anything: a request wakes it", ready=True)
    if wanted == 0:
        return Verdict("ScaledToZero", "no replicas are wanted", ready=True)
    return Verdict("AllReplicasReady", f"{wanted} of {wanted} replicas serve", ready=True)


POOL_CHECKS: Sequence[Callable[[PoolState], Verdict | None]] = (
    _refused,
    _undecided,
    _paused,
    _quarantined,
    _model_files,
    _images,
    _crashes,
    _refused_by_node,
    _queued,
    _capacity,
    _workload_trouble,
    _unseen,
    _unheard,
    _awaiting,
    _rolling,
    _workload_rolling,
    _scaling,
    _loading,
    _pool_ready,
)


def _unready(state: PoolState) -> list[PodRecord]:
    """Pods that do not serve, those of the newest revision first."""
    return sorted(
        (p for p in state.pods if not p.may_serve), key=lambda p: (p.revision != state.hash8, p.name)
    )
