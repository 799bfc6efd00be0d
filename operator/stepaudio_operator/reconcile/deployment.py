"""One reconcile of a StepAudioDeployment: its children, the routing object, what gateways say, its status."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime

from stepaudio_operator import names, status, voices
from stepaudio_operator.border import Release, release_of
from stepaudio_operator.canary import judged, verdicts, watched
from stepaudio_operator.errors import Forbidden, Rejected, SpecError, StillGoing
from stepaudio_operator.gpus import vram
from stepaudio_operator.kube import resources
from stepaudio_operator.kube.cache import Key
from stepaudio_operator.kube.cluster import Cluster
from stepaudio_operator.model_cache import CachePlan
from stepaudio_operator.polling import Poller, Target
from stepaudio_operator.reconcile.core import GONE, LOOK_AGAIN, Outcome, Problem, Raw, problem, report
from stepaudio_operator.reconcile.models import ModelVolumes
from stepaudio_operator.records import FiguresOf, PodRecord, PoolRecord, Routing
from stepaudio_operator.release import ReleasePlan, plan_release
from stepaudio_operator.render import deployment as render_deployment
from stepaudio_operator.render import routing as render_routing
from stepaudio_operator.render.images import ImageDefaults
from stepaudio_operator.spec import reading as spec

PATIENCE_S = 10.0
"""Pools that were just written say within moments what they made of it. Only where one does not for so long
is its silence told; until then `observedGeneration` says that the status is of before.
"""


@dataclass(frozen=True)
class Desired:
    """What a deployment should have now."""

    children: list[Raw]
    release: ReleasePlan
    models: CachePlan | None
    """Of the volume of downloaded models; None where there is none."""


class DeploymentReconciler:
    """Reconciles deployments."""

    def __init__(
        self, cluster: Cluster, poller: Poller, images: ImageDefaults, now: Callable[[], datetime]
    ) -> None:
        self._cluster = cluster
        self._poller = poller
        self._images = images
        self._now = now
        self._models = ModelVolumes(cluster, poller, images, now)
        self._silent: dict[Key, datetime] = {}  # since when a pool of it has not taken up its newest spec

    async def __call__(self, key: Key, raw: Raw) -> Outcome:
        """One reconcile of `raw`. Raises `ClusterError` where another try may help."""
        cluster, now = self._cluster, self._now()
        if not await cluster.still_exists(key):
            return GONE
        try:
            parsed = spec.parse_deployment(raw)
            too_large = vram.refused(parsed)
            desired = self.desired(key, raw, parsed) if too_large is None else None
        except SpecError as invalid:  # also of a pool that would come of it, with what it gets by default
            self._poller.want(key, [])
            wrong = status.deployment_status(raw, invalid, cluster.pools(key), routing=None, acks={}, now=now)
            await report(cluster, key, raw, wrong)
            return Outcome()

        if desired is None:
            nothing = Desired([], ReleasePlan(None), self._models.plan(key, parsed))
            await self._tell(key, raw, parsed, nothing, pending=False, trouble=too_large)
            return Outcome()
        pending, refused = False, None
        if parsed.paused:
            pending = not all(map(cluster.as_applied, desired.children))
        else:
            try:
                if await self._act(key, raw, parsed, desired):
                    return LOOK_AGAIN
            except (Rejected, Forbidden, StillGoing) as error:
                refused = error
        outcome = await self._tell(key, raw, parsed, desired, pending=pending, trouble=problem(refused))
        if refused is not None:
            raise refused
        return outcome

    async def _tell(
        self,
        key: Key,
        raw: Raw,
        parsed: spec.DeploymentSpec,
        desired: Desired,
        *,
        pending: bool,
        trouble: Problem | None,
    ) -> Outcome:
        """Asks the gateways what they serve, and writes the status."""
        routing = self._routing(key)
        gateways = self._gateways(key)
        generation = routing.generation if routing else None
        canary = parsed.rollout is not None and parsed.rollout.canary is not None
        trial = canary and any(judged(pool, routing) for pool in self._cluster.pools(key).values())
        asked = [Target(pod.uid, pod.ip, names.GATEWAY_PORT, generation, trial) for pod in gateways]
        self._poller.want(key, asked + self._models.targets(key, parsed, desired.models))
        ready = [pod for pod in gateways if not pod.deleting]
        if any(self._poller.answer(pod.uid) is None for pod in ready):
            return Outcome()  # a gateway is being asked; its answer wakes this deployment
        may_act = trouble is None and not parsed.paused
        if may_act and (early := self._early(key, parsed)) is not None:
            return Outcome(requeue_after=early)  # before that the pool's status wakes this deployment
        current = status.deployment_status(
            raw,
            parsed,
            self._cluster.pools(key),
            routing=routing,
            acks=self._acks(ready),
            now=self._now(),
            problem=trouble,
            waiting=desired.release.waiting,
            models=desired.models,
            pending=pending,
            vram=vram.to_status(parsed),
        )
        await report(self._cluster, key, raw, current)
        leaving = [pod.delete_by for pod in gateways if pod.deleting and pod.delete_by]
        # A gateway on a node that does not answer is not waited for for ever.
        waits = [(min(leaving) - self._now()).total_seconds()] if leaving else []
        look_after_s = desired.models.look_after_s if desired.models is not None else None
        if look_after_s is not None and (may_act or look_after_s > 0):  # else what is due may not be done
            waits.append(look_after_s)
        return Outcome(requeue_after=min(waits, default=None))

    def _early(self, key: Key, parsed: spec.DeploymentSpec) -> float | None:
        """How long to wait for a pool to take up its newest spec (s); None where all have, or time is up."""
        pools = self._cluster.pools(key)
        if all(pool.current for component, pool in pools.items() if component in parsed.components):
            self._silent.pop(key, None)
            return None
        waited = (self._now() - self._silent.setdefault(key, self._now())).total_seconds()
        return PATIENCE_S - waited if waited < PATIENCE_S else None

    def forget(self, key: Key) -> None:
        """The deployment is gone."""
        self._silent.pop(key, None)

    def desired(
        self, key: Key, raw: Raw, parsed: spec.DeploymentSpec, *, models_there: bool = False
    ) -> Desired:
        """What the children should be, from what the caches hold; with `models_there` what they will be when
        the models are there.
        """
        pools = self._cluster.pools(key)
        models = self._models.plan(key, parsed)
        held = None if models_there else self._models.held_models(key, parsed, models)
        children = render_deployment.children(
            raw, parsed, pools, self._images, held, voices=self._voices(key, parsed)
        )
        releases = (
            release_of(spec.parse_pool(child))
            for child in children
            if child["kind"] == names.POOL_KIND and child["spec"]["component"] != names.GATEWAY
        )
        wanted = next(releases, None)
        # Where no pool can be made before the models are there, those that are there stay until then.
        planned = ReleasePlan(
            None, leaving=frozenset({names.TOKENIZER}) if parsed.tokenizer_with_tts else frozenset()
        )
        if wanted is not None:
            acks = self._acks(self._gateways(key))
            planned = plan_release(
                parsed,
                pools,
                self._releases(key),
                wanted,
                self._routing(key),
                acks=acks,
                hearing=self._hearing(key),
            )
            children += self._as_they_stand(raw, (pools[c] for c in sorted(planned.leaving)))
        rules = parsed.rollout.canary if parsed.rollout is not None else None
        failed, seen = {}, {}
        if rules is not None:
            routing, figures = self._routing(key), self._figures(key)
            failed = verdicts(rules, pools, routing, figures)
            seen = watched(pools, routing, figures, gateways=names.GATEWAY in parsed.components)
        render_deployment.note(children, planned, failed, seen)
        return Desired(children, planned, models)

    async def _act(self, key: Key, raw: Raw, parsed: spec.DeploymentSpec, desired: Desired) -> bool:
        """Makes the children what they should be. True where that took a write."""
        cluster, wrote = self._cluster, False
        wrote |= await self._models.act(key, raw, parsed, desired.models)
        for child in desired.children:
            wrote |= await cluster.apply(child, raw)
        routing = desired.release.routing
        if routing is not None:
            wrote |= await cluster.apply(render_routing.config_map(raw, routing), raw)
        children = {
            (held.kind, held.name): held
            for held in cluster.cache.children(key.namespace, key.name)
            if held.owner_uid == raw["metadata"]["uid"]
        }
        for kind, name in render_deployment.obsolete(raw, parsed, children, desired.release.leaving):
            wrote |= await cluster.delete(kind, key.namespace, name, children[(kind, name)].uid)
        return wrote

    def _as_they_stand(self, raw: Raw, pools: Iterable[PoolRecord]) -> list[Raw]:
        """Pools of which the spec says nothing any more; they have to be told all the same."""
        keys = [(pool, Key(names.POOL_KIND, pool.namespace, pool.name)) for pool in pools]
        held = ((pool, self._cluster.cache.raw(key)) for pool, key in keys)
        return [render_deployment.as_it_stands(raw, live, pool) for pool, live in held if live is not None]

    def _voices(self, key: Key, parsed: spec.DeploymentSpec) -> list[Raw]:
        """What the gateways are to keep of the voices that stand in Git."""
        if parsed.voices is None:
            return []
        cache = self._cluster.cache
        keys = [
            Key(resources.VOICES.kind, key.namespace, voice.name)
            for voice in cache.voices_of(key.namespace, key.name)
        ]
        kept = voices.entries_of(self._cluster.config_map(key.namespace, names.voices(key.name)))
        return voices.wanted(filter(None, map(cache.raw, keys)), kept)

    def _releases(self, key: Key) -> Mapping[str, Mapping[str, Release]]:
        """The release of every stored revision, by component."""
        found: dict[str, dict[str, Release]] = {}
        for component in names.COMPONENTS:
            stored = self._cluster.revisions(key.namespace, names.pool(key.name, component))
            known = ((record.hash8, Release.parse(record.release)) for record in stored)
            found[component] = {hash8: release for hash8, release in known if release is not None}
        return found

    def _hearing(self, key: Key) -> frozenset[str]:
        """The stored revisions of TTS whose pods hold the tokenizer too."""
        stored = self._cluster.revisions(key.namespace, names.pool(key.name, names.TTS))
        return frozenset(record.hash8 for record in stored if record.data.get("withTokenizer"))

    def _routing(self, key: Key) -> Routing | None:
        stored = self._cluster.config_map(key.namespace, names.routing(key.name))
        return render_routing.parse(stored) if stored else None

    def _acks(self, gateways: Iterable[PodRecord]) -> Mapping[str, int | None]:
        """The generation of the routing object that each gateway pod serves, as far as is known."""
        answers = {pod.name: self._poller.answer(pod.uid) for pod in gateways}
        return {name: answer.routing_generation if answer else None for name, answer in answers.items()}

    def _figures(self, key: Key) -> list[FiguresOf]:
        """What the gateways have seen of revisions, as far as they were asked."""
        answers = (self._poller.answer(pod.uid) for pod in self._gateways(key))
        return [answer.figures for answer in answers if answer is not None and answer.figures is not None]

    def _gateways(self, key: Key) -> list[PodRecord]:
        """Gateway pods that serve, or may, and those that leave: what they have begun they still finish."""
        pods = self._cluster.pods(key.namespace, names.pool(key.name, names.GATEWAY))
        now = self._now()
        leaving = [p for p in pods if p.deleting and not p.failed and p.delete_by and now < p.delete_by]
        serving = [p for p in pods if p.live and p.may_serve]
        return [pod for pod in pods if pod.ip and (pod in serving or pod in leaving)]
