"""Models on the nodes' own disks: what exists of them there, and what `node_copies` has written."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping
from datetime import datetime
from typing import Any

from stepaudio_operator import names
from stepaudio_operator.errors import SpecError
from stepaudio_operator.kube import resources
from stepaudio_operator.kube.cache import Held, Key
from stepaudio_operator.kube.cluster import Cluster
from stepaudio_operator.model_cache import CachePlan, CacheStep
from stepaudio_operator.node_copies import (
    Leaving,
    awaited_since,
    leaving,
    nodes_of,
    older,
    plan_copies,
    plan_copy,
)
from stepaudio_operator.polling import Poller, Target
from stepaudio_operator.reconcile.core import GONE, Outcome, Raw
from stepaudio_operator.records import CacheObserved, CopyObserved, DeploymentRecord, JobRecord, PodRecord
from stepaudio_operator.render import local_models
from stepaudio_operator.render import models as render
from stepaudio_operator.render.images import ImageDefaults
from stepaudio_operator.spec.deployment import DeploymentSpec
from stepaudio_operator.spec.models import NodeFolder
from stepaudio_operator.spec.reading import parse_deployment


def nodes_with(cluster: Cluster, namespace: str, folder: str) -> list[str]:
    """The nodes where a folder of models is whole."""
    jobs = cluster.cache.of_namespace(resources.JOBS.kind, namespace)
    found = {held.name: held.record for held in jobs if held.models == folder}
    return sorted(
        job.node
        for name, job in found.items()
        if job.node and job.complete and not job.deleting
        if name == names.copy_of(name) and names.removal(name) not in found
    )


async def wanted_live(cluster: Cluster, namespace: str, models: str) -> bool:
    """Whether a deployment asks for a volume or a folder, or may: as the API server knows them now."""
    for raw in await cluster.all_live(resources.DEPLOYMENTS, namespace):
        try:
            asked = render.set_name(parse_deployment(raw))
        except SpecError:
            return True
        if models in (asked, DeploymentRecord.from_raw(raw).models):
            return True
    return False


class NodeCopies:
    """Folders of models on nodes, of all deployments; those of a namespace that want the same share them."""

    def __init__(
        self, cluster: Cluster, poller: Poller, images: ImageDefaults, now: Callable[[], datetime]
    ) -> None:
        self._cluster = cluster
        self._poller = poller
        self._images = images
        self._now = now

    def plan(self, key: Key, models: NodeFolder) -> CachePlan:
        """What the folder comes to on the nodes of a deployment's pods."""
        raw, pods = self._cluster.cache.raw(key) or {}, self._pods(key)
        cache = (raw.get("status") or {}).get("cache") or {}
        told = {entry["node"]: entry for entry in cache.get("nodes") or ()}
        told = told if cache.get("folder") == models.folder else {}
        seen = [
            self._observed(key.namespace, models.folder, node, pods, told.get(node) or {})
            for node in nodes_of(pods)
        ]
        return plan_copies(models, seen, self._now())

    def older(self, key: Key, folder: str) -> dict[tuple[str, str], CachePlan]:
        """By folder and node, what models come to that pods wait for which want others than `folder`."""
        pods = self._pods(key)
        return {
            (other, node): plan_copy(self._observed(key.namespace, other, node, pods, {}), self._now())
            for other, node in older(pods, folder)
        }

    def targets(self, key: Key, plan: CachePlan) -> list[Target]:
        """The pods to ask how far they are."""
        folder = plan.status["folder"]
        return [
            Target(pod.uid, pod.ip, names.POOL_PORT, None, progress=True)
            for node, copy in plan.copies.items()
            if not copy.filled
            for pod in self._cluster.pods(key.namespace, names.copy(folder, node))
            if pod.running_since and pod.live and pod.ip
        ]

    async def act(self, key: Key, spec: DeploymentSpec, models: NodeFolder, plan: CachePlan) -> bool:
        """Makes the Jobs what they should be. True where that took a write."""
        wrote, cluster = False, self._cluster
        jobs = cluster.cache.of_namespace(resources.JOBS.kind, key.namespace)
        kept = any(h.record.when_unused == "Keep" for h in jobs if h.models == models.folder)
        sharing = {name for name, _ in cluster.cache.users_of(key.namespace, models.folder)} - {key.name}
        policy = "Keep" if kept and sharing else render.when_unused(spec)
        for node, copy in plan.copies.items():
            held = self._job(key.namespace, names.copy(models.folder, node))
            if copy.step is CacheStep.CREATE_JOB:
                made = render.copy_job(key.namespace, models, node, spec, self._images, policy=policy)
                await cluster.create(made)
                wrote = True
            elif held is not None and copy.step is CacheStep.DELETE_JOB:
                await cluster.delete(held.kind, key.namespace, held.name, held.uid)
                wrote = True
            elif held is not None and held.record.when_unused != policy and not held.record.deleting:
                await self._change(held, policy)
                wrote = True
        return wrote

    async def act_on_older(self, namespace: str, plans: Mapping[tuple[str, str], CachePlan]) -> bool:
        """Makes the Jobs of models that the spec does not name any more. True where that took a write."""
        wrote, cluster = False, self._cluster
        for (folder, node), copy in plans.items():
            held = self._job(namespace, names.copy(folder, node))
            if copy.step is CacheStep.CREATE_JOB and (other := await self._alike(namespace, folder)):
                await cluster.create(local_models.for_node(other, node))
                wrote = True
            elif held is not None and copy.step is CacheStep.DELETE_JOB:
                await cluster.delete(held.kind, namespace, held.name, held.uid)
                wrote = True
        return wrote

    async def let_go(self, key: Key) -> Outcome:
        """Takes away what nobody wants on a node; `key` names the Job that brought it."""
        if not await self._settle(key.namespace, key.name):
            return GONE
        return Outcome()

    async def clear(self, namespace: str) -> bool:
        """Takes away what nobody wants on any node. True where that took a write."""
        jobs = self._cluster.cache.of_namespace(resources.JOBS.kind, namespace)
        copies = {
            names.copy_of(held.name)
            for held in jobs
            if held.record.node and (held.record.when_unused == "Delete" or not held.record.complete)
        }
        return any([await self._settle(namespace, name) for name in sorted(copies)])

    async def _settle(self, namespace: str, name: str) -> bool:
        cluster = self._cluster
        job, removal = self._job(namespace, name), self._job(namespace, names.removal(name))
        known = job or removal
        if known is None:
            return False
        wanted = self._wanted(namespace, known.models)
        unfinished = job is not None and not job.record.complete
        step = leaving(
            job.record if job else None,
            removal.record if removal else None,
            running=any(pod.live for pod in cluster.pods(namespace, name)),
            wanted=wanted,
            needed=not (wanted and unfinished) or known.record.node in self._needed(namespace, known.models),
        )
        if step is Leaving.END and removal is not None:
            await cluster.delete(removal.kind, namespace, removal.name, removal.uid)
        elif step is None or job is None:
            return False
        elif step in (Leaving.STOP, Leaving.REMOVE) and await wanted_live(cluster, namespace, job.models):
            return False  # by a deployment of which nobody has told this operator yet
        elif step is Leaving.STOP:
            await self._change(job, job.record.when_unused, suspend=True)
        elif step is Leaving.REMOVE:
            live = await cluster.live(resources.JOBS, namespace, name)
            if live is not None:
                await cluster.create(local_models.removal(live))
        else:
            await cluster.delete(job.kind, namespace, name, job.uid)
        return True

    def _pods(self, key: Key) -> list[PodRecord]:
        """Those of the pools that have models."""
        pools = self._cluster.pools(key)
        return [
            pod
            for component, pool in pools.items()
            if component != names.GATEWAY
            for pod in self._cluster.every_pod(key.namespace, pool.name)
        ]

    async def _alike(self, namespace: str, folder: str) -> Raw | None:
        """A Job that has brought a folder to any node; None where there is none any more."""
        jobs = self._cluster.cache.of_namespace(resources.JOBS.kind, namespace)
        found = (h.name for h in jobs if h.models == folder and h.name == names.copy_of(h.name))
        name = min(found, default=None)
        return await self._cluster.live(resources.JOBS, namespace, name) if name is not None else None

    def _job(self, namespace: str, name: str) -> Held | None:
        return self._cluster.cache.held(resources.JOBS.kind, namespace, name)

    def _observed(
        self, namespace: str, folder: str, node: str, pods: list[PodRecord], told: dict[str, Any]
    ) -> CopyObserved:
        name = names.copy(folder, node)
        job, removal = self._job(namespace, name), self._job(namespace, names.removal(name))
        record: JobRecord | None = job.record if job else None
        fetchers = self._cluster.pods(namespace, name)
        answers = [a for pod in fetchers if pod.live and (a := self._poller.answer(pod.uid))]
        said = next((a for a in answers if a.bytes_total), None)
        return CopyObserved(
            node,
            CacheObserved(
                job=record,
                pods=fetchers,
                bytes_present=said.bytes_loaded if said else None,
                bytes_total=said.bytes_total if said else None,
                said=next(((a.reason, a.message) for a in answers if a.reason and a.message), None),
                eta_s=said.eta_s if said else None,
                told=told,
            ),
            removing=removal is not None or bool(self._cluster.pods(namespace, names.removal(name))),
            awaited_since=awaited_since(pods, folder, node),
        )

    def _wanted(self, namespace: str, folder: str) -> bool:
        """Whether somebody names a folder: a status, a stored revision, a spec."""
        cache = self._cluster.cache
        revisions = cache.of_namespace(resources.REVISIONS.kind, namespace)
        return (
            bool(cache.users_of(namespace, folder))
            or any(held.record.data.get("nodeFolder") == folder for held in revisions)
            or any(wanted == folder for wanted, _ in self._asked_for(namespace))
        )

    def _needed(self, namespace: str, folder: str) -> set[str]:
        """The nodes of the pods of all who ask for a folder, and of those that wait for it."""
        users = (key for wanted, key in self._asked_for(namespace) if wanted == folder)
        pods = (h.record for h in self._cluster.cache.of_namespace(resources.PODS.kind, namespace))
        own = [pod for pod in pods if pod.folder == folder]
        return {node for key in users for node in nodes_of(self._pods(key))} | set(nodes_of(own))

    def _asked_for(self, namespace: str) -> Iterator[tuple[str, Key]]:
        for held in self._cluster.cache.of_namespace(resources.DEPLOYMENTS.kind, namespace):
            with contextlib.suppress(SpecError):  # it changes nothing until it is mended; its status counts
                if (folder := render.node_folder(parse_deployment(held.raw()))) is not None:
                    yield folder.folder, Key(held.kind, namespace, held.name)

    async def _change(self, held: Held, policy: str, **spec: Any) -> None:
        """Changes a Job that is still the one that was seen."""
        body: Raw = {
            "apiVersion": resources.JOBS.api_version,
            "kind": held.kind,
            "metadata": {
                "namespace": held.namespace,
                "name": held.name,
                "uid": held.uid,
                "labels": {names.LABEL_WHEN_UNUSED: policy},
            },
        }
        await self._cluster.give(body | ({"spec": spec} if spec else {}), names.FIELD_MANAGER)
