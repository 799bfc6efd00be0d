"""From what is of a pool to what its status says; pure. Its conditions come from `pool_checks`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from stepaudio_operator import names, recovery
from stepaudio_operator.conditions import condition, conditions, first, invalid
from stepaudio_operator.errors import SpecError
from stepaudio_operator.gpus import gpu_memory
from stepaudio_operator.loading import loading
from stepaudio_operator.plan import PoolTarget
from stepaudio_operator.plan.course import aim
from stepaudio_operator.plan.decisions import unseen
from stepaudio_operator.pool_checks import POOL_CHECKS, PoolState
from stepaudio_operator.records import PodRecord, PoolObserved
from stepaudio_operator.spec.pool import PoolSpec


def pool_status(
    pool: Mapping[str, Any],
    spec: PoolSpec | SpecError,
    target: PoolTarget | None,
    observed: PoolObserved,
    *,
    now: datetime,
    problem: tuple[str, str] | None = None,
    left_undone: str | None = None,
) -> dict[str, Any]:
    """The whole status of `pool` (the raw StepAudioPool).

    `target` is None where the spec does not parse, `observed.memory` what the status is to remember,
    `problem` the (reason, message) of a write that the API server refused, `left_undone` why something would
    be done if the deployment were not paused. `now` becomes the time of conditions that flip.
    """
    live = tuple(p for p in observed.pods if p.live)
    before = pool.get("status") or {}
    wanted = target.wanted if target else before.get("wantedRevision") or ""
    to = aim(target, observed) if target else before.get("revision") or ""
    status = _replicas(pool["metadata"], live, wanted)
    if to:
        status |= {"revision": to, "wantedRevision": wanted}
    status |= observed.memory.to_status()
    if progress := loading(observed.pods, observed.reports, before.get("loading") or ()):
        status["loading"] = progress
    drift = None
    if isinstance(spec, SpecError):
        verdict = invalid(spec)
    else:
        vram = gpu_memory.measured(spec, to, live, observed.reports, before.get("vram") or {})
        if vram:
            status["vram"] = vram
            drift = gpu_memory.drift(spec, vram)
        state = PoolState(
            name=pool["metadata"]["name"],
            spec=spec,
            wanted=wanted,
            hash8=to,
            condemned=target is not None and target.condemned,
            memory=observed.memory,
            pods=live,
            leaving=sum(p.deleting for p in observed.pods),
            failed=tuple(p for p in observed.pods if p.failed and not p.deleting),
            workload=observed.workload,
            problem=problem,
            budget_spent=recovery.is_spent(observed.memory.strikes, now),
            left_undone=left_undone,
            loading=tuple(progress),
            unseen=target is not None
            and observed.memory.rollout is not None
            and unseen(target, observed.memory.rollout, now),
        )
        verdict = first(POOL_CHECKS, state)
    generation = status["observedGeneration"]
    said = conditions(before, generation, verdict, now)
    if drift is not None:
        holds, reason, message = drift
        kind = names.GPU_MEMORY_DRIFT
        said.append(condition(before, kind, generation, now, holds=holds, reason=reason, message=message))
    return {**status, "conditions": said}


def _replicas(metadata: Mapping[str, Any], live: Sequence[PodRecord], wanted: str) -> dict[str, Any]:
    """What the status begins with: how many there are, for people and autoscalers, and of which revision."""
    return {
        "observedGeneration": metadata.get("generation", 0),
        "replicas": len(live),
        "readyReplicas": sum(p.ready for p in live),
        "updatedReplicas": sum(p.revision == wanted for p in live),
        "selector": ",".join(f"{k}={v}" for k, v in names.pool_selector(metadata["name"]).items()),
        "revisions": [
            {
                "name": name,
                "replicas": sum(p.revision == name for p in live),
                "ready": sum(p.revision == name and p.ready for p in live),
            }
            for name in sorted({p.revision for p in live if p.revision})
        ],
    }
