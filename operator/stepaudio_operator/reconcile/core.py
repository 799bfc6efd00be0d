"""What the reconciles of all kinds share: what a run comes to, and how it is told."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from stepaudio_operator import names
from stepaudio_operator.errors import ClusterError, Forbidden
from stepaudio_operator.kube import resources
from stepaudio_operator.kube.cache import Key
from stepaudio_operator.kube.cluster import Cluster
from stepaudio_operator.records import PoolRecord

Raw = dict[str, Any]
Problem = tuple[str, str]
"""A CamelCase reason and a message."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a reconcile came to."""

    gone: bool = False
    """The object is not there (any more): forget it."""
    requeue_after: float | None = None
    """Seconds after which to look again without being woken."""


_TROUBLE = ("Stalled", names.GPU_MEMORY_DRIFT)

GONE = Outcome(gone=True)
LOOK_AGAIN = Outcome(requeue_after=0.0)
"""After a write: what it came to is seen by the next run, and the status says that and not a stage of it."""


def paused(cluster: Cluster, namespace: str, deployment: str) -> bool:
    """Whether the deployment of this name says `paused`: then nothing of it may be changed."""
    held = cluster.cache.held(resources.DEPLOYMENTS.kind, namespace, deployment)
    return held is not None and held.record.paused


def owner_is_known(cluster: Cluster, pool: PoolRecord) -> bool:
    """Whether the deployment that owns a pool has been seen. One that has not may be paused, and one that is
    gone takes its pool with it. A pool that nobody owns is its own.
    """
    if pool.owner is None:
        return True
    name, uid = pool.owner
    held = cluster.cache.held(resources.DEPLOYMENTS.kind, pool.namespace, name)
    return held is not None and held.uid == uid


async def report(cluster: Cluster, key: Key, raw: Raw, new: Mapping[str, Any]) -> None:
    """Writes the status where it differs and an Event for every condition that says something new."""
    if not await cluster.write_status(key, raw, new):
        return
    before = _conditions(raw.get("status") or {})
    for kind, condition in _conditions(new).items():
        said = (condition["status"], condition["reason"])
        old = before.get(kind)
        if said == (old and (old["status"], old["reason"])) or not _newsworthy(key, kind, condition, old):
            continue
        await cluster.event(
            raw,
            warning=kind in _TROUBLE,
            reason=condition["reason"],
            action="Reconcile",
            note=condition.get("message") or condition["reason"],
        )


def _newsworthy(key: Key, kind: str, condition: Raw, old: Raw | None) -> bool:
    """What people want to read: trouble of every object, and that what they wrote became ready or unready."""
    if kind in _TROUBLE:
        return bool(condition["status"] == "True")
    if kind != "Ready" or key.kind == resources.POOLS.kind:
        return False
    return condition["status"] == "True" or (old is not None and old["status"] == "True")


def _conditions(state: Mapping[str, Any]) -> dict[str, Raw]:
    conditions: Iterable[Raw] = state.get("conditions") or ()
    return {condition["type"]: condition for condition in conditions}


def problem(refused: ClusterError | None) -> Problem | None:
    """What the API server refused, as a condition says it."""
    if refused is None:
        return None
    if is_over_quota(refused):
        return "QuotaExceeded", f"{refused}: raise that ResourceQuota, or ask for less"
    return refused.reason or type(refused).__name__, str(refused)


def is_over_quota(refused: ClusterError | None) -> bool:
    """Whether a ResourceQuota of the namespace has no room for what was to be made."""
    return isinstance(refused, Forbidden) and "exceeded quota" in str(refused)
