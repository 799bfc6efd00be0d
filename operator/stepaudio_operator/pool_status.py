"""From what is of a pool to what its status says; pure. Its conditions come from `pool_checks`."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from stepaudio_operator import names
from stepaudio_operator.conditions import conditions, first, invalid
from stepaudio_operator.errors import SpecError
from stepaudio_operator.pool_checks import POOL_CHECKS, PoolState
from stepaudio_operator.records import PoolObserved
from stepaudio_operator.spec import PoolSpec


def pool_status(
    pool: Mapping[str, Any],
    spec: PoolSpec | SpecError,
    revision: str | None,
    observed: PoolObserved,
    *,
    now: datetime,
    problem: tuple[str, str] | None = None,
) -> dict[str, Any]:
    """The whole status of `pool` (the raw StepAudioPool).

    `revision` is the target's hash (None where the spec does not parse), `problem` the (reason, message) of
    a write that the API server refused. `now` becomes the time of conditions that flip.
    """
    live = tuple(p for p in observed.pods if p.live)
    before = pool.get("status") or {}
    target = revision or before.get("revision") or ""
    status: dict[str, Any] = {
        "observedGeneration": pool["metadata"].get("generation", 0),
        "replicas": len(live),
        "readyReplicas": sum(p.ready for p in live),
        "updatedReplicas": sum(p.revision == target for p in live),
        "selector": ",".join(f"{k}={v}" for k, v in names.pool_selector(pool["metadata"]["name"]).items()),
        "revisions": [
            {
                "name": name,
                "replicas": sum(p.revision == name for p in live),
                "ready": sum(p.revision == name and p.ready for p in live),
            }
            for name in sorted({p.revision for p in live if p.revision})
        ],
    }
    if target:
        status["revision"] = target
    if isinstance(spec, SpecError):
        verdict = invalid(spec)
    else:
        state = PoolState(
            name=pool["metadata"]["name"],
            spec=spec,
            hash8=target,
            pods=live,
            leaving=sum(p.deleting for p in observed.pods),
            failed=tuple(p for p in observed.pods if p.failed and not p.deleting),
            workload=observed.workload,
            problem=problem,
        )
        verdict = first(POOL_CHECKS, state)
    return {**status, "conditions": conditions(before, status["observedGeneration"], verdict, now)}
