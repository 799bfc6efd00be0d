"""One reconcile of a StepAudioPool: its revisions and pods (or the gateway's Deployment), and its status."""

import logging
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from stepaudio_operator import names, plan, recovery
from stepaudio_operator.errors import ClusterError, Conflict, Forbidden, Rejected, SpecError, StillGoing
from stepaudio_operator.kube import resources
from stepaudio_operator.kube.cache import Key
from stepaudio_operator.kube.cluster import Cluster
from stepaudio_operator.memory import Memory
from stepaudio_operator.polling import Poller
from stepaudio_operator.pool_status import pool_status
from stepaudio_operator.reconcile.copies import nodes_with
from stepaudio_operator.reconcile.core import (
    LOOK_AGAIN,
    Outcome,
    Problem,
    Raw,
    is_over_quota,
    paused,
    problem,
    report,
)
from stepaudio_operator.reconcile.pods import ask_pods
from stepaudio_operator.reconcile.scaling import LOOK_EVERY_S, Autoscaler
from stepaudio_operator.records import CanaryVerdict, PoolObserved
from stepaudio_operator.render import pool as render_pool
from stepaudio_operator.spec import reading as spec

logger = logging.getLogger(__name__)


def observe(cluster: Cluster, key: Key, raw: Raw) -> PoolObserved:
    """What exists of the pool `raw`, as far as the caches know."""
    return PoolObserved(
        pods=cluster.pods(key.namespace, key.name),
        revisions=cluster.revisions(key.namespace, key.name),
        workload=cluster.workload(key.namespace, key.name),
        memory=Memory.from_status(raw.get("status") or {}),
    )


def target_of(raw: Raw, parsed: spec.PoolSpec, revision: render_pool.Revision) -> plan.PoolTarget:
    """What the pool `raw` should be, with what its deployment told it in annotations."""
    said = raw["metadata"].get("annotations") or {}
    return plan.pool_target(
        raw["metadata"]["name"],
        parsed,
        revision.hash8,
        ask=render_pool.ask(raw, parsed),
        keep=tuple(filter(None, said.get(names.ANNOTATION_KEEP, "").split(","))),
        condemned=said.get(names.ANNOTATION_CONDEMNED) == str(revision.release),
        trial=said.get(names.ANNOTATION_TRIAL) == str(revision.release),
        back=said.get(names.ANNOTATION_BACK, ""),
        watched=not raw["metadata"].get("ownerReferences")  # nobody who could look
        or said.get(names.ANNOTATION_CANARY_WATCHED) == revision.hash8,
    )


@dataclass(frozen=True)
class _Run:
    """What one run goes by: the pool `raw` with its spec, what that comes to, and what is there."""

    key: Key
    raw: Raw
    spec: spec.PoolSpec
    revision: render_pool.Revision
    target: plan.PoolTarget
    observed: PoolObserved
    now: datetime

    def status(self, **said: Any) -> dict[str, Any]:
        """The whole status; see `pool_status` for what may be said beside."""
        return pool_status(self.raw, self.spec, self.target, self.observed, now=self.now, **said)


def _of_another_spec(run: _Run) -> Problem | None:
    """What is wrong where the revision's name, a few digits of a hash, stands for something else: pods made
    from that would not be what is asked for.
    """
    wanted = run.revision
    stored = next((r for r in run.observed.revisions if r.hash8 == wanted.hash8), None)
    if stored is None or stored.inputs in ("", wanted.inputs):
        return None
    cure = f"set the annotation {names.ANNOTATION_RESTART} to another value, which gives it another name"
    return "RevisionTaken", f"ControllerRevision {stored.name} was made from another spec: {cure}"


class PoolReconciler:
    """Reconciles pools."""

    def __init__(self, cluster: Cluster, poller: Poller, now: Callable[[], datetime]) -> None:
        self._cluster = cluster
        self._poller = poller
        self._autoscaler = Autoscaler(cluster, poller)
        self._now = now

    async def __call__(self, key: Key, raw: Raw) -> Outcome:
        """One reconcile of `raw`. Raises `ClusterError` where another try may help."""
        cluster, now = self._cluster, self._now()
        observed = observe(cluster, key, raw)
        try:
            parsed = spec.parse_pool(raw)
        except SpecError as invalid:
            self._poller.want(key, [])
            await report(cluster, key, raw, pool_status(raw, invalid, None, observed, now=now))
            return Outcome()
        gateways = cluster.pods(key.namespace, names.pool(parsed.deployment, names.GATEWAY))
        reports = ask_pods(self._poller, key, parsed, observed.pods, gateways)
        observed = replace(observed, reports=reports)
        revision = render_pool.revision(raw, parsed)
        run = _Run(key, raw, parsed, revision, target_of(raw, parsed, revision), observed, now)
        if paused(cluster, key.namespace, parsed.deployment):
            due = (s for s in plan.plan_pool(run.target, observed, now) if not isinstance(s, plan.Wait))
            undone = next((step.reason for step in due), None)
            await report(cluster, key, raw, run.status(left_undone=undone))
            return Outcome()

        if (other := _of_another_spec(run)) is not None:
            await report(cluster, key, raw, run.status(problem=other))
            return Outcome()

        said = raw["metadata"].get("annotations") or {}
        verdict = CanaryVerdict.from_annotation(said.get(names.ANNOTATION_CANARY_FAILED))
        forgive = said.get(names.ANNOTATION_FORGIVE, "")
        memory = replace(
            plan.decide(run.target, observed, now, verdict),
            strikes=recovery.decide(observed.memory.strikes, observed.pods, now, forgive),
            scaling=self._autoscaler.decide(parsed, observed, gateways, now),
        )
        if memory != observed.memory:  # stored before it is acted on
            return await self._remember(run, memory)
        return await self._carry_out(run)

    async def _remember(self, run: _Run, memory: Memory) -> Outcome:
        """Stores what was decided, in the status that follows from it."""
        decided = replace(run, observed=replace(run.observed, memory=memory))
        await report(self._cluster, run.key, run.raw, decided.status())
        stored = (self._cluster.cache.raw(run.key) or run.raw).get("status") or {}
        if Memory.from_status(stored) == run.observed.memory:
            raise ClusterError("the API server does not keep the pool's status: apply this version's CRDs")
        await self._tell_avoided(run.raw, run.observed.memory, memory)
        return LOOK_AGAIN

    async def _carry_out(self, run: _Run) -> Outcome:
        """Does what follows from what is remembered, and says what is so."""
        cluster, raw, memory = self._cluster, run.raw, run.observed.memory
        steps = (
            *plan.plan_pool(run.target, run.observed, run.now),
            *recovery.steps(memory.strikes, run.observed.pods, run.now),
        )
        refused: ClusterError | None = None
        try:
            if await self._autoscaler.act(raw, run.spec, memory.scaling):
                return LOOK_AGAIN
            # Nothing in the status speaks of the budget: writing it is no reason to look again.
            await cluster.apply(render_pool.disruption_budget(raw, run.spec), raw)
            wrote = False
            for step in steps:
                logger.debug("%s: %s", run.key, step)
                wrote |= await self._act(run, step)
            wrote |= await self._mend_workload(run, steps)
            if wrote:
                return LOOK_AGAIN
        except (Rejected, Forbidden, StillGoing) as error:
            refused = error
        if is_over_quota(refused) and (rollout := plan.without_surge(run.target, run.observed, run.now)):
            return await self._remember(run, replace(memory, rollout=rollout))
        await report(cluster, run.key, raw, run.status(problem=problem(refused)))
        if refused is not None:
            raise refused
        waits = [step.seconds for step in steps if isinstance(step, plan.Wait)]
        if memory.scaling is not None:
            waits.append(LOOK_EVERY_S)
        return Outcome(requeue_after=min(waits, default=None))

    async def _act(self, run: _Run, step: plan.Step) -> bool:
        cluster, key, raw = self._cluster, run.key, run.raw
        match step:
            case plan.CreateRevision(number=number):
                await cluster.create(render_pool.controller_revision(raw, run.revision, number))
            case plan.CreatePod(hash8=hash8, slot=slot, attempt=attempt, bound=bound):
                record = cluster.revision(key.namespace, key.name, hash8)
                if (claim := render_pool.claim_template(raw, record)) is not None:
                    await cluster.ensure(claim)
                avoid = recovery.avoided(run.observed.memory.strikes)
                folder = record.data.get("nodeFolder")
                near = nodes_with(cluster, key.namespace, folder) if folder else ()
                await cluster.create(
                    render_pool.replica(raw, record, slot, attempt, avoid, near=near, bound=bound)
                )
            case plan.DeletePod(name=name, uid=uid):
                grouped = cluster.is_group(key.namespace, name, uid)
                kind = (resources.GROUPS if grouped else resources.PODS).kind
                return await cluster.delete(kind, key.namespace, name, uid)
            case plan.ApplyWorkload(hash8=hash8, replicas=replicas):
                record = cluster.revision(key.namespace, key.name, hash8)
                return await cluster.apply(render_pool.gateway_deployment(raw, record, replicas), raw)
            case plan.DeleteRevision(name=name, uid=uid):
                return await cluster.delete(resources.REVISIONS.kind, key.namespace, name, uid)
            case plan.Wait():
                return False  # the outcome says when to come back
        return True

    async def _tell_avoided(self, raw: Raw, before: Memory, after: Memory) -> None:
        """An Event for every node that new pods keep away from from now on."""
        known = recovery.avoided(before.strikes)
        for node in recovery.avoided(after.strikes):
            if node not in known:
                reasons = sorted({s.reason for s in after.strikes.strikes if s.node == node})
                await self._cluster.event(
                    raw,
                    warning=True,
                    reason="NodeAvoided",
                    action="Recover",
                    note=f"pods failed on {node} {recovery.ENOUGH} times ({', '.join(reasons)}): new ones"
                    f" keep away from it until that has expired or {names.ANNOTATION_FORGIVE} changes",
                )

    async def _mend_workload(self, run: _Run, steps: tuple[plan.Step, ...]) -> bool:
        """Takes back what others changed in the gateway's Deployment, where the plan leaves it as it is."""
        workload = run.observed.workload
        if workload is None or any(isinstance(step, plan.ApplyWorkload) for step in steps):
            return False
        try:
            record = self._cluster.revision(run.key.namespace, run.key.name, workload.revision)
        except Conflict:
            return False  # its revision is not stored: the plan moves it to one that is
        desired = render_pool.gateway_deployment(run.raw, record, workload.replicas)
        return await self._cluster.apply(desired, run.raw)
