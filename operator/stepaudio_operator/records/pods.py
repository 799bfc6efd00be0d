"""A pod of a pool."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from stepaudio_operator import names
from stepaudio_operator.records.reading import integer, intern, latest, text
from stepaudio_operator.times import moment


@dataclass(frozen=True, slots=True)
class PodRecord:
    """A pod of a pool. Times are UTC; `None` where it has not happened."""

    namespace: str
    name: str
    uid: str
    pool: str
    component: str
    revision: str  # 8 hex digits; "" on a pod that carries none
    image: str  # of the main container, as it was asked for
    queue: str  # of Kueue, by which it is admitted; "" for none
    slot: int  # -1 on a pod that carries none (gateway pods)
    attempt: int  # failures in a row before this pod
    phase: str  # Pending, Running, Succeeded, Failed, Unknown
    ready: bool
    ready_changed: datetime | None  # when it became ready, or stopped being so
    unheard: bool  # called not ready because its node is not heard; its containers were when it last was
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
    ends: int  # of the main container so far: the kubelet counts one when the container runs again
    reason: str  # of the pod itself: Evicted, UnexpectedAdmissionError...
    message: str
    finished: datetime | None  # when a Failed or Succeeded pod ended
    started: datetime | None  # when the kubelet took it
    folder: str  # of its models, where they lie on the node's own disk
    awaiting_since: datetime | None  # since when it waits for them there
    bound: bool  # whether it may only be on nodes that had its models when it was made
    group: str = ""  # of several pods that are one replica: the LeaderWorkerSet's name

    @property
    def failed(self) -> bool:
        """Whether it has ended for good; a pod of a pool never ends by itself in peace."""
        return self.phase in ("Failed", "Succeeded")

    @property
    def live(self) -> bool:
        """Whether it counts as a replica: neither ended nor on its way out."""
        return not self.failed and not self.deleting

    @property
    def may_serve(self) -> bool:
        """Whether it serves, or did when its node was last heard: nothing of its past speaks against it."""
        return self.ready or self.unheard

    @classmethod
    def from_raw(cls, raw: Mapping[str, Any]) -> PodRecord:
        """Project a Pod."""
        meta, spec, status = raw["metadata"], raw.get("spec") or {}, raw.get("status") or {}
        labels, annotations = meta.get("labels") or {}, meta.get("annotations") or {}
        conditions = {c["type"]: c for c in status.get("conditions") or ()}
        scheduled = conditions.get("PodScheduled", {})
        main = _container(status.get("containerStatuses"), names.CONTAINER) or {}
        first = _container(status.get("initContainerStatuses"), names.WAITING_CONTAINER) or {}
        waiting = (main.get("state") or {}).get("waiting") or {}
        # What the first container lacks (its image, a volume) the pod lacks.
        waiting = (first.get("state") or {}).get("waiting") or waiting
        ended = (main.get("state") or {}).get("terminated") or (main.get("lastState") or {}).get("terminated")
        ended = ended or {}
        running = (main.get("state") or {}).get("running")
        finished = None
        if status.get("phase") in ("Failed", "Succeeded"):
            finished = latest(
                [moment(ended.get("finishedAt"))]
                + [moment(c.get("lastTransitionTime")) for c in conditions.values()]
            )
        return cls(
            namespace=intern(meta.get("namespace")),
            name=meta["name"],
            uid=meta.get("uid") or "",
            pool=intern(labels.get(names.LABEL_POOL) or labels.get(names.LABEL_WORKER_OF)),
            component=intern(labels.get(names.LABEL_COMPONENT)),
            revision=intern(labels.get(names.LABEL_REVISION)),
            image=intern(str((_container(spec.get("containers"), names.CONTAINER) or {}).get("image") or "")),
            queue=intern(labels.get(names.LABEL_QUEUE)),
            slot=integer(annotations.get(names.ANNOTATION_SLOT), -1),
            attempt=integer(annotations.get(names.ANNOTATION_ATTEMPT), 0),
            phase=intern(status.get("phase") or "Pending"),
            ready=conditions.get("Ready", {}).get("status") == "True",
            ready_changed=moment(conditions.get("Ready", {}).get("lastTransitionTime")),
            unheard=_unheard(conditions),
            deleting=meta.get("deletionTimestamp") is not None,
            delete_by=moment(meta.get("deletionTimestamp")),
            node=intern(spec.get("nodeName")),
            ip=status.get("podIP") or "",
            created=moment(meta.get("creationTimestamp")),
            scheduled=scheduled.get("status") == "True" or bool(spec.get("nodeName")),
            unschedulable=(
                text(scheduled.get("message") or scheduled.get("reason"))
                if scheduled.get("status") == "False"
                else ""
            ),
            unschedulable_since=(
                moment(scheduled.get("lastTransitionTime")) if scheduled.get("status") == "False" else None
            ),
            waiting=intern(waiting.get("reason")),
            waiting_message=text(waiting.get("message")),
            running_since=moment((running or {}).get("startedAt")),
            exit_code=ended.get("exitCode"),
            exit_reason=intern(ended.get("reason")),
            exit_message=text(ended.get("message")),
            ends=int(main.get("restartCount") or 0) + int(bool(ended) and running is None),
            reason=intern(status.get("reason")),
            message=text(status.get("message")),
            finished=finished,
            started=moment(status.get("startTime")),
            folder=intern(_folder(spec)),
            bound=names.ANNOTATION_BOUND in annotations,
            awaiting_since=moment(((first.get("state") or {}).get("running") or {}).get("startedAt")),
            group=intern(labels.get(names.LABEL_GROUP)),
        )


def _unheard(conditions: Mapping[str, Mapping[str, Any]]) -> bool:
    """The controller-manager, which takes a node for lost, changes one condition of its pods and gives no
    reason; a kubelet, or a readiness gate, gives one.
    """
    ready = conditions.get("Ready", {})
    whole = conditions.get("ContainersReady", {}).get("status") == "True"
    return whole and ready.get("status") == "False" and not ready.get("reason")


def _container(containers: Iterable[Mapping[str, Any]] | None, name: str) -> Mapping[str, Any] | None:
    """The one of this name; a sidecar that somebody injected does not speak for the pod."""
    return next((c for c in containers or () if c.get("name") == name), None)


def _folder(spec: Mapping[str, Any]) -> str:
    first = _container(spec.get("initContainers"), names.WAITING_CONTAINER) or {}
    return str((first.get("command") or [""])[-1]).removeprefix(f"{names.MODELS_MOUNT}/")
