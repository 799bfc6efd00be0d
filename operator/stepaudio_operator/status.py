"""From what is of a deployment to what its status says; pure. Its conditions come from ordered checks."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from stepaudio_operator import names
from stepaudio_operator.conditions import (
    PAUSED,
    UNSCHEDULABLE,
    WAITING_FOR_CAPACITY,
    WAITING_FOR_QUOTA,
    Verdict,
    conditions,
    first,
    invalid,
    refusal,
)
from stepaudio_operator.errors import SpecError
from stepaudio_operator.model_cache import CachePlan
from stepaudio_operator.records import PoolRecord, Routing
from stepaudio_operator.spec.deployment import DeploymentSpec


@dataclass(frozen=True)
class _Deployment:
    """Everything that a deployment's checks may look at."""

    spec: DeploymentSpec
    name: str
    pools: Mapping[str, PoolRecord]
    routing: Routing | None
    acks: Mapping[str, int | None]
    problem: tuple[str, str] | None
    waiting: Verdict | None
    models: CachePlan | None


def deployment_status(
    deployment: Mapping[str, Any],
    spec: DeploymentSpec | SpecError,
    pools: Mapping[str, PoolRecord],
    *,
    routing: Routing | None,
    acks: Mapping[str, int | None],
    now: datetime,
    problem: tuple[str, str] | None = None,
    waiting: Verdict | None = None,
    models: CachePlan | None = None,
    pending: bool = False,
    vram: Sequence[Mapping[str, Any]] = (),
) -> dict[str, Any]:
    """The whole status of `deployment` (the raw StepAudioDeployment).

    `acks` has the routing generation that each ready gateway pod serves (None: not known), `waiting` is what
    the release waits for, `models` the state of the volume of downloaded models, `pending` whether a paused
    deployment has changes that are not carried out, `vram` what `vram.to_status` says of it. The deployment
    is Ready when every pool is and every ready gateway serves the current routing.
    """
    before, meta = deployment.get("status") or {}, deployment["metadata"]
    status: dict[str, Any] = {"observedGeneration": meta.get("generation", 0)}
    if routing is not None:
        status["release"] = routing.release
        status["routingGeneration"] = routing.generation
    if isinstance(spec, SpecError):
        verdict = invalid(spec)
        shown: tuple[str, ...] = names.COMPONENTS
    else:
        state = _Deployment(spec, meta["name"], pools, routing, acks, problem, waiting, models)
        verdict = first(_DEPLOYMENT_CHECKS, state)
        if spec.paused:
            verdict = _paused(verdict, pending)
        shown = spec.components
        if models is not None:
            status["cache"] = models.status
        if names.GATEWAY in spec.components:
            service = names.pool(meta["name"], names.GATEWAY)
            status["url"] = f"http://{service}.{meta['namespace']}.svc/v1"
    if vram:
        status["vram"] = [{**entry, **_measured(pools.get(entry["component"]))} for entry in vram]
    status["pools"] = [_summary(pools[c]) for c in names.COMPONENTS if c in shown and c in pools]
    return {**status, "conditions": conditions(before, status["observedGeneration"], verdict, now)}


def _summary(pool: PoolRecord) -> dict[str, Any]:
    summary: dict[str, Any] = {
        "component": pool.component,
        "name": pool.name,
        "replicas": pool.replicas or 0,
        "readyReplicas": pool.ready_replicas,
        "ready": _pool_is_ready(pool),
    }
    if pool.revision:
        summary["revision"] = pool.revision
    if pool.ready is not None:
        summary["reason"] = pool.ready.reason
    return summary


def _measured(pool: PoolRecord | None) -> dict[str, str]:
    return {"measured": pool.gpu_memory.measured} if pool is not None and pool.gpu_memory else {}


def _pool_is_ready(pool: PoolRecord) -> bool:
    return pool.current and pool.ready is not None and pool.ready.status == "True"


def _paused(found: Verdict, pending: bool) -> Verdict:
    """What a paused deployment says: what it is, and that no waiting changes it."""
    if found.ready and not pending:
        return Verdict(PAUSED, "as asked for; paused: what changes or fails is left as it is", ready=True)
    why = f"{found.reason}: {found.message}" if not found.ready else "the spec asks for changes"
    return Verdict(PAUSED, f"paused, set spec.paused to false to go on; {why}", stalled=True)


def _refused_child(state: _Deployment) -> Verdict | None:
    if state.problem is None:
        return None
    return refusal(state.problem)


def _models(state: _Deployment) -> Verdict | None:
    return state.models.verdict if state.models is not None else None


def _missing_pools(state: _Deployment) -> Verdict | None:
    missing = [c for c in state.spec.components if c not in state.pools]
    return Verdict("Creating", f"pools are being made: {', '.join(missing)}") if missing else None


def _stalled_pools(state: _Deployment) -> Verdict | None:
    for component in state.spec.components:
        pool = state.pools[component]
        if pool.current and pool.stalled is not None and pool.stalled.status == "True":
            return Verdict(pool.stalled.reason, f"{component}: {pool.stalled.message}", stalled=True)
    return None


def _outage(state: _Deployment) -> Verdict | None:
    if state.routing is not None and not state.routing.serving:
        return state.waiting
    return None


def _release(state: _Deployment) -> Verdict | None:
    return state.waiting


def _waiting_pools(state: _Deployment) -> Verdict | None:
    waiting = [c for c in state.spec.components if not _pool_is_ready(state.pools[c])]
    if not waiting:
        return None
    # The pool that lacks a node holds up the rest, so it speaks first.
    lacking = (WAITING_FOR_CAPACITY, UNSCHEDULABLE, WAITING_FOR_QUOTA)
    first = min(waiting, key=lambda c: (_reason(state.pools[c]) not in lacking, waiting.index(c)))
    pool = state.pools[first]
    if not pool.current or pool.ready is None:
        return Verdict("Reconciling", f"{first}: the pool has yet to take up its newest spec")
    return Verdict(pool.ready.reason, f"{first}: {pool.ready.message}")


def _reason(pool: PoolRecord) -> str:
    return pool.ready.reason if pool.current and pool.ready is not None else ""


def _routing(state: _Deployment) -> Verdict | None:
    if names.GATEWAY not in state.spec.components:
        return None
    if state.routing is None:
        return Verdict("RoutingPending", "the routing object is being made")
    late = sorted(pod for pod, generation in state.acks.items() if generation != state.routing.generation)
    scaled_to_zero = state.pools[names.GATEWAY].replicas == 0
    if late or not (state.acks or scaled_to_zero):
        who = ", ".join(late[:4]) or "a gateway"
        return Verdict("RoutingPending", f"waits until {who} serves the current routing")
    return None


def _deployment_ready(state: _Deployment) -> Verdict | None:
    return Verdict("Ready", "every pool is ready and every gateway serves the current routing", ready=True)


_DEPLOYMENT_CHECKS: Sequence[Callable[[_Deployment], Verdict | None]] = (
    _refused_child,
    _models,
    _missing_pools,
    _stalled_pools,
    _outage,
    _waiting_pools,
    _release,
    _routing,
    _deployment_ready,
)
