"""What pods say of themselves: an operator whether it leads and is idle, what it has written, what it lacks;
those of pools what they count.
"""

from collections import Counter

import httpx
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.samples import Sample

from stepaudio_cluster.make_up import RELEASE
from stepaudio_operator import names
from tests.bench.on_a_kubelet.scenarios import Raw, World
from tests.e2e.nano import OPERATOR_SELECTOR

NAME = "step-audio-operator"
"""Of its Deployment, ClusterRole and whatever else the chart makes for it."""
PORT = 8080
IDLE = {
    "stepaudio_operator_leader": 1.0,
    "stepaudio_operator_queue_depth": 0.0,
    "stepaudio_operator_queue_running": 0.0,
}


def pod(world: World, selector: str = OPERATOR_SELECTOR) -> Raw | None:
    """The one pod of an operator; None while there is another beside it, or none."""
    pods = [p for p in world.nano.objects("pods", "-n", RELEASE, "-l", selector) if p["status"].get("podIP")]
    return pods[0] if len(pods) == 1 and not pods[0]["metadata"].get("deletionTimestamp") else None


def asked(world: World, path: str, selector: str = OPERATOR_SELECTOR) -> httpx.Response | None:
    """What it answers; None where nobody does."""
    if (found := pod(world, selector)) is None:
        return None
    url = f"http://{found['status']['podIP']}:{PORT}{path}"
    try:
        return httpx.get(url, timeout=10, trust_env=False)
    except httpx.HTTPError:
        return None


def series(world: World, selector: str = OPERATOR_SELECTOR) -> list[Sample]:
    """All that it counts; nothing where it does not answer."""
    answer = asked(world, "/metrics", selector)
    if answer is None:
        return []
    return _samples(answer.text)


def pod_says(pod: Raw, name: str) -> float:
    """The sum of a series of a pool's pod. Raises httpx.HTTPError, and KeyError before it has an address."""
    url = f"http://{pod['status']['podIP']}:{names.POOL_PORT}/metrics"
    answer = httpx.get(url, timeout=30, trust_env=False)
    return sum(sample.value for sample in _samples(answer.text) if sample.name == name)


def _samples(text: str) -> list[Sample]:
    return [sample for family in text_string_to_metric_families(text) for sample in family.samples]


def until_it_leads(world: World, selector: str = OPERATOR_SELECTOR) -> None:
    """It leads, has read all that there is, and has nothing to do."""

    def idle() -> bool:
        answer = asked(world, "/readyz", selector)
        said = {s.name: s.value for s in series(world, selector) if s.name in IDLE}
        return answer is not None and answer.status_code == 200 and said == IDLE

    world.until(idle, "the operator leads and is idle")


def writes(world: World, selector: str = OPERATOR_SELECTOR) -> Counter[str]:
    """Verb and kind -> how many of these writes its process has made, beside those of its lease."""
    return Counter(
        {
            f"{sample.labels['verb']} {sample.labels['kind']}": int(sample.value)
            for sample in series(world, selector)
            if sample.name == "stepaudio_operator_api_writes_total"
            and sample.value
            and sample.labels["kind"] != "Lease"
        }
    )


def errors(world: World) -> Counter[str]:
    """Where and what -> how often."""
    return Counter(
        {
            f"{sample.labels['where']} {sample.labels['error']}": int(sample.value)
            for sample in series(world)
            if sample.name == "stepaudio_operator_errors_total" and sample.value
        }
    )


def begin_anew(world: World, *, killed: bool) -> None:
    """Its pod ends, at once or as it likes to; the Deployment makes another."""
    found = world.until(lambda: pod(world), "one operator")
    name, how = found["metadata"]["name"], ("--grace-period=0", "--force") if killed else ()
    world.nano.cluster.kubectl("delete", "pod", "-n", RELEASE, name, *how)
    world.until(lambda: (now := pod(world)) and now["metadata"]["name"] != name, "another operator")
