"""What else exists of a pool, and all of it together."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from stepaudio_operator import names
from stepaudio_operator.memory import Memory
from stepaudio_operator.records.pods import PodRecord
from stepaudio_operator.records.reading import ConditionRecord, conditions_of, intern
from stepaudio_operator.records.reports import PodReport


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
            namespace=intern(meta.get("namespace")),
            name=meta["name"],
            uid=meta.get("uid") or "",
            pool=intern(labels.get(names.LABEL_POOL)),
            hash8=intern(labels.get(names.LABEL_REVISION)),
            number=int(raw.get("revision") or 0),
            inputs=annotations.get(names.ANNOTATION_INPUTS) or "",
            release=intern(annotations.get(names.ANNOTATION_RELEASE)),
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
        conditions = conditions_of(status)
        return cls(
            namespace=intern(meta.get("namespace")),
            name=meta["name"],
            uid=meta.get("uid") or "",
            pool=intern((meta.get("labels") or {}).get(names.LABEL_POOL)),
            revision=intern((template.get("labels") or {}).get(names.LABEL_REVISION)),
            generation=int(meta.get("generation") or 0),
            observed_generation=int(status.get("observedGeneration") or 0),
            replicas=1 if spec.get("replicas") is None else int(spec["replicas"]),
            total_replicas=int(status.get("replicas") or 0),
            updated_replicas=int(status.get("updatedReplicas") or 0),
            ready_replicas=int(status.get("readyReplicas") or 0),
            progressing=conditions.get("Progressing"),
            replica_failure=conditions.get("ReplicaFailure"),
        )

    def is_settled(self, revision: str, replicas: int | None) -> bool:
        """Whether so many replicas of `revision` are ready, and there is nothing else."""
        return (
            self.observed_generation == self.generation
            and self.revision == revision
            and self.replicas == replicas
            and self.total_replicas == self.updated_replicas == self.ready_replicas == self.replicas
        )


@dataclass(frozen=True)
class PoolObserved:
    """What exists of a pool. `workload` is the gateway's Deployment, `memory` what its status holds,
    `reports` what its pods have said of themselves, by uid.
    """

    pods: tuple[PodRecord, ...] = ()
    revisions: tuple[RevisionRecord, ...] = ()
    workload: WorkloadRecord | None = None
    memory: Memory = field(default_factory=Memory)
    reports: Mapping[str, PodReport] = field(default_factory=dict)

    @property
    def releases(self) -> dict[str, str]:
        """The release of every stored revision."""
        return {r.hash8: r.release for r in self.revisions}
