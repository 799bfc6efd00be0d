"""The volume of downloaded models, the Job that fills it, and the pods of that Job."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from stepaudio_operator import names
from stepaudio_operator.records.pods import PodRecord
from stepaudio_operator.records.reading import intern, text
from stepaudio_operator.times import moment


@dataclass(frozen=True, slots=True)
class ClaimRecord:
    """A PersistentVolumeClaim of ours."""

    name: str
    uid: str
    phase: str  # Pending, Bound, Lost
    size: str  # asked for
    deleting: bool
    when_unused: str  # Keep, Delete
    users: tuple[tuple[str, str], ...]  # name and uid of the deployments that own it
    created: datetime | None = None

    @classmethod
    def from_raw(cls, raw: Mapping[str, Any]) -> ClaimRecord:
        """Project a PersistentVolumeClaim."""
        meta = raw["metadata"]
        asked = ((raw.get("spec") or {}).get("resources") or {}).get("requests") or {}
        return cls(
            name=meta["name"],
            uid=meta.get("uid") or "",
            phase=intern((raw.get("status") or {}).get("phase") or "Pending"),
            size=str(asked.get("storage") or "0"),
            deleting=meta.get("deletionTimestamp") is not None,
            when_unused=intern((meta.get("labels") or {}).get(names.LABEL_WHEN_UNUSED)),
            users=tuple(
                (owner["name"], owner["uid"])
                for owner in meta.get("ownerReferences") or ()
                if owner["kind"] == names.DEPLOYMENT_KIND
            ),
            created=moment(meta.get("creationTimestamp")),
        )


@dataclass(frozen=True, slots=True)
class JobRecord:
    """A Job of ours."""

    name: str
    uid: str
    complete: bool
    failed: bool
    reason: str  # of its failure: PodFailurePolicy, BackoffLimitExceeded...
    message: str
    failed_at: datetime | None
    deleting: bool
    inputs: str = ""  # digest of what it was made from, "" where its name says that
    image: str = ""  # of its container
    node: str = ""  # of a Job that is about the models of one node
    when_unused: str = ""  # Keep, Delete
    suspended: bool = False
    ended_at: datetime | None = None  # well

    @classmethod
    def from_raw(cls, raw: Mapping[str, Any]) -> JobRecord:
        """Project a Job."""
        meta, status = raw["metadata"], raw.get("status") or {}
        containers = ((raw.get("spec") or {}).get("template", {}).get("spec") or {}).get("containers") or [{}]
        held = {c["type"]: c for c in status.get("conditions") or () if c.get("status") == "True"}
        # FailureTarget comes first, while its pods are still ending.
        failed = held.get("Failed") or held.get("FailureTarget") or {}
        return cls(
            name=meta["name"],
            uid=meta.get("uid") or "",
            complete="Complete" in held,
            failed=bool(failed),
            reason=intern(failed.get("reason")),
            message=text(failed.get("message")),
            failed_at=moment(failed.get("lastTransitionTime")),
            deleting=meta.get("deletionTimestamp") is not None,
            inputs=(meta.get("annotations") or {}).get(names.ANNOTATION_INPUTS) or "",
            image=intern(containers[0].get("image")),
            node=intern((meta.get("annotations") or {}).get(names.ANNOTATION_NODE)),
            when_unused=intern((meta.get("labels") or {}).get(names.LABEL_WHEN_UNUSED)),
            suspended=bool((raw.get("spec") or {}).get("suspend")),
            ended_at=moment(held.get("Complete", {}).get("lastTransitionTime")),
        )


@dataclass(frozen=True)
class DataObserved:
    """What exists of a data job."""

    claim: ClaimRecord | None = None
    """The one that is made for it, not another's."""
    job: JobRecord | None = None
    pods: tuple[PodRecord, ...] = ()
    samples_made: int | None = None
    """As its pod said last; None where it has not."""
    samples_total: int | None = None


@dataclass(frozen=True)
class CacheObserved:
    """What exists of a volume of models."""

    claim: ClaimRecord | None = None
    job: JobRecord | None = None
    pods: tuple[PodRecord, ...] = ()
    bytes_present: int | None = None
    """As the pod that fills it said last; None where it has not."""
    bytes_total: int | None = None
    said: tuple[str, str] | None = None
    """Reason and message of what that pod does, in its own words."""
    eta_s: int | None = None
    """Seconds that are left, by the speed of its last minute."""
    told: Mapping[str, Any] = field(default_factory=dict)
    """What the status of the deployment says of it now."""
    told_why: tuple[str, str] | None = None
    """Reason and message for which the deployment is not Ready now."""


@dataclass(frozen=True)
class CopyObserved:
    """What exists of the models on one node."""

    node: str
    fetch: CacheObserved = field(default_factory=CacheObserved)
    """The Job that brings them, and its pods; without a claim."""
    removing: bool = False
    """Whether a Job that takes them away, or a pod of it, is still there."""
    awaited_since: datetime | None = None
    """Since when a pod of a pool waits for them there, the longest."""
