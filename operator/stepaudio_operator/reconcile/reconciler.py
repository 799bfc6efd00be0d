"""The dispatch: which kind of object a key is about, and whether it is still there."""

from collections.abc import Callable
from datetime import datetime

from stepaudio_operator.kube import resources
from stepaudio_operator.kube.cache import Key
from stepaudio_operator.kube.cluster import Cluster
from stepaudio_operator.polling import Poller
from stepaudio_operator.reconcile.core import GONE, Outcome, owner_is_known
from stepaudio_operator.reconcile.data import DataJobReconciler
from stepaudio_operator.reconcile.deployment import DeploymentReconciler
from stepaudio_operator.reconcile.models import ModelVolumes
from stepaudio_operator.reconcile.pool import PoolReconciler
from stepaudio_operator.reconcile.voice import VoiceReconciler
from stepaudio_operator.render.images import ImageDefaults


class Reconciler:
    """Reconciles deployments, pools, voices and data jobs, and lets volumes of models go."""

    def __init__(
        self, cluster: Cluster, poller: Poller, images: ImageDefaults, now: Callable[[], datetime]
    ) -> None:
        self._cluster = cluster
        self._poller = poller
        self._volumes = ModelVolumes(cluster, poller, images, now)
        self._deployment = DeploymentReconciler(cluster, poller, images, now)
        self._voice = VoiceReconciler(cluster, poller, now)
        self._pool = PoolReconciler(cluster, poller, now)
        self._data_job = DataJobReconciler(cluster, poller, images, now)

    async def __call__(self, key: Key) -> Outcome:
        """One reconcile. Raises `ClusterError` where another try may help."""
        if key.kind in (resources.CLAIMS.kind, resources.JOBS.kind):
            return await self._volumes.let_go(key)
        held = self._cluster.cache.held(key.kind, key.namespace, key.name)
        if held is None or held.deleting:
            self._poller.want(key, [])
            self._deployment.forget(key)
            return GONE
        if key.kind == resources.POOLS.kind and not owner_is_known(self._cluster, held.record):
            return Outcome()  # its arrival wakes this pool
        raw = held.raw()
        if key.kind == resources.POOLS.kind:
            return await self._pool(key, raw)
        if key.kind == resources.VOICES.kind:
            return await self._voice(key, raw)
        if key.kind == resources.DATA_JOBS.kind:
            return await self._data_job(key, raw)
        return await self._deployment(key, raw)
