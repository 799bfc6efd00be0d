"""What happens to the deployment under load: each scenario begins and ends with every pool whole.

A scenario is a function of the `World`; it returns what it saw beside the requests. Streams are open at every
moment, and `World.open_streams` counts them when pods are taken away.
"""

import json
import subprocess
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from stepaudio_cluster.make_up import DEPLOYMENT, deployment_state
from tests.e2e.load import Load
from tests.e2e.nano import Nano

POOLS = ("chat", "tts", "tokenizer", "gateway")
MODEL_POOLS = POOLS[:3]
ONE_THREAD = [{"name": "STEPAUDIO_THREADS", "value": "1"}]
"""Six pods with a thread for every core would wait for each other's threads at every step."""
REPLICAS = 2
NAMESPACE = "default"
PATIENCE_S = 1500.0
ROUND = "bench.stepaudio.io/round"
Raw = dict[str, Any]


@dataclass
class World:
    """The deployment, the load on it, and what was noted meanwhile."""

    nano: Nano
    load: Load | None = None
    url: str = ""
    open_streams: list[int] = field(default_factory=list)

    # --- what is ------------------------------------------------------------------------------------

    def pods(self, *components: str) -> list[Raw]:
        """Pods of the deployment, those that leave too."""
        listed = self.nano.objects("pods", "-l", f"stepaudio.io/deployment={DEPLOYMENT}")
        wanted = components or POOLS
        return [p for p in listed if p["metadata"]["labels"]["app.kubernetes.io/component"] in wanted]

    def uids(self, *components: str) -> set[str]:
        """Of the pods that do not leave."""
        return {
            p["metadata"]["uid"] for p in self.pods(*components) if not p["metadata"].get("deletionTimestamp")
        }

    def pool(self, component: str) -> Raw:
        """The pool's object."""
        return self.get("sap", name(component))

    def whole(self, replicas: int = REPLICAS, pools: tuple[str, ...] = POOLS) -> bool:
        """Whether the deployment says Ready, every replica is, and no pod is leaving."""
        pods = self.pods()
        return (
            len(pods) == replicas * len(pools)
            and all(_ready(pod) for pod in pods)
            and deployment_state(self.nano.cluster, DEPLOYMENT)[0]
        )

    # --- what is done -------------------------------------------------------------------------------

    def until(self, holds: Callable[[], Any], what: str, patience_s: float = PATIENCE_S) -> Any:
        """Asks every two seconds."""
        end = time.monotonic() + patience_s
        while not (found := holds()):
            if time.monotonic() > end:
                state = self.nano.cluster.kubectl("get", "sad,sap,pods", check=False)
                raise TimeoutError(f"not after {patience_s:.0f} s: {what}\n{state}")
            time.sleep(2)
        return found

    def until_whole(self, replicas: int = REPLICAS, pools: tuple[str, ...] = POOLS) -> None:
        """Every pool is as it should be."""
        self.until(lambda: note_leaving(self) and self.whole(replicas, pools), "every pool is whole")

    def patch(self, spec: Mapping[str, Any]) -> None:
        """Changes fields of the deployment; None takes one away."""
        patch = json.dumps({"spec": spec})
        self.nano.cluster.kubectl("patch", "sad", DEPLOYMENT, "--type=merge", "--patch", patch)

    def scale(self, replicas: int, *components: str) -> None:
        """By the scale subresource, as an autoscaler does."""
        for component in components:
            self.nano.cluster.kubectl("scale", "sap", name(component), f"--replicas={replicas}")

    def apply(self, thing: Raw) -> None:
        """One object, as `kubectl apply` does."""
        self.nano.cluster.kubectl("apply", "-f", "-", stdin=json.dumps(thing))

    def get(self, kind: str, name: str, namespace: str = NAMESPACE) -> Raw:
        """One object that exists."""
        return dict(json.loads(self.nano.cluster.kubectl("get", kind, name, "-n", namespace, "-o", "json")))

    def note_streams(self) -> None:
        """Pods are told to leave at this moment."""
        if self.load is not None:
            self.open_streams.append(self.load.streams)


def name(component: str) -> str:
    """Of a pool."""
    return f"{DEPLOYMENT}-{component}"


def replace_all(world: World, components: tuple[str, ...], rollout: Raw, **more: Any) -> None:
    """A change of every pod of these pools, and nothing else; returns when it is done."""
    before = world.uids(*components)
    change_pods(world, *components, rollout=rollout, **more)
    until_replaced(world, before, *components)


def change_pods(world: World, *components: str, **more: Any) -> None:
    """Asks for other pods of these pools that do the same, and for `more` fields of the spec."""
    now = str(time.time_ns())
    change = {c: {"podTemplate": {"annotations": {ROUND: now}}} for c in components}
    world.patch({**change, **more})


def until_replaced(world: World, before: set[str], *components: str) -> None:
    """None of the pods of `before` is left, and every pool is whole."""
    world.until(lambda: note_leaving(world) and not before & world.uids(*components), "every pod is another")
    world.until_whole()


def note_leaving(world: World) -> bool:
    if any(pod["metadata"].get("deletionTimestamp") for pod in world.pods()):
        world.note_streams()
    return True


def surge(world: World) -> Raw:
    """Every pool at once, one pod more each."""
    replace_all(world, POOLS, {"strategy": "Surge", "canary": None})
    return {}


def in_place(world: World) -> Raw:
    """Every pool at once, an old pod first."""
    replace_all(world, POOLS, {"strategy": "InPlace", "canary": None})
    return {}


def canary(world: World) -> Raw:
    """A good revision of speech and tokenizer, at 25 and 50 per cent."""
    steps = [{"traffic": 25, "pause": "20s"}, {"traffic": 50, "pause": "20s"}]
    rollout = {
        "strategy": "Canary",
        "canary": {"steps": steps, "minRequests": 5, "maxSlowdownPercent": 1000},
    }
    replace_all(world, ("tts", "tokenizer"), rollout)
    return {}


def bad_revision(world: World) -> Raw:
    """A chat revision whose setting is impossible and a tokenizer that is given too little memory."""
    before = world.uids()
    world.patch(
        {
            "rollout": {"strategy": "Surge", "canary": None},
            "chat": {"maxModelLen": 32768},
            "tokenizer": {"podTemplate": {"resources": {"limits": {"memory": "80Mi"}}}},
        }
    )
    found = {
        c: world.until(lambda c=c: _quarantined(world, c), f"{c} is rolled back") for c in MODEL_POOLS[::2]
    }
    world.until(
        lambda: note_leaving(world) and world.uids() == before and len(world.pods()) == len(before),
        "the good pods are left",
    )
    world.patch({"chat": {"maxModelLen": None}, "tokenizer": {"podTemplate": {"resources": None}}})
    world.until_whole()
    return {"quarantined": found, "pods kept": world.uids() == before}


def bad_canary(world: World) -> Raw:
    """A tokenizer revision that is far too slow, found by what the gateways see of it."""
    steps = [{"traffic": 50, "pause": "10m"}]
    rollout = {"strategy": "Canary", "canary": {"steps": steps, "minRequests": 20, "maxSlowdownPercent": 50}}
    slow = {"limits": {"cpu": "60m"}}
    world.patch({"rollout": rollout, "tokenizer": {"podTemplate": {"resources": slow}}})
    found = world.until(lambda: _quarantined(world, "tokenizer"), "the canary is given up")
    world.patch(
        {
            "rollout": {"strategy": "Surge", "canary": None},
            "tokenizer": {"podTemplate": {"resources": None}},
        }
    )
    world.until(lambda: note_leaving(world) and world.whole(), "every pool is whole")
    return {"quarantined": {"tokenizer": found}}


def node_drain(world: World) -> Raw:
    """`kubectl drain` of everything that the deployment has, on a node that is opened again at once, as if
    another one had room: evictions in the order that the disruption budgets allow.
    """
    before = world.uids()
    cluster = world.nano.cluster
    node = world.nano.objects("nodes")[0]["metadata"]["name"]
    command = [cluster.program("kubectl"), f"--kubeconfig={cluster.kubeconfig}", "drain", node]
    command += [f"--pod-selector=stepaudio.io/deployment={DEPLOYMENT}", "--delete-emptydir-data"]
    command += ["--ignore-daemonsets", f"--timeout={PATIENCE_S:.0f}s"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as draining:
        try:
            world.until(
                lambda: world.nano.objects("nodes")[0]["spec"].get("unschedulable"), "the node is cordoned"
            )
        finally:
            cluster.kubectl("uncordon", node)
        world.until(lambda: note_leaving(world) and draining.poll() is not None, "the drain comes to its end")
        said = draining.stdout.read() if draining.stdout else ""
    if draining.returncode:
        raise RuntimeError(f"kubectl drain: {said}")
    world.until_whole()
    return {"evicted": len(before - world.uids()), "refused for now": said.count("Cannot evict pod")}


def scale_down(world: World) -> Raw:
    """Every pool from two replicas to one through its scale subresource; then back."""
    world.note_streams()
    world.scale(1, *POOLS)
    world.until(lambda: note_leaving(world) and world.whole(1), "every pool has one replica")
    world.scale(REPLICAS, *POOLS)
    world.until_whole()
    return {}


def delete_pods(world: World) -> Raw:
    """One pod of every pool is deleted, as anybody may."""
    before = world.uids()
    names = []
    for component in POOLS:
        pods = world.pods(component)
        names.append(min(pod["metadata"]["name"] for pod in pods))
    world.note_streams()
    world.nano.cluster.kubectl("delete", "pod", "--wait=false", *names)
    world.until(lambda: note_leaving(world) and len(world.uids() - before) == len(POOLS), "each has another")
    world.until_whole()
    return {}


SCENARIOS: Mapping[str, Callable[[World], Raw]] = {
    "surge": surge,
    "in-place": in_place,
    "canary": canary,
    "bad-revision": bad_revision,
    "bad-canary": bad_canary,
    "node-drain": node_drain,
    "scale-down": scale_down,
    "delete": delete_pods,
}


def _ready(pod: Raw) -> bool:
    said = {c["type"]: c["status"] for c in pod["status"].get("conditions", [])}
    return said.get("Ready") == "True" and not pod["metadata"].get("deletionTimestamp")


def _quarantined(world: World, component: str) -> str | None:
    """The reason, where the pool's wanted revision has been given up."""
    entries = world.pool(component).get("status", {}).get("quarantined") or []
    return entries[-1]["reason"] if entries else None
