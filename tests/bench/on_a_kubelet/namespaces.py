"""A namespace with rules of its own, beside the deployment under load: Pod Security "restricted", defaults
of a LimitRange, and a ResourceQuota that has no room for a pod more.
"""

import contextlib
import time
from collections.abc import Callable, Iterator, Mapping

import httpx

from tests.bench.on_a_kubelet.ground import change, condition, deployed, pods_of, uids, until_ready
from tests.bench.on_a_kubelet.neighbours import LIGHT
from tests.bench.on_a_kubelet.scenarios import ROUND, Raw, World
from tests.e2e.load import QUESTION

STRICT = "bench-strict"
QUOTA = "full"
SURGE_S = 15
"""For so long a rollout waits for room before it goes in place."""
MEMORY = "5Gi"
"""A tokenizer's limit and a gateway's are 4 GiB."""


def restricted(world: World) -> Raw:
    """A tokenizer and its gateway become Ready there and answer; a change finds the quota full, says so, and
    goes in place.
    """
    with _namespace(world), deployed(world, "strict", _spec(), STRICT):
        (pod,) = pods_of(world, "strict", "tokenizer", STRICT)
        limits = pod["spec"]["containers"][0]["resources"]["limits"]
        told = [_asked(world)]
        before = uids([pod])
        change(world, "strict", {"tokenizer": {"podTemplate": {"annotations": {ROUND: "2"}}}}, STRICT)
        began = time.monotonic()
        said = world.until(lambda: _quota_exceeded(world), "the quota is named", 120)
        kept = uids(pods_of(world, "strict", "tokenizer", STRICT)) == before
        world.until(
            lambda: (now := uids(pods_of(world, "strict", "tokenizer", STRICT))) and not now & before,
            "another pod in its place",
        )
        until_ready(world, "strict", STRICT)
        took = time.monotonic() - began
        told.append(_asked(world))
    if told != [200, 200] or not kept or QUOTA not in said:
        raise AssertionError(f"answers {told}, kept {kept}, said {said}")
    return {
        "default limit": limits.get("cpu"),
        "said": said,
        "served while it waited for room": kept,
        "in place after s": round(took),
    }


NAMESPACES: Mapping[str, Callable[[World], Raw]] = {"restricted": restricted}


def _spec() -> Raw:
    return {**LIGHT, "rollout": {"strategy": "Auto", "surgeTimeout": f"{SURGE_S}s"}}


@contextlib.contextmanager
def _namespace(world: World) -> Iterator[None]:
    """It, with its rules; gone afterwards."""
    head: Raw = {"apiVersion": "v1", "metadata": {"namespace": STRICT}}
    enforced = {"pod-security.kubernetes.io/enforce": "restricted"}
    default = {"type": "Container", "default": {"cpu": "2"}, "defaultRequest": {"cpu": "10m"}}
    hard = {"limits.memory": MEMORY, "limits.cpu": "100", "requests.memory": MEMORY}
    world.apply({**head, "kind": "Namespace", "metadata": {"name": STRICT, "labels": enforced}})
    for kind, name, spec in (
        ("LimitRange", "defaults", {"limits": [default]}),
        ("ResourceQuota", QUOTA, {"hard": hard}),
    ):
        world.apply({**head, "kind": kind, "metadata": {"name": name, "namespace": STRICT}, "spec": spec})
    try:
        yield
    finally:
        world.nano.cluster.kubectl("delete", "namespace", STRICT)


def _quota_exceeded(world: World) -> str:
    """What the deployment says of it; empty while it says something else."""
    stalled = condition(world.get("sad", "strict", STRICT), "Stalled")
    return str(stalled["message"]) if stalled.get("reason") == "QuotaExceeded" else ""


def _asked(world: World) -> int:
    """Status of a request for codes, through the namespace's own gateway."""
    address = world.get("service", "strict-gateway", STRICT)["spec"]["clusterIP"]
    file = {"file": ("a.wav", QUESTION.read_bytes(), "audio/wav")}
    url = f"http://{address}/v1/audio/tokens"
    return httpx.post(url, files=file, timeout=240, trust_env=False).status_code
