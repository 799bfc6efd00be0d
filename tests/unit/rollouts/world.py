"""A whole deployment in memory: the operator's code between a small API server and the gateways' code.

Real are everything of the operator from its caches to its reconciles, and the gateways' balancers. Played are
the API server (`api.Api`), the scheduler with bounded room, the kubelet, the Deployment controller, the
garbage collector of what pools leave, and the clients. Nothing happens by itself: a test says who moves next,
so every order of events can be had, and what the operator knows may be older than what is.

Checked at every move:
- the operator takes no pod that serves below the budget, as it knows the world at that moment;
- it takes the last pods of a release only when no gateway has a request of that release on its way;
- no request meets pods of two releases.
"""

import json
from collections import Counter
from collections.abc import Callable
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta

from stepaudio_operator import names
from stepaudio_operator.errors import ClusterError
from stepaudio_operator.kube import resources
from stepaudio_operator.kube.cache import Key
from stepaudio_operator.kube.cluster import Cluster
from stepaudio_operator.polling import Answer, Target
from stepaudio_operator.reconcile.core import Outcome
from stepaudio_operator.reconcile.reconciler import Reconciler
from stepaudio_operator.records import FiguresOf, VoiceSaid, Work
from stepaudio_operator.render.images import ImageDefaults
from stepaudio_runtime.errors import Unavailable
from stepaudio_runtime.gateway.routing import Endpoint, parse_routing
from tests.unit.rollouts.api import Api, Cut, Place, Raw
from tests.unit.rollouts.nodes import Nodes, is_ready
from tests.unit.rollouts.players import Asked, Gateway, Operator, Request, drive, ours, path_release, serves

NAMESPACE, NAME = "a", "prod"
DEPLOYMENT: Place = (names.DEPLOYMENT_KIND, NAMESPACE, NAME)
OURS = (names.POOL_KIND, names.VOICE_KIND)
IDLE_LOOKS = 45
"""Of an autoscaler, a quarter of a minute apart: more than ten minutes."""
STAGES = (names.TOKENIZER, names.CHAT, names.TTS)
"""The way of a request through the pools."""


class World:
    """`room`: how many pods of each component the nodes hold; `broken(pod)`: whether its container fails.
    `figures`: what every gateway has seen of revisions, None where none can be asked; `said`: what pods of
    models answer, by component.
    """

    images = ImageDefaults("1.0.0", "")
    """What the operator's own settings say of them, from its next start."""

    def __init__(self, spec: Raw, room: dict[str, int], broken: Callable[[Raw], bool] = lambda pod: False):
        self.now = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
        self.broken = broken
        self.api = Api(lambda: self.now)
        self.nodes = Nodes(self.api, lambda: self.now, room, broken, self._in_flight)
        self.api.before_delete = self._check_delete
        self.requests: list[Request] = []
        self.gateways: dict[str, Gateway] = {}
        self.told: Counter[str] = Counter()
        """What clients were told: served, unavailable."""
        self.crashes = 0
        self.figures: FiguresOf | None = {}
        self.said: dict[str, Answer] = {}
        self.voice_said: Callable[[str], VoiceSaid | None] = lambda uid: None
        """What gateways answer of the voice of this uid."""
        self.api.store(
            names.DEPLOYMENT_KIND,
            {
                "apiVersion": names.API_VERSION,
                "kind": names.DEPLOYMENT_KIND,
                "metadata": {"namespace": NAMESPACE, "name": NAME},
                "spec": spec,
            },
        )
        self.operator = self._start()

    def twin(self, room: dict[str, int]) -> "World":
        """Another world that begins as this one is, with an operator and gateways that have just started."""
        other = World({}, room, self.broken)
        other.now = self.now
        other.api.take_over(self.api)
        other.gateways = {uid: Gateway() for uid in self.gateways}
        for uid in other.gateways:
            other.gateway_moves(uid)
        other.operator = other._start()
        return other

    @property
    def seconds(self) -> float:
        """The clock as gateways read it."""
        return self.now.timestamp()

    # --- the operator -----------------------------------------------------------------------------------

    def _start(self, late: bool = False) -> Operator:
        """A new life of the operator: everything is listed, every key is due. `late`: all but deployments."""
        asked, due = Asked(), set[Key]()
        cluster = Cluster(
            self.api,  # type: ignore[arg-type]
            lambda key, fresh: due.add(key),
            namespace=None,
            instance="one",
            wall=lambda: self.now,
            on_trouble=lambda resource, error: None,
        )
        reconciler = Reconciler(cluster, asked, self.images, lambda: self.now)  # type: ignore[arg-type]
        kinds = [r.resource.kind for r in cluster.reflectors] + [names.DEPLOYMENT_KIND]
        seen = {kind: len(self.api.events[kind]) for kind in kinds}
        started = Operator(cluster, reconciler, asked, seen, due)
        for reflector in cluster.reflectors:
            for raw in self.api.of(reflector.resource.kind):
                if reflector.resource.kind in OURS or ours(raw):
                    reflector.store.put(raw, listed=True)
        if late:
            started.seen[names.DEPLOYMENT_KIND] = 0
            return started
        for raw in self.api.of(names.DEPLOYMENT_KIND):
            cluster.see(resources.DEPLOYMENTS, None, raw)
        return started

    def restart_operator(self, late: bool = False) -> None:
        """The operator's process ends and another begins; `late`: one that has yet to hear of deployments."""
        self.crashes += 1
        self.operator = self._start(late)

    def deliver(self, kind: str, most: int | None = None) -> bool:
        """The watch of one kind tells the operator of `most` more events, else of all."""
        operator = self.operator
        stores = {r.resource.kind: r.store for r in operator.cluster.reflectors}
        news = self.api.events[kind][operator.seen[kind] :][:most]
        for what, raw in news:
            if kind == names.DEPLOYMENT_KIND:
                operator.cluster.see(resources.DEPLOYMENTS, what, raw)
            elif kind in OURS or ours(raw):
                (stores[kind].deleted if what == "DELETED" else stores[kind].put)(raw)
            operator.seen[kind] += 1
        return bool(news)

    def run(self, key: Key) -> None:
        """One reconcile of a key that is due."""
        self.operator.due.discard(key)
        self.operator.timers.pop(key, None)
        try:
            outcome: Outcome = drive(self.operator.reconcile(key))
        except Cut:
            self.restart_operator()
            return
        except ClusterError:
            self.operator.due.add(key)
            return
        if outcome.requeue_after == 0:
            self.operator.due.add(key)
        elif outcome.requeue_after is not None:
            self.operator.timers[key] = self.now + timedelta(seconds=outcome.requeue_after)

    def ask_pods(self) -> bool:
        """Every question of the operator is answered once; True where an answer is news."""
        news, asked, answers = False, self.operator.asked, dict[str, Answer]()
        for key, targets in asked.targets.items():
            for uid, target in targets.items():
                answer = self._status(uid, target, key.name.removeprefix(f"{NAME}-"))
                if answer.differs(asked.answers.get(uid)):
                    self.operator.due.add(key)
                    news = True
                answers[uid] = answer if target.figures else answers.get(uid, answer)
        asked.answers |= answers
        return news

    def _status(self, uid: str, target: Target, component: str) -> Answer:
        """What a pod answers: a gateway what it serves, another one how many requests have met it."""
        gateway = self.gateways.get(uid.partition("/")[0])
        if gateway is not None:
            waiting = gateway.balancer.waiting(now=self.seconds)
            figures = self.figures if target.figures else None
            voice = self.voice_said(target.voice[0]) if target.voice is not None else None
            return Answer("Ready", 0, gateway.balancer.generation, figures, waiting=waiting, voice=voice)
        if not target.work:
            return self.said.get(component, Answer()) if target.port == names.POOL_PORT else Answer()
        pod = next((p for p in self.pods() if p["metadata"]["uid"] == uid), None)
        if pod is None or not serves(pod):
            return Answer()
        busy = sum(any(name == pod["metadata"]["name"] for name, _ in r.met) for r in self.requests)
        return Answer("Ready", busy, work=Work(busy, busy))

    # --- nodes --------------------------------------------------------------------------------------------

    def pods(self, component: str | None = None) -> list[Raw]:
        return self.nodes.pods(component)

    def node_moves(self, pod: Raw) -> bool:
        """A pod comes one stage further; a gateway's own state comes and goes with it. True where it did."""
        meta = pod["metadata"]
        moved = self.nodes.moves(pod)
        left = self.api.objects.get(("Pod", NAMESPACE, meta["name"]))
        if left is None:
            self.gateways.pop(meta["uid"], None)
        elif is_ready(left) and meta["uid"] not in self.gateways and left in self.pods(names.GATEWAY):
            self.gateways[meta["uid"]] = Gateway()
            self.gateway_moves(meta["uid"])
        return moved

    # --- gateways and clients -----------------------------------------------------------------------------

    def gateway_moves(self, uid: str) -> bool:
        """A gateway takes over the routing object and the endpoints as they are now."""
        stored = self.api.objects.get(("ConfigMap", NAMESPACE, names.routing(NAME)))
        if stored is None:
            return False
        routing = parse_routing(stored["data"][names.ROUTING_KEY])
        found = {
            component: tuple(
                Endpoint(p["metadata"]["name"], "", p["metadata"]["labels"][names.LABEL_REVISION])
                for p in self.pods()
                if p["metadata"]["labels"].get(names.LABEL_POOL) == route.service
                and serves(p)  # by the pod's own word, where its node is not heard
                and "deletionTimestamp" not in p["metadata"]
            )
            for component, route in routing.pools.items()
        }
        before = self.gateways[uid].balancer.generation
        self.gateways[uid].balancer.update(routing, found)
        return before != self.gateways[uid].balancer.generation

    def begin_request(self, uid: str) -> None:
        """A client calls a gateway that takes requests."""
        pod = next((p for p in self.pods(names.GATEWAY) if p["metadata"]["uid"] == uid), None)
        if pod is None or not serves(pod) or "deletionTimestamp" in pod["metadata"]:
            return
        end = ExitStack()
        path = end.enter_context(self.gateways[uid].balancer.path())
        request = Request(uid, path, end)
        self.requests.append(request)
        self.request_moves(request)

    def request_moves(self, request: Request) -> None:
        """A request meets its next pool, or ends."""
        gateway = self.gateways.get(request.gateway)
        if gateway is None or len(request.met) == len(STAGES):
            return self._close(request, "served" if gateway else "cut")
        stage, before = STAGES[len(request.met)], path_release(request)
        try:
            endpoint = gateway.balancer.pick(stage, now=self.seconds, path=request.path)
        except Unavailable:
            return self._close(request, "unavailable")
        request.end.enter_context(gateway.balancer.holding(stage, endpoint))
        release = self._release(endpoint.name.partition(f"-{endpoint.revision}")[0], endpoint.revision)
        assert before in (None, release), f"{request.met} and then {endpoint.name} of release {release}"
        request.met.append((endpoint.name, release))
        return None

    def _close(self, request: Request, told: str) -> None:
        request.end.close()
        self.requests.remove(request)
        self.told[told] += 1

    def _in_flight(self, pod: Raw) -> bool:
        uid, name = pod["metadata"]["uid"], pod["metadata"]["name"]
        return any(r.gateway == uid or any(name == met for met, _ in r.met) for r in self.requests)

    def _release(self, pool: str, revision: str) -> str:
        stored = self.api.objects[("ControllerRevision", NAMESPACE, names.revision(pool, revision))]
        return stored["metadata"]["annotations"][names.ANNOTATION_RELEASE]

    # --- the rules -----------------------------------------------------------------------------------------

    def _check_delete(self, raw: Raw) -> None:
        """What must hold when the operator ends a pod that serves."""
        labels = raw["metadata"].get("labels", {})
        if raw["kind"] not in ("Pod", "LeaderWorkerSet"):
            return
        leader = names.leader(raw["metadata"]["name"])
        pod = raw if raw["kind"] == "Pod" else self.api.objects.get(("Pod", NAMESPACE, leader))
        if pod is None or not serves(pod) or "deletionTimestamp" in pod["metadata"]:
            return
        pool = self.api.objects[(names.POOL_KIND, NAMESPACE, labels[names.LABEL_POOL])]
        rollout = pool["spec"].get("rollout") or {}
        known = self.operator.cluster.pods(NAMESPACE, labels[names.LABEL_POOL])
        left = [p for p in known if p.live and p.may_serve and p.name != raw["metadata"]["name"]]
        routing = self.routing()
        outage = routing is not None and not routing["serving"]
        asked = self.operator.cluster.cache.raw(Key(names.POOL_KIND, NAMESPACE, pool["metadata"]["name"]))
        assert asked is not None
        replicas = asked["spec"].get("replicas") or 0
        if not outage and rollout.get("strategy") != "Recreate":
            floor = replicas - rollout.get("maxUnavailable", 1)
            assert len(left) >= floor, f"{raw['metadata']['name']} goes, {len(left)} of {replicas} are left"
        # The last of a release goes only when nobody is on the way to it.
        release = self._release(labels[names.LABEL_POOL], labels[names.LABEL_REVISION])
        same = [p for p in left if self._release(p.pool, p.revision) == release]
        wanted = self._release(labels[names.LABEL_POOL], asked.get("status", {}).get("revision", ""))
        if not same and wanted != release and replicas:
            late = [r for r in self.requests if path_release(r) == release]
            assert not late, f"{raw['metadata']['name']} goes while {late} are on their way"

    def routing(self) -> Raw | None:
        stored = self.api.objects.get(("ConfigMap", NAMESPACE, names.routing(NAME)))
        return json.loads(stored["data"][names.ROUTING_KEY]) if stored else None

    # --- everybody in turn ---------------------------------------------------------------------------------

    def round(self) -> bool:
        """Everybody who can move does, once. True where somebody did."""
        moved = bool(sum(self.deliver(kind) for kind in self.operator.seen))
        due = sorted(self.operator.due)
        for key in due:
            if key in self.operator.due:
                self.run(key)
        nodes = [self.node_moves(pod) for pod in self.pods()]
        moved |= any(nodes) | self.nodes.deployment_controller() | self.nodes.group_controller() | bool(due)
        moved |= self.nodes.garbage_collector()
        moved |= bool(sum(self.gateway_moves(uid) for uid in list(self.gateways)))
        return self.ask_pods() or moved

    def settle(self, rounds: int = 400) -> bool:
        """Rounds until nobody moves and nothing is timed for two hours, or nothing has come of what was timed
        for so long that no autoscaler's window is open any more. False if that never comes.
        """
        until, calls, looks = self.now + timedelta(hours=2), 0, 0
        for _ in range(rounds):
            for request in list(self.requests):
                self.request_moves(request)
            if self.round() or self.requests:
                self.pass_time(1)
                continue
            timers = self.operator.timers
            first = min(timers.values(), default=until)
            looks = looks + 1 if calls == len(self.api.calls) else 0
            calls = len(self.api.calls)
            if first >= until or looks > IDLE_LOOKS:
                return True
            self.pass_time((max(self.now, first) - self.now).total_seconds() + 1)
        return False

    def pass_time(self, seconds: float) -> None:
        """The clock goes on; what the operator wanted to look at by then is due, and the process of a gateway
        that left ends with what it has begun when its grace period does, whoever has seen that by then.
        """
        self.now += timedelta(seconds=seconds)
        ended = {p["metadata"]["uid"] for p in self.pods(names.GATEWAY) if self.nodes.ended(p)}
        for request in [r for r in self.requests if r.gateway in ended]:
            self._close(request, "cut")
        timers = self.operator.timers
        for key in [key for key, at in timers.items() if at <= self.now]:
            del timers[key]
            self.operator.due.add(key)

    # --- what somebody asks for, and what came of it -------------------------------------------------------

    def edit(self, spec: Raw) -> None:
        """Somebody applies another spec."""
        self.api.change(DEPLOYMENT, lambda raw: raw.update(spec=spec))

    def scale(self, component: str, replicas: int) -> None:
        """Somebody scales a pool by its scale subresource."""
        place = (names.POOL_KIND, NAMESPACE, names.pool(NAME, component))
        if place in self.api.objects:
            self.api.change(place, lambda raw: raw["spec"].update(replicas=replicas))

    def status(self) -> Raw:
        return self.api.objects[DEPLOYMENT].get("status") or {}

    def condition(self, kind: str = "Ready") -> tuple[str, str]:
        """Status and reason of a condition of the deployment."""
        found = {c["type"]: c for c in self.status().get("conditions", ())}
        return (found[kind]["status"], found[kind]["reason"]) if kind in found else ("", "")
