"""From what is to what a resource's status says: ordered pure checks, the first that finds something speaks.

Conditions follow kstatus: `Ready` (everything asked for is there and serves), `Reconciling` (work goes on by
itself), `Stalled` (a person has to do something). A message holds no clock and no measurement, so a steady
state writes nothing; `lastTransitionTime` moves only when a condition's status flips.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from stepaudio_operator import names
from stepaudio_operator.errors import SpecError
from stepaudio_operator.records import PodRecord, PoolObserved, PoolRecord, Routing, WorkloadRecord
from stepaudio_operator.spec import DeploymentSpec, PoolSpec

READY = "Ready"
INVALID_SPEC = "InvalidSpec"
WAITING_FOR_CAPACITY = "WaitingForCapacity"
CRASH_LOOP = 3  # restarts of a pod that does not serve
MESSAGE_LIMIT = 2000  # characters

# Reasons of a waiting container that no time alone cures.
_IMAGE_REASONS = frozenset({"ImagePullBackOff", "ErrImagePull", "InvalidImageName", "ErrImageNeverPull"})
_CONFIG_REASONS = frozenset({"CreateContainerConfigError", "CreateContainerError", "RunContainerError"})


@dataclass(frozen=True)
class Verdict:
    """What a check found: `ready`, or why not; `stalled` where waiting does not help."""

    reason: str
    message: str
    ready: bool = False
    stalled: bool = False


# --- pools


@dataclass(frozen=True)
class _Pool:
    """Everything that a pool's checks may look at."""

    name: str
    spec: PoolSpec
    hash8: str
    pods: tuple[PodRecord, ...]  # neither ended nor going
    leaving: int
    failed: tuple[PodRecord, ...]
    workload: WorkloadRecord | None
    problem: tuple[str, str] | None


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
        verdict = _invalid(spec)
    else:
        state = _Pool(
            name=pool["metadata"]["name"],
            spec=spec,
            hash8=target,
            pods=live,
            leaving=sum(p.deleting for p in observed.pods),
            failed=tuple(p for p in observed.pods if p.failed and not p.deleting),
            workload=observed.workload,
            problem=problem,
        )
        verdict = _first(_POOL_CHECKS, state)
    return {**status, "conditions": _conditions(before, status["observedGeneration"], verdict, now)}


def _refused(state: _Pool) -> Verdict | None:
    if state.problem is None:
        return None
    return Verdict(*state.problem, stalled=True)


def _undecided(state: _Pool) -> Verdict | None:
    if state.spec.replicas is not None:
        return None
    return Verdict("ReplicasUndecided", "waits until somebody sets spec.replicas")


def _model_files(state: _Pool) -> Verdict | None:
    """A pod said, in its last words, what a person has to change."""
    for pod in _unready(state):
        if pod.exit_code == names.EXIT_CONFIGURATION:
            reason, message = last_words(pod.exit_message)
            return Verdict(reason, f"{pod.name}: {message}", stalled=True)
    return None


def _images(state: _Pool) -> Verdict | None:
    for pod in _unready(state):
        if pod.waiting in _IMAGE_REASONS:
            # The kubelet alternates between the two while it tries; the status stays calm.
            reason = "ImagePullBackOff" if pod.waiting == "ErrImagePull" else pod.waiting
            image = _image(state)
            return Verdict(
                reason,
                f"{pod.name}: image {image} cannot be pulled: check runtime.version, runtime.registry and"
                " podTemplate.imagePullSecrets",
                stalled=True,
            )
        if pod.waiting in _CONFIG_REASONS:
            return Verdict(pod.waiting, f"{pod.name}: {pod.waiting_message}", stalled=True)
    return None


def _crashes(state: _Pool) -> Verdict | None:
    for pod in _unready(state):
        if pod.exit_reason == "OOMKilled":
            return Verdict(
                "OutOfMemory",
                f"{pod.name} used more memory than its limit: raise podTemplate.resources.limits.memory",
                stalled=True,
            )
        # The kubelet's word for it comes and goes with every start; the count stays.
        if pod.exit_code is not None and (pod.waiting == "CrashLoopBackOff" or pod.restarts >= CRASH_LOOP):
            said = f": {_line(pod.exit_message)}" if pod.exit_message else ""
            return Verdict(
                "CrashLoopBackOff",
                f"{pod.name} ends again and again with exit code {pod.exit_code}{said}",
                stalled=True,
            )
    return None


def _refused_by_node(state: _Pool) -> Verdict | None:
    if not state.failed or len(state.pods) >= (state.spec.replicas or 0):
        return None
    pod = min(state.failed, key=lambda p: p.name)
    reason = pod.reason or pod.exit_reason or "PodFailed"
    return Verdict(reason, f"{pod.name} has ended and will be replaced: {_line(pod.message) or reason}")


def _capacity(state: _Pool) -> Verdict | None:
    if not any(p.unschedulable for p in state.pods):
        return None
    needs = "no node has room for a replica: see the pods' events"
    if state.spec.gpu_count:
        memory = state.spec.gpu_memory
        size = f"{state.spec.gpu_count}x{memory}" if memory else f"{state.spec.gpu_count} GPUs"
        needs = f"a replica needs {size} on one node and no node has that free"
    return Verdict(WAITING_FOR_CAPACITY, needs)


def _workload_trouble(state: _Pool) -> Verdict | None:
    work = state.workload
    if work is None or work.observed_generation != work.generation:
        return None
    if work.replica_failure is not None and work.replica_failure.status == "True":
        return Verdict(work.replica_failure.reason, _line(work.replica_failure.message), stalled=True)
    if work.progressing is not None and work.progressing.reason == "ProgressDeadlineExceeded":
        return Verdict("ProgressDeadlineExceeded", f"Deployment {work.name} makes no progress", stalled=True)
    return None


def _rolling(state: _Pool) -> Verdict | None:
    if all(p.revision == state.hash8 for p in state.pods):
        return None
    return Verdict("RollingOut", f"pods are being replaced by revision {state.hash8}")


def _workload_rolling(state: _Pool) -> Verdict | None:
    work = state.workload
    if state.spec.component != names.GATEWAY:
        return None
    if work is None:
        return Verdict("Creating", "the Deployment is being made")
    settled = (
        work.observed_generation == work.generation
        and work.revision == state.hash8
        and work.replicas == state.spec.replicas
        and work.total_replicas == work.updated_replicas == work.ready_replicas == work.replicas
    )
    return None if settled else Verdict("RollingOut", f"the Deployment moves to revision {state.hash8}")


def _scaling(state: _Pool) -> Verdict | None:
    wanted = state.spec.replicas or 0
    if len(state.pods) == wanted and not state.leaving:
        return None
    return Verdict("Scaling", f"the pool is on its way to {wanted} replicas")


def _loading(state: _Pool) -> Verdict | None:
    unready = _unready(state)
    if not unready:
        return None
    return Verdict("PodsNotReady", f"waits until {', '.join(p.name for p in unready[:4])} can serve")


def _pool_ready(state: _Pool) -> Verdict | None:
    wanted = state.spec.replicas or 0
    if wanted == 0:
        return Verdict("ScaledToZero", "no replicas are wanted", ready=True)
    return Verdict("AllReplicasReady", f"{wanted} of {wanted} replicas serve", ready=True)


_POOL_CHECKS: Sequence[Callable[[_Pool], Verdict | None]] = (
    _refused,
    _undecided,
    _model_files,
    _images,
    _crashes,
    _refused_by_node,
    _capacity,
    _workload_trouble,
    _rolling,
    _workload_rolling,
    _scaling,
    _loading,
    _pool_ready,
)


def _unready(state: _Pool) -> list[PodRecord]:
    """Pods that do not serve, those of the newest revision first."""
    return sorted((p for p in state.pods if not p.ready), key=lambda p: (p.revision != state.hash8, p.name))


def _image(state: _Pool) -> str:
    """What the pool's images are called, for a message."""
    runtime = state.spec.runtime
    return f"version {runtime.version} from {runtime.registry or 'the node'}"


def last_words(message: str) -> tuple[str, str]:
    """Reason and message of a termination message `Reason: what and where; cure`.

    A message of another form comes whole, under the reason `ConfigurationError`.
    """
    reason, colon, text = _line(message).partition(": ")
    if colon and reason.isalnum() and reason[:1].isupper():
        return reason, text
    return "ConfigurationError", _line(message) or "the pod ended for a reason of configuration: see its log"


# --- deployments


@dataclass(frozen=True)
class _Deployment:
    """Everything that a deployment's checks may look at."""

    spec: DeploymentSpec
    name: str
    pools: Mapping[str, PoolRecord]
    routing: Routing | None
    acks: Mapping[str, int | None]
    problem: tuple[str, str] | None


def deployment_status(
    deployment: Mapping[str, Any],
    spec: DeploymentSpec | SpecError,
    pools: Mapping[str, PoolRecord],
    *,
    routing: Routing | None,
    acks: Mapping[str, int | None],
    now: datetime,
    problem: tuple[str, str] | None = None,
) -> dict[str, Any]:
    """The whole status of `deployment` (the raw StepAudioDeployment).

    `acks` has the routing generation that each ready gateway pod serves (None: not known). The deployment
    is Ready when every pool is and every ready gateway serves the current routing.
    """
    before, meta = deployment.get("status") or {}, deployment["metadata"]
    status: dict[str, Any] = {"observedGeneration": meta.get("generation", 0)}
    if routing is not None:
        status["release"] = routing.release
        status["routingGeneration"] = routing.generation
    if isinstance(spec, SpecError):
        verdict = _invalid(spec)
        shown: tuple[str, ...] = names.COMPONENTS
    else:
        verdict = _first(_DEPLOYMENT_CHECKS, _Deployment(spec, meta["name"], pools, routing, acks, problem))
        shown = spec.components
        if names.GATEWAY in spec.components:
            service = names.pool(meta["name"], names.GATEWAY)
            status["url"] = f"http://{service}.{meta['namespace']}.svc/v1"
    status["pools"] = [_summary(pools[c]) for c in names.COMPONENTS if c in shown and c in pools]
    return {**status, "conditions": _conditions(before, status["observedGeneration"], verdict, now)}


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


def _pool_is_ready(pool: PoolRecord) -> bool:
    return pool.current and pool.ready is not None and pool.ready.status == "True"


def _refused_child(state: _Deployment) -> Verdict | None:
    if state.problem is None:
        return None
    return Verdict(*state.problem, stalled=True)


def _missing_pools(state: _Deployment) -> Verdict | None:
    missing = [c for c in state.spec.components if c not in state.pools]
    return Verdict("Creating", f"pools are being made: {', '.join(missing)}") if missing else None


def _stalled_pools(state: _Deployment) -> Verdict | None:
    for component in state.spec.components:
        pool = state.pools[component]
        if pool.current and pool.stalled is not None and pool.stalled.status == "True":
            return Verdict(pool.stalled.reason, f"{component}: {pool.stalled.message}", stalled=True)
    return None


def _waiting_pools(state: _Deployment) -> Verdict | None:
    waiting = [c for c in state.spec.components if not _pool_is_ready(state.pools[c])]
    if not waiting:
        return None
    # The pool that lacks a node holds up the rest, so it speaks first.
    first = min(waiting, key=lambda c: (_reason(state.pools[c]) != WAITING_FOR_CAPACITY, waiting.index(c)))
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
    return Verdict(READY, "every pool is ready and every gateway serves the current routing", ready=True)


_DEPLOYMENT_CHECKS: Sequence[Callable[[_Deployment], Verdict | None]] = (
    _refused_child,
    _missing_pools,
    _stalled_pools,
    _waiting_pools,
    _routing,
    _deployment_ready,
)


# --- both


def _first(checks: Sequence[Callable[[Any], Verdict | None]], state: Any) -> Verdict:
    return next(verdict for check in checks if (verdict := check(state)) is not None)


def _invalid(error: SpecError) -> Verdict:
    return Verdict(INVALID_SPEC, str(error), stalled=True)


def _conditions(
    before: Mapping[str, Any], generation: int, verdict: Verdict, now: datetime
) -> list[dict[str, Any]]:
    working = not verdict.ready and not verdict.stalled
    states = {
        "Ready": (verdict.ready, verdict.reason, verdict.message),
        "Reconciling": (working, verdict.reason, verdict.message) if working else (False, "Settled", ""),
        "Stalled": (
            (True, verdict.reason, verdict.message) if verdict.stalled else (False, "Progressing", "")
        ),
    }
    old = {c.get("type"): c for c in before.get("conditions") or ()}
    conditions = []
    for kind, (holds, reason, message) in states.items():
        value = "True" if holds else "False"
        stored = old.get(kind, {})
        since = stored.get("lastTransitionTime") if stored.get("status") == value else None
        conditions.append(
            {
                "type": kind,
                "status": value,
                "observedGeneration": generation,
                "lastTransitionTime": since or now.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
                "reason": reason,
                "message": message[:MESSAGE_LIMIT],
            }
        )
    return conditions


def _line(text: str) -> str:
    """The first line of a text that is not empty."""
    return next((line.strip() for line in text.splitlines() if line.strip()), "")
