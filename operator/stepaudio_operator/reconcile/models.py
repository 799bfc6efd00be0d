"""The volume of a deployment's downloaded models: what exists of it, and what `model_cache` has written."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from datetime import datetime
from typing import Any

from stepaudio_operator import names
from stepaudio_operator.errors import SpecError
from stepaudio_operator.kube import resources
from stepaudio_operator.kube.cache import Key
from stepaudio_operator.kube.cluster import Cluster
from stepaudio_operator.model_cache import (
    CachePlan,
    CacheStep,
    mounted,
    plan_cache,
    shared_policy,
    shared_size,
    unused,
)
from stepaudio_operator.polling import Poller, Target
from stepaudio_operator.reconcile.copies import NodeCopies, wanted_live
from stepaudio_operator.reconcile.core import GONE, Outcome, Raw
from stepaudio_operator.records import CacheObserved, ClaimRecord
from stepaudio_operator.records.reading import conditions_of
from stepaudio_operator.render import models as render
from stepaudio_operator.render.images import ImageDefaults
from stepaudio_operator.spec.deployment import DeploymentSpec
from stepaudio_operator.spec.reading import parse_deployment


class ModelVolumes:
    """Volumes of models of all deployments; several deployments of a namespace may share one."""

    def __init__(
        self, cluster: Cluster, poller: Poller, images: ImageDefaults, now: Callable[[], datetime]
    ) -> None:
        self._cluster = cluster
        self._poller = poller
        self._images = images
        self._now = now
        self._copies = NodeCopies(cluster, poller, images, now)

    def plan(self, key: Key, spec: DeploymentSpec) -> CachePlan | None:
        """What the volume or the folders that `spec` needs come to; None where its models are not
        downloaded.
        """
        name = render.set_name(spec)
        if name is None:
            return None
        if (folder := render.node_folder(spec)) is not None:
            plan = self._copies.plan(key, folder)
        else:
            status = (self._cluster.cache.raw(key) or {}).get("status") or {}
            ready = conditions_of(status).get("Ready")
            seen = replace(
                self._observed(key.namespace, name),
                told=status.get("cache") or {},
                told_why=(ready.reason, ready.message) if ready is not None else None,
            )
            plan = plan_cache(name, seen, self._now())
        older = self._copies.older(key, name)
        looks = [p.look_after_s for p in (plan, *older.values()) if p.look_after_s is not None]
        return replace(plan, older=older, look_after_s=min(looks, default=None))

    def held_models(self, key: Key, spec: DeploymentSpec, plan: CachePlan | None) -> Mapping[str, Any] | None:
        """By component, the models that pools keep until the new ones are there; None where they are, or
        where they are to come to wherever the pools' pods are put. A pool of another preset is not among
        them: it stays as it is, for its models are nothing to the new one.
        """
        if plan is None or plan.filled:
            return None
        pools = self._cluster.pools(key).values()
        raws = {
            p.component: self._cluster.cache.raw(Key(resources.POOLS.kind, key.namespace, p.name))
            for p in pools
        }
        models = {
            component: raw["spec"].get("models")
            for component, raw in raws.items()
            if raw is not None and raw["spec"].get("preset") == spec.preset
        }
        told = [kept for component, kept in models.items() if component != names.GATEWAY]
        if render.node_folder(spec) is not None and all(kept == render.pool_models(spec) for kept in told):
            return None
        return models

    def targets(self, key: Key, spec: DeploymentSpec, plan: CachePlan | None) -> list[Target]:
        """The pods to ask how far they are."""
        if plan is not None and plan.copies:
            return self._copies.targets(key, plan)
        name = render.claim_name(spec)
        if name is None:
            return []
        return [
            Target(pod.uid, pod.ip, names.POOL_PORT, None, progress=True)
            for pod in self._cluster.pods(key.namespace, name)
            if pod.running_since and pod.live and pod.ip
        ]

    async def act(self, key: Key, raw: Raw, spec: DeploymentSpec, plan: CachePlan | None) -> bool:
        """Makes the volume and its Job (or the Jobs of nodes) what they should be. True where that took a
        write.
        """
        wrote = await self._clear(key) | await self._copies.clear(key.namespace)
        if plan is not None:
            wrote |= await self._copies.act_on_older(key.namespace, plan.older)
        if plan is not None and (folder := render.node_folder(spec)) is not None:
            return wrote | await self._copies.act(key, spec, folder, plan)
        name = render.claim_name(spec)
        if plan is None or name is None:
            return wrote
        cluster, seen = self._cluster, self._observed(key.namespace, name)
        if seen.claim is None or not seen.claim.deleting:
            wrote |= await cluster.apply(self._claim(key, raw, spec, name, seen.claim), None)
        if plan.step is CacheStep.CREATE_JOB and seen.claim is not None:
            await cluster.create(render.job(key.namespace, name, seen.claim.uid, spec, self._images))
            wrote = True
        if plan.step is CacheStep.DELETE_JOB and seen.job is not None:
            wrote |= await cluster.delete(resources.JOBS.kind, key.namespace, name, seen.job.uid)
        return wrote

    async def let_go(self, key: Key) -> Outcome:
        """Deletes the Job of a volume that is being deleted: its pods, ended or not, would hold it. What
        nobody wants on a node is taken away.
        """
        if key.kind == resources.JOBS.kind:
            return await self._copies.let_go(key)
        claim = self._cluster.cache.held(key.kind, key.namespace, key.name)
        if claim is None or not claim.record.deleting:
            return GONE
        job = self._cluster.cache.held(resources.JOBS.kind, key.namespace, key.name)
        if job is not None and not job.record.deleting:
            await self._cluster.delete(resources.JOBS.kind, key.namespace, key.name, job.uid)
        return Outcome()

    def _claim(self, key: Key, raw: Raw, spec: DeploymentSpec, name: str, claim: ClaimRecord | None) -> Raw:
        """The claim as all who share it would have it, whoever of them asks."""
        cache, me = self._cluster.cache, (key.name, raw["metadata"]["uid"])
        living = {(h.name, h.uid) for h in cache.of_namespace(resources.DEPLOYMENTS.kind, key.namespace)}
        owners = set(claim.users) if claim else set()
        users = {me, *cache.users_of(key.namespace, name), *(owners & living)}
        stands = claim.when_unused if claim is not None else ""
        policy = shared_policy(render.when_unused(spec), stands, others=len(users) > 1)
        size = shared_size(render.size(spec), claim)
        return render.claim(key.namespace, name, spec, size=size, policy=policy, users=sorted(users))

    async def _clear(self, key: Key) -> bool:
        """Deletes volumes that nobody needs any more, where that was asked for."""
        cache = self._cluster.cache
        claims = cache.of_namespace(resources.CLAIMS.kind, key.namespace)
        if not claims:
            return False
        gone = unused(
            [held.record for held in claims],
            (held.record.models for held in cache.of_namespace(resources.DEPLOYMENTS.kind, key.namespace)),
            mounted(
                held.record.data["template"]
                for held in cache.of_namespace(resources.REVISIONS.kind, key.namespace)
            ),
            self._asked_for(key.namespace),
        )
        wrote = False
        for claim in gone:
            if await wanted_live(self._cluster, key.namespace, claim.name):
                continue  # by a deployment of which nobody has told this operator yet
            wrote |= await self._cluster.delete(resources.CLAIMS.kind, key.namespace, claim.name, claim.uid)
        return wrote

    def _asked_for(self, namespace: str) -> Iterator[str]:
        """The volumes that specs need: a volume is made before a status names it."""
        for held in self._cluster.cache.of_namespace(resources.DEPLOYMENTS.kind, namespace):
            with contextlib.suppress(SpecError):  # it changes nothing until it is mended; its status counts
                if name := render.claim_name(parse_deployment(held.raw())):
                    yield name

    def _observed(self, namespace: str, name: str) -> CacheObserved:
        cache = self._cluster.cache
        claim = cache.held(resources.CLAIMS.kind, namespace, name)
        job = cache.held(resources.JOBS.kind, namespace, name)
        pods = self._cluster.pods(namespace, name)
        answers = [answer for pod in pods if pod.live and (answer := self._poller.answer(pod.uid))]
        said = next((a for a in answers if a.bytes_total), None)
        return CacheObserved(
            claim=claim.record if claim else None,
            job=job.record if job else None,
            pods=pods,
            bytes_present=said.bytes_loaded if said else None,
            bytes_total=said.bytes_total if said else None,
            said=next(((a.reason, a.message or "") for a in answers if a.reason), None),
            eta_s=said.eta_s if said else None,
        )
