"""A world whose models are downloaded: Jobs, the pods of the downloads, nodes with disks of their own.

Checked at every move, beside the rules of `world.World`:
- the operator ends no pod that serves for one with other models before those are where it was: on the volume,
  or on the disk of its node;
- no Job brings models to a folder that another one takes away.
"""

from collections.abc import Callable
from typing import Any

from stepaudio_operator import names
from stepaudio_operator.render import models as render
from stepaudio_operator.spec.reading import parse_deployment
from tests.unit.rollouts.api import Place, Raw
from tests.unit.rollouts.nodes import Nodes, is_ready, stamp
from tests.unit.rollouts.world import DEPLOYMENT, NAMESPACE, World


class Places(Nodes):
    """Nodes by name, each with `places` for pods of models; a pod waits until its models are on its node.

    `strange`: the scheduler does not do what pods prefer.
    """

    places: dict[str, int]
    disks: dict[str, set[str]]
    strange: bool = False

    def pods(self, component: str | None = None) -> list[Raw]:
        """Those of pools."""
        found = [p for p in self._api.of("Pod") if names.LABEL_POOL in p["metadata"]["labels"]]
        return [p for p in found if component in (None, p["metadata"]["labels"][names.LABEL_COMPONENT])]

    def moves(self, pod: Raw) -> bool:
        status, node = pod.get("status") or {}, pod["spec"].get("nodeName")
        gone = "deletionTimestamp" in pod["metadata"]
        if node and not gone and not status.get("containerStatuses") and not self.has_models(pod, node):
            if "initContainerStatuses" in status:
                return False
            waits = {
                "name": names.WAITING_CONTAINER,
                "state": {"running": {"startedAt": stamp(self._now())}},
            }
            place = ("Pod", NAMESPACE, pod["metadata"]["name"])
            self._api.change(place, lambda raw: raw["status"].update(initContainerStatuses=[waits]))
            return True
        return super().moves(pod)

    def has_models(self, pod: Raw, node: str) -> bool:
        folder = folder_of(pod)
        return folder is None or folder in self.disks.get(node, ())

    def _schedule(self, place: Place, pod: Raw) -> bool:
        if pod["metadata"]["labels"][names.LABEL_COMPONENT] == names.GATEWAY:
            node = next(iter(self.places))
        else:
            taken = [p["spec"].get("nodeName") for p in self.pods() if folder_of(p) or mounted(p)]
            kept = required(pod)
            free = [n for n, most in self.places.items() if taken.count(n) < most and n in (kept or {n})]
            if not free:
                return self._refuse(place, pod)
            liked = preferred(pod)
            node = min(free, key=lambda n: ((n in liked) == self.strange, taken.count(n), n))

        def bind(raw: Raw) -> None:
            raw["spec"]["nodeName"] = node
            raw["status"] = {"phase": "Pending", "conditions": [self._condition("PodScheduled", True)]}

        self._api.change(place, bind)
        return True

    def _refuse(self, place: Place, pod: Raw) -> bool:
        if (pod.get("status") or {}).get("conditions"):
            return False
        waits = self._condition("PodScheduled", False)
        waits |= {"reason": "Unschedulable", "message": "0/2 nodes: 2 Insufficient nvidia.com/gpu."}
        self._api.change(place, lambda raw: raw.update(status={"phase": "Pending", "conditions": [waits]}))
        return True


class ModelsWorld(World):
    """`places`: nodes and how many pods of models each holds; `stops(job)`: whether a Job comes to no end."""

    def __init__(self, spec: Raw, places: dict[str, int], stops: Callable[[Raw], bool] = lambda job: False):
        self.stops = stops
        self.volumes: set[str] = set()
        """Claims that are filled."""
        super().__init__(spec, {})
        self.nodes = self._places(dict(places), {node: set() for node in places})

    def _places(self, places: dict[str, int], disks: dict[str, set[str]]) -> Places:
        nodes = Places(self.api, lambda: self.now, {}, self.broken, self._in_flight)
        nodes.places, nodes.disks = places, disks
        return nodes

    def again(self) -> "ModelsWorld":
        """Another world that begins as this one is, with an operator that has just started."""
        other = ModelsWorld({}, self.nodes.places, self.stops)
        other.now, other.volumes = self.now, set(self.volumes)
        other.api.take_over(self.api)
        other.nodes.disks = {node: set(held) for node, held in self.nodes.disks.items()}
        other.gateways = {uid: type(gateway)() for uid, gateway in self.gateways.items()}
        for uid in other.gateways:
            other.gateway_moves(uid)
        other.operator = other._start()
        return other

    # --- Jobs ---------------------------------------------------------------------------------------------

    def round(self) -> bool:
        return bool(sum(self.job_moves(job) for job in self.jobs())) | self._collect() | super().round()

    def jobs(self) -> list[Raw]:
        return list(self.api.of("Job"))

    def job_pods(self, job: str) -> list[Raw]:
        pods = [p for p in self.api.of("Pod") if names.LABEL_MODELS in p["metadata"]["labels"]]
        return [p for p in pods if p["metadata"]["name"] == f"{job}-x"]

    def job_moves(self, job: Raw) -> bool:
        """A Job comes one stage further: its pod is made, runs, has ended well; True where it did."""
        name, place = job["metadata"]["name"], ("Job", NAMESPACE, job["metadata"]["name"])
        if (job.get("status") or {}).get("conditions"):
            return False
        pods = self.job_pods(name)
        if job["spec"].get("suspend"):
            for pod in pods:
                self.api.remove(("Pod", NAMESPACE, pod["metadata"]["name"]))
            return bool(pods)
        if not pods:
            self._check_folder(job)
            template = job["spec"]["template"]
            meta = {**template["metadata"], "namespace": NAMESPACE, "name": f"{name}-x"}
            self.api.store("Pod", {"metadata": meta, "spec": template["spec"]})
            return True
        (pod,) = pods
        pod_place = ("Pod", NAMESPACE, pod["metadata"]["name"])
        if "status" not in pod:
            state = {"running": {"startedAt": stamp(self.now)}}
            status = {
                "phase": "Running",
                "podIP": pod["metadata"]["uid"],
                "containerStatuses": [{"name": names.CONTAINER, "restartCount": 0, "state": state}],
            }
            self.api.change(pod_place, lambda raw: raw.update(status=status))
            return True
        if self.stops(job):
            return False
        self._done(job)
        self.api.change(pod_place, lambda raw: raw.update(status={"phase": "Succeeded"}))
        complete = {"type": "Complete", "status": "True", "lastTransitionTime": stamp(self.now)}
        self.api.change(place, lambda raw: raw.update(status={"conditions": [complete]}))
        return True

    def _done(self, job: Raw) -> None:
        """What the download, or the removal, has come to."""
        (container,) = job["spec"]["template"]["spec"]["containers"]
        action, path = container["command"][2:4]
        if path == names.MODELS_MOUNT:
            self.volumes.add(job["metadata"]["name"])
            return
        disk = self.nodes.disks[node_of(job)]
        folder = path.rpartition("/")[2]
        (disk.add if action == "fetch" else disk.discard)(folder)

    def _check_folder(self, job: Raw) -> None:
        """A pod of a Job begins: no pod of another works on the same folder of the same node."""
        path = job["spec"]["template"]["spec"]["containers"][0]["command"][3]
        for other in self.jobs():
            if other["metadata"]["name"] == job["metadata"]["name"] or node_of(other) != node_of(job):
                continue
            if other["spec"]["template"]["spec"]["containers"][0]["command"][3] == path:
                busy = [p for p in self.job_pods(other["metadata"]["name"]) if _runs(p)]
                assert not busy, f"{job['metadata']['name']} begins beside {other['metadata']['name']}"

    def _collect(self) -> bool:
        """Pods of Jobs that are gone go too."""
        jobs = {job["metadata"]["name"] for job in self.jobs()}
        pods = [p for p in self.api.of("Pod") if names.LABEL_MODELS in p["metadata"]["labels"]]
        left = [p for p in pods if p["metadata"]["name"].removesuffix("-x") not in jobs]
        for pod in left:
            self.api.remove(("Pod", NAMESPACE, pod["metadata"]["name"]))
        return bool(left)

    # --- the rules ----------------------------------------------------------------------------------------

    def _check_delete(self, raw: Raw) -> None:
        super()._check_delete(raw)
        if raw["kind"] != "Pod" or not is_ready(raw) or DEPLOYMENT not in self.api.objects:
            return
        pool = self.api.objects[(names.POOL_KIND, NAMESPACE, raw["metadata"]["labels"][names.LABEL_POOL])]
        wanted = (pool["spec"].get("models") or {}).get("source") or {}
        if "nodeLocal" in wanted and wanted["nodeLocal"]["folder"] != folder_of(raw):
            node, folder = raw["spec"]["nodeName"], wanted["nodeLocal"]["folder"]
            assert folder in self.nodes.disks[node], f"{raw['metadata']['name']} goes before its models came"
        if "pvc" in wanted and wanted["pvc"]["claimName"] != mounted(raw):
            assert wanted["pvc"]["claimName"] in self.volumes, f"{raw['metadata']['name']} goes too early"


def folder_of(pod: Raw) -> str | None:
    """The folder of models that a pod of a pool waits for on its node."""
    first = (pod["spec"].get("initContainers") or [{}])[0]
    return str(first["command"][3]).rpartition("/")[2] if first.get("command") else None


def mounted(pod: Raw) -> str | None:
    """The claim of models that a pod mounts."""
    claims = [v["persistentVolumeClaim"] for v in pod["spec"]["volumes"] if "persistentVolumeClaim" in v]
    return next((str(claim["claimName"]) for claim in claims), None)


def node_of(job: Raw) -> str:
    return str((job["metadata"].get("annotations") or {}).get(names.ANNOTATION_NODE, ""))


def preferred(pod: Raw) -> set[str]:
    """The nodes that a pod would rather be on."""
    affinity = (pod["spec"].get("affinity") or {}).get("nodeAffinity") or {}
    terms = affinity.get("preferredDuringSchedulingIgnoredDuringExecution") or ()
    return {value for t in terms for f in t["preference"]["matchFields"] for value in f["values"]}


def required(pod: Raw) -> set[str]:
    """The nodes that a pod is kept to; empty for any."""
    affinity = (pod["spec"].get("affinity") or {}).get("nodeAffinity") or {}
    terms = (affinity.get("requiredDuringSchedulingIgnoredDuringExecution") or {}).get("nodeSelectorTerms")
    return {value for t in terms or () for f in t["matchFields"] for value in f["values"]}


def wanted_name(spec: Raw) -> str:
    """What the models of a spec are called where they are brought to."""
    name = render.set_name(parse_deployment({"metadata": {"name": "prod"}, "spec": spec}))
    assert name is not None
    return name


def _runs(pod: Raw) -> bool:
    return (pod.get("status") or {}).get("phase") not in ("Succeeded", "Failed")


def models_spec(revision: str = "a", *, local: bool, replicas: int = 1, **rollout: Any) -> Raw:
    """A deployment whose models are downloaded, to nodes or to a volume."""
    cache: Raw = {"nodeLocal": {"claimName": "node-models"}} if local else {"size": "1Gi"}
    return {
        "preset": "nano",
        "models": {"source": {"huggingFace": {"revisions": {"chat": revision}}}, "cache": cache},
        "chat": {"replicas": replicas},
        "tts": {"replicas": replicas},
        "tokenizer": {"replicas": replicas},
        "gateway": {"replicas": 1},
        "rollout": rollout,
    }
