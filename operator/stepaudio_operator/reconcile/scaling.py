"""The autoscaler of a pool: what its pods and the gateways have said, and its replicas, given to it."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime

from stepaudio_operator import autoscale, names
from stepaudio_operator.kube.cluster import Cluster
from stepaudio_operator.memory import Scaling
from stepaudio_operator.polling import Answer, Poller
from stepaudio_operator.reconcile.core import Raw
from stepaudio_operator.reconcile.pods import serves
from stepaudio_operator.records import PodRecord, PoolObserved
from stepaudio_operator.spec import reading as spec

LOOK_EVERY_S = 15.0
"""How often a pool's work is looked at (s); a request for a pool that sleeps wakes it without waiting."""


class Autoscaler:
    """Of all pools whose spec has `autoscaling`. Their pods are asked by `reconcile.pods`."""

    def __init__(self, cluster: Cluster, poller: Poller) -> None:
        self._cluster = cluster
        self._poller = poller

    def decide(
        self,
        parsed: spec.PoolSpec,
        observed: PoolObserved,
        gateways: Iterable[PodRecord],
        now: datetime,
    ) -> Scaling | None:
        """What the pool should remember of it; None where the operator does not decide its replicas."""
        rules = autoscale.Rules.of(parsed)
        if rules is None:
            return None
        held = observed.memory.scaling
        if parsed.replicas is None:
            return held  # its deployment is about to say what it begins with
        work = (answer.work for answer in self._answers(observed.pods))
        waiting = [
            answer.waiting[parsed.component]
            for answer in self._answers(gateways)
            if answer.waiting is not None and parsed.component in answer.waiting
        ]
        seen = autoscale.Seen(
            work=tuple(said for said in work if said is not None),
            waiting=sum(waiting) if waiting and rules.minimum == 0 else None,
        )
        return autoscale.decide(rules, held, parsed.replicas, seen, now)

    async def act(self, raw: Raw, parsed: spec.PoolSpec, scaling: Scaling | None) -> bool:
        """Gives the pool the replicas that were decided. True where that took a write."""
        if scaling is None or parsed.replicas in (None, scaling.replicas):
            return False
        partial = {
            "apiVersion": names.API_VERSION,
            "kind": names.POOL_KIND,
            "metadata": {"name": raw["metadata"]["name"], "namespace": raw["metadata"]["namespace"]},
            "spec": {"replicas": scaling.replicas},
        }
        await self._cluster.give(partial, names.AUTOSCALER_FIELD_MANAGER)
        note = f"{parsed.replicas} to {scaling.replicas} replicas: {scaling.reason}"
        await self._cluster.event(raw, warning=False, reason="Scaled", action="Scale", note=note)
        return True

    def _answers(self, pods: Iterable[PodRecord]) -> list[Answer]:
        answers = (self._poller.answer(pod.uid) for pod in pods if serves(pod))
        return [answer for answer in answers if answer is not None]
