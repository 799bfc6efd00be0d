"""Deployments and pools, as they see each other."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from stepaudio_operator import names
from stepaudio_operator.memory import Memory
from stepaudio_operator.records.reading import ConditionRecord, conditions_of, intern, manages, text


@dataclass(frozen=True, slots=True)
class DeploymentRecord:
    """What others have to know of a StepAudioDeployment: its pools, and those who share its models."""

    uid: str
    paused: bool
    models: str  # the volume or folder of models that its status names, "" where there is none
    voices: bool  # whether it keeps created voices

    @classmethod
    def from_raw(cls, raw: Mapping[str, Any]) -> DeploymentRecord:
        """Project a StepAudioDeployment (also one whose spec does not parse)."""
        cache = (raw.get("status") or {}).get("cache") or {}
        return cls(
            uid=raw["metadata"].get("uid") or "",
            paused=(raw.get("spec") or {}).get("paused") is True,
            models=intern(cache.get("folder") or cache.get("claimName")),
            voices=bool((raw.get("spec") or {}).get("voices")),
        )


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
    def from_annotation(cls, said: str | None) -> CanaryVerdict | None:
        """Reads the value of `names.ANNOTATION_CANARY_FAILED`."""
        revision, _, message = (said or "").partition(" ")
        return cls(intern(revision), text(message)) if revision else None

    def to_annotation(self) -> str:
        """The value of `names.ANNOTATION_CANARY_FAILED`."""
        return f"{self.revision} {self.message}"


@dataclass(frozen=True, slots=True)
class GpuMemory:
    """What one GPU of a pool holds, in words such as `67.3GB`; "" where it is not known."""

    expected: str
    measured: str
    drift: str
    """Why the two are too far apart, "" where they are not."""


@dataclass(frozen=True, slots=True)
class PoolRecord:
    """A StepAudioPool as its deployment sees it: what was asked for and what its status says."""

    namespace: str
    name: str
    uid: str
    deployment: str
    owner: tuple[str, str] | None  # name and uid of the deployment that controls it
    component: str
    generation: int
    deleting: bool
    replicas: int | None  # None: nobody has said
    replicas_owned: bool  # whether the operator's own field manager holds spec.replicas
    runtime_version: str
    runtime_registry: str | None  # None: not decided; "" is a decision for no registry
    observed_generation: int
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
    gpu_memory: GpuMemory | None  # None: not measured

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
        conditions = conditions_of(status)
        memory = Memory.from_status(status)
        return cls(
            namespace=intern(meta.get("namespace")),
            name=meta["name"],
            uid=meta.get("uid") or "",
            deployment=intern(spec.get("deployment") or labels.get(names.LABEL_DEPLOYMENT)),
            owner=next(
                (
                    (intern(owner["name"]), intern(owner["uid"]))
                    for owner in meta.get("ownerReferences") or ()
                    if owner.get("controller") and owner["kind"] == names.DEPLOYMENT_KIND
                ),
                None,
            ),
            component=intern(spec.get("component") or labels.get(names.LABEL_COMPONENT)),
            generation=int(meta.get("generation") or 0),
            deleting=meta.get("deletionTimestamp") is not None,
            replicas=spec.get("replicas"),
            replicas_owned=manages(meta, names.FIELD_MANAGER, ("f:spec", "f:replicas")),
            runtime_version=intern(runtime.get("version")),
            runtime_registry=runtime.get("registry"),
            observed_generation=int(status.get("observedGeneration") or 0),
            ready_replicas=int(status.get("readyReplicas") or 0),
            updated_replicas=int(status.get("updatedReplicas") or 0),
            revision=intern(status.get("revision")),
            wanted=intern(status.get("wantedRevision")),
            good_revision=intern(memory.good),
            canary_failed=CanaryVerdict.from_annotation(annotations.get(names.ANNOTATION_CANARY_FAILED)),
            revisions={r["name"]: int(r.get("ready") or 0) for r in status.get("revisions") or ()},
            ready=conditions.get("Ready"),
            stalled=conditions.get("Stalled"),
            traffic=_traffic(memory),
            quarantined=tuple(intern(entry.revision) for entry in memory.quarantined),
            outage_needed=memory.rollout is not None and memory.rollout.needs_outage,
            keep=tuple(r for r in (annotations.get(names.ANNOTATION_KEEP) or "").split(",") if r),
            gpu_memory=_gpu_memory(status, conditions.get(names.GPU_MEMORY_DRIFT)),
        )


def _traffic(memory: Memory) -> Traffic | None:
    rollout = memory.rollout
    if rollout is None or rollout.traffic is None:
        return None
    return Traffic(rollout.revision, rollout.traffic, rollout.stable)


def _gpu_memory(status: Mapping[str, Any], drift: ConditionRecord | None) -> GpuMemory | None:
    vram = status.get("vram") or {}
    if not vram.get("measured"):
        return None
    why = drift.reason if drift is not None and drift.status == "True" else ""
    return GpuMemory(intern(vram.get("expected")), intern(vram["measured"]), why)
