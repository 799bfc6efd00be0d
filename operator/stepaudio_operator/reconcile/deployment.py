"""One reconcile of a StepAudioDeployment: its children, the routing object, what gateways say, its status."""

from collections.abc import Callable
from datetime import datetime

from stepaudio_operator import names, release, spec, status
from stepaudio_operator.cache import Key
from stepaudio_operator.cluster import Cluster
from stepaudio_operator.errors import ClusterError, Forbidden, Rejected, SpecError
from stepaudio_operator.polling import Poller, Target
from stepaudio_operator.reconcile.core import GONE, LOOK_AGAIN, Outcome, Raw, problem, report
from stepaudio_operator.records import PodRecord, Routing
from stepaudio_operator.render import deployment as render_deployment
from stepaudio_operator.render import routing as render_routing
from stepaudio_operator.render.images import ImageDefaults


class DeploymentReconciler:
    """Reconciles deployments."""

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
            parsed = spec.parse_deployment(raw)
        except SpecError as invalid:
            wrong = status.deployment_status(raw, invalid, cluster.pools(key), routing=None, acks={}, now=now)
            await report(cluster, key, raw, wrong)
            return Outcome()

        refused: ClusterError | None = None
        try:
            if await self._act(key, raw, parsed):
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
            raw, parsed, cluster.pools(key), routing=routing, acks=acks, now=now, problem=problem(refused)
        )
        await report(cluster, key, raw, current)
        if refused is not None:
            raise refused
        return Outcome()

    async def _act(self, key: Key, raw: Raw, parsed: spec.DeploymentSpec) -> bool:
        """Makes the children what they should be. True where that took a write."""
        cluster, wrote = self._cluster, False
        wrote |= await self._give_replicas(key, raw, parsed)
        for child in render_deployment.children(raw, parsed, cluster.pools(key), self._images):
            wrote |= await cluster.apply(child, raw)
        wrote |= await self._give_replicas(key, raw, parsed)  # pools that have just been made
        current = self._routing(key)
        routing = release.plan_routing(parsed, key.name, cluster.pools(key), current) or current
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

    def _routing(self, key: Key) -> Routing | None:
        stored = self._cluster.config_map(key.namespace, names.routing(key.name))
        return render_routing.parse(stored) if stored else None

    def _ready_gateways(self, key: Key) -> list[PodRecord]:
        pods = self._cluster.pods(key.namespace, names.pool(key.name, names.GATEWAY))
        return [pod for pod in pods if pod.ready and pod.live and pod.ip]
