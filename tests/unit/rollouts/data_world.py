"""A data job in memory: the operator's code between a small API server, the Job controller and a kubelet.

Real are everything of the operator from its caches to its reconciles. Played are the API server (`api.Api`),
Kubernetes' Job controller and garbage collector, the kubelet, and the engine in the pods: a folder that
remembers its recipe and how many samples are in it. Nothing happens by itself: a test says who moves next.

Checked at every move: no two pods work on one folder, and the operator deletes nothing but its Jobs.
"""

import json
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from stepaudio_operator import names
from stepaudio_operator.errors import ClusterError
from stepaudio_operator.kube import resources
from stepaudio_operator.kube.cache import Key
from stepaudio_operator.kube.cluster import Cluster
from stepaudio_operator.polling import Answer
from stepaudio_operator.reconcile.reconciler import Reconciler
from stepaudio_operator.render.images import ImageDefaults
from tests.unit.rollouts.api import Api, Cut, Place, Raw
from tests.unit.rollouts.nodes import stamp
from tests.unit.rollouts.players import Asked, drive, ours

NAMESPACE, NAME = "a", "speech"
DATA_JOB: Place = (names.DATA_JOB_KIND, NAMESPACE, NAME)
JOB: Place = ("Job", NAMESPACE, names.data(NAME))
CLAIM: Place = ("PersistentVolumeClaim", NAMESPACE, names.data(NAME))
KEY = Key(*DATA_JOB)
SAMPLES = 40


@dataclass
class Folder:
    """What the engine finds on a volume."""

    recipe: str = ""
    made: int = 0


class DataWorld:
    """`words`: the last words with which the engine refuses to work (exit status 78), "" where it works."""

    def __init__(self, spec: Raw) -> None:
        self.now = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
        self.api = Api(lambda: self.now)
        self.api.before_delete = self._check_delete
        self.folders: dict[str, Folder] = {}
        self.words = ""
        self.version = "1.0.0"
        self.crashes = 0
        self.apply(spec)
        self._start()

    def apply(self, spec: Raw) -> None:
        """Somebody applies the data job."""
        if DATA_JOB in self.api.objects:
            self.api.change(DATA_JOB, lambda raw: raw.update(spec=spec))
            return
        metadata = {"namespace": NAMESPACE, "name": NAME}
        self.api.store(
            names.DATA_JOB_KIND,
            {
                "apiVersion": names.API_VERSION,
                "kind": names.DATA_JOB_KIND,
                "metadata": metadata,
                "spec": spec,
            },
        )

    # --- the operator -----------------------------------------------------------------------------------

    def _start(self) -> None:
        self.asked, self.due, self.timers = Asked(), set[Key](), dict[Key, datetime]()
        self.cluster = Cluster(
            self.api,  # type: ignore[arg-type]
            lambda key, fresh: self.due.add(key),
            namespace=None,
            instance="one",
            wall=lambda: self.now,
            on_trouble=lambda resource, error: None,
        )
        images = ImageDefaults(self.version, "")
        self.reconcile = Reconciler(self.cluster, self.asked, images, lambda: self.now)  # type: ignore[arg-type]
        kinds = [r.resource.kind for r in self.cluster.reflectors] + [names.DATA_JOB_KIND]
        self.seen = {kind: len(self.api.events[kind]) for kind in kinds}
        for reflector in self.cluster.reflectors:
            for raw in self.api.of(reflector.resource.kind):
                if ours(raw):
                    reflector.store.put(raw, listed=True)
        for raw in self.api.of(names.DATA_JOB_KIND):
            self.cluster.see(resources.DATA_JOBS, None, raw)

    def restart_operator(self) -> None:
        """The operator's process ends and another begins."""
        self.crashes += 1
        self._start()

    def deliver(self, kind: str) -> bool:
        """The watch of one kind tells the operator what is new."""
        stores = {r.resource.kind: r.store for r in self.cluster.reflectors}
        news = self.api.events[kind][self.seen[kind] :]
        for what, raw in news:
            if kind == names.DATA_JOB_KIND:
                self.cluster.see(resources.DATA_JOBS, what, raw)
            elif ours(raw):
                (stores[kind].deleted if what == "DELETED" else stores[kind].put)(raw)
            self.seen[kind] += 1
        return bool(news)

    def run(self, key: Key) -> None:
        """One reconcile of a key that is due."""
        self.due.discard(key)
        self.timers.pop(key, None)
        try:
            outcome = drive(self.reconcile(key))
        except Cut:
            self.restart_operator()
            return
        except ClusterError:
            self.due.add(key)
            return
        if outcome.requeue_after == 0:
            self.due.add(key)
        elif outcome.requeue_after is not None:
            self.timers[key] = self.now + timedelta(seconds=outcome.requeue_after)

    def ask_pods(self) -> bool:
        """Every question of the operator is answered once; True where an answer is news."""
        news = False
        questions = [
            (key, uid, target)
            for key, targets in self.asked.targets.items()
            for uid, target in targets.items()
        ]
        for key, uid, target in questions:
            assert (target.port, target.progress) == (names.POOL_PORT, True)
            pod = next((p for p in self.api.of("Pod") if p["metadata"]["uid"] == uid), None)
            made = self._folder(pod).made if pod is not None else 0
            answer = Answer("Loading", 0, samples_made=made, samples_total=SAMPLES)
            if answer.differs(self.asked.answers.get(uid)):
                self.due.add(key)
                news = True
            self.asked.answers[uid] = answer
        return news

    # --- the cluster --------------------------------------------------------------------------------------

    def job_controller(self) -> bool:
        """The Job gets a pod, or hears how its pods ended; pods of a Job that is gone go too."""
        job = self.api.objects.get(JOB)
        for pod in list(self.api.of("Pod")):
            owner = pod["metadata"]["ownerReferences"][0]["uid"]
            if job is None or owner != job["metadata"]["uid"]:
                return self._end(pod)
        if job is None or (job.get("status") or {}).get("conditions"):
            return False
        pods = list(self.api.of("Pod"))
        codes = [_ended(pod)["exitCode"] for pod in pods if _ended(pod)]
        if names.EXIT_CONFIGURATION in codes:
            return self._settle("Failed", "PodFailurePolicy")
        if 0 in codes:
            return self._settle("Complete", "CompletionsReached")
        if any(not _ended(pod) for pod in pods):
            return False
        template = job["spec"]["template"]
        metadata = {
            **template["metadata"],
            "namespace": NAMESPACE,
            "name": f"{job['metadata']['name']}-{len(self.api.events['Pod'])}",
            "ownerReferences": [{"kind": "Job", "uid": job["metadata"]["uid"], "controller": True}],
        }
        self.api.store("Pod", {"kind": "Pod", "metadata": metadata, "spec": dict(template["spec"])})
        return True

    def _end(self, pod: Raw) -> bool:
        place = ("Pod", NAMESPACE, pod["metadata"]["name"])
        if "deletionTimestamp" in pod["metadata"] or _ended(pod):
            self.api.remove(place)
        else:
            until = stamp(self.now + timedelta(seconds=30))
            self.api.change(place, lambda raw: raw["metadata"].update(deletionTimestamp=until))
        return True

    def _settle(self, kind: str, reason: str) -> bool:
        condition = {"type": kind, "status": "True", "reason": reason, "lastTransitionTime": stamp(self.now)}
        self.api.change(JOB, lambda raw: raw.update(status={"conditions": [condition]}))
        return True

    def kubelet(self, name: str) -> bool:
        """A pod comes one stage further: started, a quarter of the data made, ended."""
        pod = self.api.objects.get(("Pod", NAMESPACE, name))
        if pod is None or _ended(pod):
            return False
        if (pod.get("status") or {}).get("phase") != "Running":
            self._write(pod, {"running": {"startedAt": stamp(self.now)}}, "Running")
            return True
        others = [p for p in self.api.of("Pod") if p is not pod and _works(p)]
        assert not others, "two pods work on one folder"
        folder, recipe = self._folder(pod), _env(pod)[names.ENV_RECIPE]
        if self.words:
            self.stop(pod, names.EXIT_CONFIGURATION, self.words)
        elif folder.recipe not in ("", recipe):
            self.stop(pod, names.EXIT_CONFIGURATION, "ConfigInvalid: it holds another recipe's; give another")
        elif folder.made == SAMPLES:
            self.stop(pod, 0, json.dumps({"samples": SAMPLES - 2, "refused": 2, "seconds": 71}))
        else:
            folder.recipe = recipe
            folder.made += SAMPLES // 4
        return True

    def stop(self, pod: Raw, code: int, words: str = "", reason: str = "Error") -> None:
        """The container of a pod ends."""
        ended = {"exitCode": code, "message": words, "reason": reason, "finishedAt": stamp(self.now)}
        self._write(pod, {"terminated": ended}, "Failed" if code else "Succeeded")

    def _write(self, pod: Raw, state: Raw, phase: str) -> None:
        container = {"name": names.CONTAINER, "restartCount": 0, "state": state}
        status = {"phase": phase, "podIP": "10.0.0.1", "containerStatuses": [container]}
        self.api.change(("Pod", NAMESPACE, pod["metadata"]["name"]), lambda raw: raw.update(status=status))

    def _folder(self, pod: Raw) -> Folder:
        held = (volume.get("persistentVolumeClaim") for volume in pod["spec"]["volumes"])
        claims = [claim["claimName"] for claim in held if claim]
        (mount,) = (
            m for m in pod["spec"]["containers"][0]["volumeMounts"] if m["mountPath"] == names.DATA_MOUNT
        )
        return self.folders.setdefault(f"{claims[0]}/{mount.get('subPath', '')}", Folder())

    def _check_delete(self, raw: Raw) -> None:
        assert raw["kind"] == "Job", f"the operator deletes a {raw['kind']}"

    def delete(self) -> None:
        """Somebody deletes the data job, and the garbage collector its Job."""
        uid = self.api.objects[DATA_JOB]["metadata"]["uid"]
        self.api.remove(DATA_JOB)
        job = self.api.objects.get(JOB)
        if job is not None and any(o["uid"] == uid for o in job["metadata"]["ownerReferences"]):
            self.api.remove(JOB)

    # --- everybody in turn ---------------------------------------------------------------------------------

    def movers(self) -> list[Callable[[], bool]]:
        """Whoever may move: each says whether it did."""

        def reconciles() -> bool:
            due = sorted(self.due)
            for key in due:
                self.run(key)
            return bool(due)

        watches = [lambda kind=kind: self.deliver(kind) for kind in self.seen]  # type: ignore[misc]
        pods = [pod["metadata"]["name"] for pod in self.pods()]
        nodes = [lambda name=name: self.kubelet(name) for name in pods]  # type: ignore[misc]
        return [*watches, reconciles, self.job_controller, *nodes, self.ask_pods]

    def settle(self, rounds: int = 200) -> bool:
        """Moves until nobody moves and nothing is timed for two hours. False if that never comes."""
        until = self.now + timedelta(hours=2)
        for _ in range(rounds):
            if sum(move() for move in self.movers()):
                self.pass_time(1)
                continue
            first = min(self.timers.values(), default=until)
            if first >= until:
                return True
            self.pass_time((max(self.now, first) - self.now).total_seconds() + 1)
        return False

    def pass_time(self, seconds: float) -> None:
        """The clock goes on; what the operator wanted to look at by then is due."""
        self.now += timedelta(seconds=seconds)
        for key in [key for key, at in self.timers.items() if at <= self.now]:
            del self.timers[key]
            self.due.add(key)

    # --- what came of it -----------------------------------------------------------------------------------

    def pods(self) -> list[Raw]:
        return list(self.api.of("Pod"))

    def status(self) -> Raw:
        return self.api.objects[DATA_JOB].get("status") or {}

    def figures(self) -> Raw:
        """The status without generation and conditions."""
        return {k: v for k, v in self.status().items() if k not in ("observedGeneration", "conditions")}

    def condition(self, kind: str = "Ready") -> tuple[str, str, str]:
        """Status, reason and message of a condition."""
        found = {c["type"]: c for c in self.status().get("conditions", ())}
        return tuple(found[kind][field] for field in ("status", "reason", "message"))  # type: ignore[return-value]


def _ended(pod: Raw) -> Raw:
    containers = (pod.get("status") or {}).get("containerStatuses") or [{"state": {}}]
    found: Raw = containers[0]["state"].get("terminated") or {}
    return found


def _works(pod: Raw) -> bool:
    return (pod.get("status") or {}).get("phase") == "Running"


def _env(pod: Raw) -> dict[str, Any]:
    return {variable["name"]: variable.get("value") for variable in pod["spec"]["containers"][0]["env"]}
