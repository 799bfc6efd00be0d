"""One reconcile of one object: observe -> parse -> render -> plan -> act -> status. Level-based.

Nothing is remembered between two runs but what stands in the cluster: whatever a run leaves undone (a crash,
a refused write) the next one finds. A run returns when it wants to come back; an error that another try may
cure is raised, and the queue backs off.
"""

import logging
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from stepaudio_operator import names, plan, resources, spec, status
from stepaudio_operator.cache import Key
from stepaudio_operator.cluster import Cluster
from stepaudio_operator.errors import ClusterError, Conflict, Forbidden, Rejected, SpecError
from stepaudio_operator.polling import Poller, Target
from stepaudio_operator.records import PodRecord, WorkloadRecord
from stepaudio_operator.render import deployment as render_deployment
from stepaudio_operator.render import pool as render_pool
from stepaudio_operator.render import routing as render_routing
from stepaudio_operator.render.images import ImageDefaults

Raw = dict[str, Any]
Problem = tuple[str, str]
"""A CamelCase reason and a message."""

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a reconcile came to."""

    gone: bool = False
    """The object is not there (any more): forget it."""
    requeue_after: float | None = None
    """Seconds after which to look again without being woken."""


GONE = Outcome(gone=True)
LOOK_AGAIN = Outcome(requeue_after=0.0)
"""After a write: what it came to is seen by the next run, and the status says that and not a stage of it."""


class Reconciler:
    """Reconciles deployments and pools."""

    def __init__(
        self, cluster: Cluster, poller: Poller, images: ImageDefaults, now: Callable[[], datetime]
    ) -> None:
        self._cluster = cluster
        self._poller = poller
        self._images = images
        self._now = now

    async def __call__(self, key: Key) -> Outcome:
        """One reconcile. Raises `ClusterError` where another try may help."""
        raw = self._cluster.cache.raw(key)
        if raw is None or raw["metadata"].get("deletionTimestamp"):
            self._poller.want(key, [])
            return GONE
        if key.kind == resources.POOLS.kind:
            return await self._pool(key, raw)
        return await self._deployment(key, raw)

    async def _deployment(self, key: Key, raw: Raw) -> Outcome:
        cluster, now = self._cluster, self._now()
        if not await cluster.still_exists(key):
            return GONE
        try:
            parsed = spec.parse_deployment(raw)
        except SpecError as invalid:
            wrong = status.deployment_status(raw, invalid, cluster.pools(key), routing=None, acks={}, now=now)
            await self._report(key, raw, wrong)
            return Outcome()

        refused: ClusterError | None = None
        try:
            if await self._act_deployment(key, raw, parsed):
                return LOOK_AGAIN
        except (Rejected, Forbidden) as error:
            refused = error

        routing = self._routing(key)
        gateways = self._ready_gateways(key)
        self._poller.want(
            key,
            [
                Target(pod.uid, pod.ip, names.GATEWAY_PORT, routing.generation if routing else None)
                for pod in gateways
            ],
        )
        answers = {pod.name: self._poller.answer(pod.uid) for pod in gateways}
        if any(answer is None for answer in answers.values()):
            return Outcome()  # a gateway is being asked; its answer wakes this deployment
        acks = {name: answer.routing_generation for name, answer in answers.items() if answer}
        current = status.deployment_status(
            raw, parsed, cluster.pools(key), routing=routing, acks=acks, now=now, problem=_problem(refused)
        )
        await self._report(key, raw, current)
        if refused is not None:
            raise refused
        return Outcome()

    async def _act_deployment(self, key: Key, raw: Raw, parsed: spec.DeploymentSpec) -> bool:
        """Makes the children what they should be. True where that took a write."""
        cluster, wrote = self._cluster, False
        wrote |= await self._give_replicas(key, raw, parsed)
        for child in render_deployment.children(raw, parsed, cluster.pools(key), self._images):
            wrote |= await cluster.apply(child, raw)
        wrote |= await self._give_replicas(key, raw, parsed)  # pools that have just been made
        current = self._routing(key)
        routing = plan.plan_routing(parsed, key.name, cluster.pools(key), current) or current
        if routing is not None and names.GATEWAY in parsed.components:
            wrote |= await cluster.apply(render_routing.config_map(raw, routing), raw)
        children = {
            (held.kind, held.name): held
            for held in cluster.cache.children(key.namespace, key.name)
            if held.owner_uid == raw["metadata"]["uid"]
        }
        for kind, name in render_deployment.obsolete(raw, parsed, children):
            await cluster.delete(kind, key.namespace, name, children[(kind, name)].uid)
            wrote = True
        return wrote

    async def _give_replicas(self, key: Key, raw: Raw, parsed: spec.DeploymentSpec) -> bool:
        partial = render_deployment.initial_replicas(raw, parsed, self._cluster.pools(key))
        for pool in partial:
            await self._cluster.give(pool, names.INITIAL_FIELD_MANAGER)
        return bool(partial)

    def _routing(self, key: Key) -> plan.Routing | None:
        stored = self._cluster.config_map(key.namespace, names.routing(key.name))
        return render_routing.parse(stored) if stored else None

    def _ready_gateways(self, key: Key) -> list[PodRecord]:
        pods = self._cluster.pods(key.namespace, names.pool(key.name, names.GATEWAY))
        return [pod for pod in pods if pod.ready and pod.live and pod.ip]

    async def _pool(self, key: Key, raw: Raw) -> Outcome:
        cluster, now = self._cluster, self._now()
        observed = plan.PoolObserved(
            pods=cluster.pods(key.namespace, key.name),
            revisions=cluster.revisions(key.namespace, key.name),
            workload=cluster.workload(key.namespace, key.name),
        )
        try:
            parsed = spec.parse_pool(raw)
        except SpecError as invalid:
            wrong = status.pool_status(raw, invalid, None, observed, now=now)
            await self._report(key, raw, wrong)
            return Outcome()

        revision = render_pool.revision(raw, parsed)
        target = plan.pool_target(key.name, parsed, revision.hash8)
        steps = plan.plan_pool(target, observed, now)
        refused: ClusterError | None = None
        try:
            wrote = await cluster.apply(render_pool.disruption_budget(raw, parsed), raw)
            for step in steps:
                logger.debug("%s: %s", key, step)
                wrote |= await self._act_pool(key, raw, revision, step)
            wrote |= await self._mend_workload(key, raw, observed.workload, steps)
            if wrote:
                return LOOK_AGAIN
        except (Rejected, Forbidden) as error:
            refused = error
        current = status.pool_status(
            raw, parsed, revision.hash8, observed, now=now, problem=_problem(refused)
        )
        await self._report(key, raw, current)
        if refused is not None:
            raise refused
        waits = [step.seconds for step in steps if isinstance(step, plan.Wait)]
        return Outcome(requeue_after=min(waits, default=None))

    async def _act_pool(self, key: Key, raw: Raw, revision: render_pool.Revision, step: plan.Step) -> bool:
        cluster = self._cluster
        match step:
            case plan.CreateRevision(number=number):
                await cluster.create(render_pool.controller_revision(raw, revision, number))
            case plan.CreatePod(hash8=hash8, slot=slot, attempt=attempt):
                record = cluster.revision(key.namespace, key.name, hash8)
                await cluster.create(render_pool.pod(raw, record, slot, attempt))
            case plan.DeletePod(name=name, uid=uid):
                await cluster.delete(resources.PODS.kind, key.namespace, name, uid)
            case plan.ApplyWorkload(hash8=hash8, replicas=replicas):
                record = cluster.revision(key.namespace, key.name, hash8)
                return await cluster.apply(render_pool.gateway_deployment(raw, record, replicas), raw)
            case plan.DeleteRevision(name=name, uid=uid):
                await cluster.delete(resources.REVISIONS.kind, key.namespace, name, uid)
            case plan.Wait():
                return False  # the outcome says when to come back
        return True

    async def _mend_workload(
        self, key: Key, raw: Raw, workload: WorkloadRecord | None, steps: tuple[plan.Step, ...]
    ) -> bool:
        """Takes back what others changed in the gateway's Deployment, where the plan leaves it as it is."""
        if workload is None or any(isinstance(step, plan.ApplyWorkload) for step in steps):
            return False
        try:
            record = self._cluster.revision(key.namespace, key.name, workload.revision)
        except Conflict:
            return False  # its revision is not stored: the plan moves it to one that is
        return await self._cluster.apply(render_pool.gateway_deployment(raw, record, workload.replicas), raw)

    async def _report(self, key: Key, raw: Raw, new: Mapping[str, Any]) -> None:
        """Writes the status where it differs and an Event for every condition that says something new."""
        if not await self._cluster.write_status(key, raw, new):
            return
        before = _conditions(raw.get("status") or {})
        for kind, condition in _conditions(new).items():
            said = (condition["status"], condition["reason"])
            old = before.get(kind)
            if said == (old and (old["status"], old["reason"])) or not _newsworthy(key, kind, condition, old):
                continue
            await self._cluster.event(
                raw,
                warning=kind == "Stalled",
                reason=condition["reason"],
                action="Reconcile",
                note=condition.get("message") or condition["reason"],
            )


def _newsworthy(key: Key, kind: str, condition: Raw, old: Raw | None) -> bool:
    """What people want to read: trouble of every object, and a deployment's becoming ready or unready."""
    if kind == "Stalled":
        return bool(condition["status"] == "True")
    if kind != "Ready" or key.kind != resources.DEPLOYMENTS.kind:
        return False
    return condition["status"] == "True" or (old is not None and old["status"] == "True")


def _conditions(state: Mapping[str, Any]) -> dict[str, Raw]:
    conditions: Iterable[Raw] = state.get("conditions") or ()
    return {condition["type"]: condition for condition in conditions}


def _problem(refused: ClusterError | None) -> Problem | None:
    if refused is None:
        return None
    return refused.reason or type(refused).__name__, str(refused)
