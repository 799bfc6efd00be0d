"""Slim, frozen projections of what exists in the cluster: all that planning and status ever read.

A record is made once from a raw API object and the raw object is dropped, so that a thousand deployments
fit in the operator's memory. Every class has `from_raw(raw) -> record`, which never raises on an object
that the API server accepted.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from stepaudio_operator import names
from stepaudio_operator.memory import Memory

_MESSAGE_LIMIT = 1024  # characters kept of a message; a termination message may hold 4096


@dataclass(frozen=True, slots=True)
class PodRecord:
    """A pod of a pool. Times are UTC; `None` where it has not happened."""

    namespace: str
    name: str
    uid: str
    pool: str
    component: str
    revision: str  # 8 hex digits; "" on a pod that carries none
    slot: int  # -1 on a pod that carries none (gateway pods)
    attempt: int  # failures in a row before this pod
    phase: str  # Pending, Running, Succeeded, Failed, Unknown
    ready: bool
    ready_changed: datetime | None  # when it became ready, or stopped being so
    deleting: bool
    delete_by: datetime | None  # when its grace period ends
    node: str
    ip: str
    created: datetime | None
    scheduled: bool
    unschedulable: str  # the scheduler's message while it finds no node, else ""
    unschedulable_since: datetime | None
    waiting: str  # reason of the main container while it waits: ImagePullBackOff, CrashLoopBackOff...
    waiting_message: str
    running_since: datetime | None  # start of the main container, while it runs
    exit_code: int | None  # of the last termination of the main container
    exit_reason: str  # OOMKilled, Error, Completed...
    exit_message: str  # its termination message
    restarts: int
    reason: str  # of the pod itself: Evicted, UnexpectedAdmissionError...
    message: str
    finished: datetime | None  # when a Failed or Succeeded pod ended
    started: datetime | None  # when the kubelet took it

    @property
    def failed(self) -> bool:
        """Whether it has ended for good; a pod of a pool never ends by itself in peace."""
        return self.phase in ("Failed", "Succeeded")

    @property
    def live(self) -> bool:
        """Whether it counts as a replica: neither ended nor on its way out."""
        return not self.failed and not self.deleting

    @classmethod
    def from_raw(cls, raw: Mapping[str, Any]) -> PodRecord:
        """Project a Pod."""
        meta, status = raw["metadata"], raw.get("status") or {}
        labels, annotations = meta.get("labels") or {}, meta.get("annotations") or {}
        conditions = {c["type"]: c for c in status.get("conditions") or ()}
        scheduled = conditions.get("PodScheduled", {})
        main = _main_container(status)
        waiting = (main.get("state") or {}).get("waiting") or {}
        ended = (main.get("state") or {}).get("terminated") or (main.get("lastState") or {}).get("terminated")
        ended = ended or {}
        finished = None
        if status.get("phase") in ("Failed", "Succeeded"):
            finished = _latest(
                [_time(ended.get("finishedAt"))]
                + [_time(c.get("lastTransitionTime")) for c in conditions.values()]
            )
        return cls(
            namespace=_intern(meta.get("namespace")),
            name=meta["name"],
            uid=meta.get("uid") or "",
            pool=_intern(labels.get(names.LABEL_POOL)),
            component=_intern(labels.get(names.LABEL_COMPONENT)),
            revision=_intern(labels.get(names.LABEL_REVISION)),
            slot=_int(annotations.get(names.ANNOTATION_SLOT), -1),
            attempt=_int(annotations.get(names.ANNOTATION_ATTEMPT), 0),
            phase=_intern(status.get("phase") or "Pending"),
            ready=conditions.get("Ready", {}).get("status") == "True",
            ready_changed=_time(conditions.get("Ready", {}).get("lastTransitionTime")),
            deleting=meta.get("deletionTimestamp") is not None,
            delete_by=_time(meta.get("deletionTimestamp")),
            node=_intern((raw.get("spec") or {}).get("nodeName")),
            ip=status.get("podIP") or "",
            created=_time(meta.get("creationTimestamp")),
            scheduled=scheduled.get("status") == "True" or bool((raw.get("spec") or {}).get("nodeName")),
            unschedulable=(
                _text(scheduled.get("message") or scheduled.get("reason"))
                if scheduled.get("status") == "False"
                else ""
            ),
            unschedulable_since=(
                _time(scheduled.get("lastTransitionTime")) if scheduled.get("status") == "False" else None
            ),
            waiting=_intern(waiting.get("reason")),
            waiting_message=_text(waiting.get("message")),
            running_since=_time(((main.get("state") or {}).get("running") or {}).get("startedAt")),
            exit_code=ended.get("exitCode"),
            exit_reason=_intern(ended.get("reason")),
            exit_message=_text(ended.get("message")),
            restarts=int(main.get("restartCount") or 0),
            reason=_intern(status.get("reason")),
            message=_text(status.get("message")),
            finished=finished,
            started=_time(status.get("startTime")),
        )


@dataclass(frozen=True, slots=True)
class ConditionRecord:
    """One condition of a resource's status."""

    status: str  # True, False, Unknown
    reason: str
    message: str


@dataclass(frozen=True, slots=True)
class DeploymentRecord:
    """What its pools have to know of a StepAudioDeployment."""

    paused: bool

    @classmethod
    def from_raw(cls, raw: Mapping[str, Any]) -> DeploymentRecord:
        """Project a StepAudioDeployment (also one whose spec does not parse)."""
        return cls(paused=(raw.get("spec") or {}).get("paused") is True)


@dataclass(frozen=True, slots=True)
class Traffic:
    """What a pool wants of the gateways: `share` per cent of its requests go to `revision`, the rest to
    `stable`. Where one of the two has no ready pod, the other takes all.
    """

    revision: str
    share: int
    stable: str


@dataclass(frozen=True, slots=True)
class CanaryVerdict:
    """What the gateways' figures say of a canary that failed: `message` is for people, in one line."""

    revision: str
    message: str

    @classmethod
    def from_annotation(cls, text: str | None) -> CanaryVerdict | None:
        """Reads the value of `names.ANNOTATION_CANARY_FAILED`."""
        revision, _, message = (text or "").partition(" ")
        return cls(_intern(revision), _text(message)) if revision else None

    def to_annotation(self) -> str:
        """The value of `names.ANNOTATION_CANARY_FAILED`."""
        return f"{self.revision} {self.message}"


@dataclass(frozen=True, slots=True)
class PoolRecord:
    """A StepAudioPool as its deployment sees it: what was asked for and what its status says."""

    namespace: str
    name: str
    uid: str
    deployment: str
    component: str
    owner_uid: str  # uid of the controlling owner, "" where there is none
    generation: int
    deleting: bool
    replicas: int | None  # None: nobody has said
    replicas_owned: bool  # whether the operator's own field manager holds spec.replicas
    runtime_version: str
    runtime_registry: str | None  # None: not decided; "" is a decision for no registry
    observed_generation: int
    status_replicas: int
    ready_replicas: int
    updated_replicas: int
    revision: str  # what the pool works towards, "" before its first reconcile; after a rollback the good one
    wanted: str  # revision that its spec asks for, "" before its first reconcile
    good_revision: str  # the last one of which every replica served, "" before the first
    canary_failed: CanaryVerdict | None  # as its deployment has said
    revisions: Mapping[str, int]  # revision -> ready pods
    ready: ConditionRecord | None
    stalled: ConditionRecord | None
    traffic: Traffic | None  # None: by the number of ready pods
    quarantined: tuple[str, ...]  # revisions that failed
    outage_needed: bool  # it cannot change its release without ending the last pod that serves
    keep: tuple[str, ...]  # revisions that its deployment told it to keep serving

    @property
    def current(self) -> bool:
        """Whether its status speaks of the newest spec."""
        return self.observed_generation == self.generation

    @classmethod
    def from_raw(cls, raw: Mapping[str, Any]) -> PoolRecord:
        """Project a StepAudioPool (also one whose spec does not parse)."""
        meta, spec, status = raw["metadata"], raw.get("spec") or {}, raw.get("status") or {}
        labels, annotations = meta.get("labels") or {}, meta.get("annotations") or {}
        runtime = spec.get("runtime") or {}
        conditions = _conditions(status)
        memory = Memory.from_status(status)
        return cls(
            namespace=_intern(meta.get("namespace")),
            name=meta["name"],
            uid=meta.get("uid") or "",
            deployment=_intern(spec.get("deployment") or labels.get(names.LABEL_DEPLOYMENT)),
            component=_intern(spec.get("component") or labels.get(names.LABEL_COMPONENT)),
            owner_uid=_controller_uid(meta),
            generation=int(meta.get("generation") or 0),
            deleting=meta.get("deletionTimestamp") is not None,
            replicas=spec.get("replicas"),
            replicas_owned=_manages(meta, names.FIELD_MANAGER, ("f:spec", "f:replicas")),
            runtime_version=_intern(runtime.get("version")),
            runtime_registry=runtime.get("registry"),
            observed_generation=int(status.get("observedGeneration") or 0),
            status_replicas=int(status.get("replicas") or 0),
            ready_replicas=int(status.get("readyReplicas") or 0),
            updated_replicas=int(status.get("updatedReplicas") or 0),
            revision=_intern(status.get("revision")),
            wanted=_intern(status.get("wantedRevision")),
            good_revision=_intern(memory.good),
            canary_failed=CanaryVerdict.from_annotation(annotations.get(names.ANNOTATION_CANARY_FAILED)),
            revisions={r["name"]: int(r.get("ready") or 0) for r in status.get("revisions") or ()},
            ready=conditions.get("Ready"),
            stalled=conditions.get("Stalled"),
            traffic=_traffic(memory),
            quarantined=tuple(_intern(entry.revision) for entry in memory.quarantined),
            outage_needed=memory.rollout is not None and memory.rollout.needs_outage,
            keep=tuple(r for r in (annotations.get(names.ANNOTATION_KEEP) or "").split(",") if r),
        )


@dataclass(frozen=True, slots=True)
class RevisionRecord:
    """A ControllerRevision of a pool, with its template: it is applied verbatim, whoever rendered it.

    `data` is the stored object (`render.pool.revision` says what is in it); it is kept whole because a pod
    may have to be made from it at any time.
    """

    namespace: str
    name: str
    uid: str
    pool: str
    hash8: str
    number: int  # order of creation within the pool, from 1
    inputs: str  # sha256 of the inputs
    data: Mapping[str, Any] = field(repr=False)
    release: str = ""  # which pods it may work with (`border.Release`)

    @classmethod
    def from_raw(cls, raw: Mapping[str, Any]) -> RevisionRecord:
        """Project a ControllerRevision that `render.pool.controller_revision` made."""
        meta = raw["metadata"]
        labels, annotations = meta.get("labels") or {}, meta.get("annotations") or {}
        return cls(
            namespace=_intern(meta.get("namespace")),
            name=meta["name"],
            uid=meta.get("uid") or "",
            pool=_intern(labels.get(names.LABEL_POOL)),
            hash8=_intern(labels.get(names.LABEL_REVISION)),
            number=int(raw.get("revision") or 0),
            inputs=annotations.get(names.ANNOTATION_INPUTS) or "",
            release=_intern(annotations.get(names.ANNOTATION_RELEASE)),
            data=raw.get("data") or {},
        )


@dataclass(frozen=True, slots=True)
class WorkloadRecord:
    """The gateway's Deployment."""

    namespace: str
    name: str
    uid: str
    pool: str
    revision: str  # of its pod template
    generation: int
    observed_generation: int
    replicas: int  # asked for
    total_replicas: int
    updated_replicas: int
    ready_replicas: int
    progressing: ConditionRecord | None
    replica_failure: ConditionRecord | None  # the API server refuses its pods

    @classmethod
    def from_raw(cls, raw: Mapping[str, Any]) -> WorkloadRecord:
        """Project a Deployment that `render.pool.gateway_deployment` made."""
        meta, spec, status = raw["metadata"], raw.get("spec") or {}, raw.get("status") or {}
        template = (spec.get("template") or {}).get("metadata") or {}
        conditions = _conditions(status)
        return cls(
            namespace=_intern(meta.get("namespace")),
            name=meta["name"],
            uid=meta.get("uid") or "",
            pool=_intern((meta.get("labels") or {}).get(names.LABEL_POOL)),
            revision=_intern((template.get("labels") or {}).get(names.LABEL_REVISION)),
            generation=int(meta.get("generation") or 0),
            observed_generation=int(status.get("observedGeneration") or 0),
            replicas=1 if spec.get("replicas") is None else int(spec["replicas"]),
            total_replicas=int(status.get("replicas") or 0),
            updated_replicas=int(status.get("updatedReplicas") or 0),
            ready_replicas=int(status.get("readyReplicas") or 0),
            progressing=conditions.get("Progressing"),
            replica_failure=conditions.get("ReplicaFailure"),
        )


@dataclass(frozen=True)
class PoolObserved:
    """What exists of a pool. `workload` is the gateway's Deployment, `memory` what its status holds."""

    pods: tuple[PodRecord, ...] = ()
    revisions: tuple[RevisionRecord, ...] = ()
    workload: WorkloadRecord | None = None
    memory: Memory = field(default_factory=Memory)


@dataclass(frozen=True)
class RoutedPool:
    """Where one component is served: weights in per cent by revision."""

    service: str
    port: int
    revisions: Mapping[str, int]


@dataclass(frozen=True)
class Routing:
    """The routing object that gateways read. `serving` false is a declared outage with `retry_after_s`."""

    generation: int
    release: str
    serving: bool
    retry_after_s: int | None
    pools: Mapping[str, RoutedPool]


def _traffic(memory: Memory) -> Traffic | None:
    rollout = memory.rollout
    if rollout is None or rollout.traffic is None:
        return None
    return Traffic(rollout.revision, rollout.traffic, rollout.stable)


def _main_container(status: Mapping[str, Any]) -> Mapping[str, Any]:
    """Status of our container; a sidecar that somebody injected does not speak for the pod."""
    for container in status.get("containerStatuses") or ():
        if container.get("name") == names.CONTAINER:
            return container
    return {}


def _conditions(status: Mapping[str, Any]) -> dict[str, ConditionRecord]:
    return {
        c["type"]: ConditionRecord(
            _intern(c.get("status")), _intern(c.get("reason")), _text(c.get("message"))
        )
        for c in status.get("conditions") or ()
    }


def _controller_uid(meta: Mapping[str, Any]) -> str:
    for owner in meta.get("ownerReferences") or ():
        if owner.get("controller"):
            return owner.get("uid") or ""
    return ""


def _manages(meta: Mapping[str, Any], manager: str, path: tuple[str, ...]) -> bool:
    """Whether `manager` holds the field at `path` by server-side apply."""
    for entry in meta.get("managedFields") or ():
        if entry.get("manager") != manager or entry.get("operation") != "Apply":
            continue
        fields: Any = entry.get("fieldsV1") or {}
        for step in path:
            fields = fields.get(step) if isinstance(fields, Mapping) else None
            if fields is None:
                break
        else:
            return True
    return False


def _intern(value: Any) -> str:
    # Names, labels and reasons repeat over thousands of records; one string object each saves memory.
    return sys.intern(value) if isinstance(value, str) else ""


def _text(value: Any) -> str:
    return str(value)[:_MESSAGE_LIMIT] if value else ""


def _int(value: Any, default: int) -> int:
    try:
        return int(value)
    except (TypeError, ValueError):
        return default


def _time(value: Any) -> datetime | None:
    """An RFC 3339 time of the API server as UTC."""
    if not isinstance(value, str) or not value:
        return None
    return datetime.fromisoformat(value.replace("Z", "+00:00")).astimezone(UTC)


def _latest(times: list[datetime | None]) -> datetime | None:
    return max((t for t in times if t is not None), default=None)
