"""One reconcile of a StepAudioDataJob: its volume, the Job that makes the data on it, and its status."""

from collections.abc import Callable
from datetime import datetime

from stepaudio_operator import names
from stepaudio_operator.conditions import refusal
from stepaudio_operator.data_job import Asked, DataPlan, DataStep, data_status, plan_data
from stepaudio_operator.errors import Forbidden, Rejected, SpecError, StillGoing
from stepaudio_operator.kube import resources
from stepaudio_operator.kube.cache import Key
from stepaudio_operator.kube.cluster import Cluster
from stepaudio_operator.model_cache import shared_size
from stepaudio_operator.polling import Poller, Target
from stepaudio_operator.reconcile.core import GONE, LOOK_AGAIN, Outcome, Raw, problem, report
from stepaudio_operator.records import DataObserved
from stepaudio_operator.render import data as render
from stepaudio_operator.render.images import ImageDefaults
from stepaudio_operator.spec.reading import parse_data_job


class DataJobReconciler:
    """Reconciles data jobs."""

    def __init__(
        self, cluster: Cluster, poller: Poller, images: ImageDefaults, now: Callable[[], datetime]
    ) -> None:
        self._cluster = cluster
        self._poller = poller
        self._images = images
        self._now = now

    async def __call__(self, key: Key, raw: Raw) -> Outcome:
        """One reconcile of `raw`. Raises `ClusterError` where another try may help."""
        cluster, now = self._cluster, self._now()
        if not await cluster.still_exists(key):
            return GONE
        try:
            spec = parse_data_job(raw)
        except SpecError as wrong:
            self._poller.want(key, [])
            await report(cluster, key, raw, data_status(raw, wrong, now))
            return Outcome()
        asked = render.asked(key.name, spec)
        seen = self.observed(key)
        self._poller.want(key, _targets(seen))
        plan = plan_data(asked, seen, raw.get("status") or {}, now)
        refused = None
        try:
            if await self._act(key, raw, asked, seen, plan):
                return LOOK_AGAIN
        except (Rejected, Forbidden, StillGoing) as error:
            refused = error
        if (trouble := problem(refused)) is not None:
            plan = DataPlan(plan.figures, refusal(trouble))
        await report(cluster, key, raw, data_status(raw, plan, now))
        if refused is not None:
            raise refused
        return Outcome(requeue_after=plan.look_after_s)

    async def _act(self, key: Key, raw: Raw, asked: Asked, seen: DataObserved, plan: DataPlan) -> bool:
        """Makes the volume and the Job what they should be. True where that took a write."""
        cluster, wrote = self._cluster, False
        volume = asked.spec.output.volume
        if volume is not None and (seen.claim is None or not seen.claim.deleting):
            size = shared_size(volume.size, seen.claim)
            wrote |= await cluster.apply(render.claim(key.namespace, key.name, volume, size), None)
        if plan.step is DataStep.CREATE_JOB:
            image = render.reference(asked.spec, self._images, plan.figures.get("image", ""))
            await cluster.create(render.job(raw, asked.spec, image))
            wrote = True
        if plan.step is DataStep.DELETE_JOB and seen.job is not None:
            wrote |= await cluster.delete(resources.JOBS.kind, key.namespace, seen.job.name, seen.job.uid)
        return wrote

    def observed(self, key: Key) -> DataObserved:
        """What exists of a data job, as far as the caches know."""
        cache, name = self._cluster.cache, names.data(key.name)
        claim = cache.held(resources.CLAIMS.kind, key.namespace, name)
        job = cache.held(resources.JOBS.kind, key.namespace, name)
        pods = self._cluster.pods(key.namespace, name)
        answers = [answer for pod in pods if pod.live and (answer := self._poller.answer(pod.uid))]
        said = next((a for a in answers if a.samples_total), None)
        return DataObserved(
            claim=claim.record if claim else None,
            job=job.record if job else None,
            pods=pods,
            samples_made=said.samples_made if said else None,
            samples_total=said.samples_total if said else None,
        )


def _targets(seen: DataObserved) -> list[Target]:
    """The pods to ask how far they are."""
    return [
        Target(pod.uid, pod.ip, names.POOL_PORT, None, progress=True)
        for pod in seen.pods
        if pod.running_since and pod.live and pod.ip
    ]
