"""Pods that leave end what they have begun: evicted or scaled away, with streams open and other clients at
work, nothing fails and nothing is cut.
"""

import json
from collections.abc import Iterator

import pytest

from stepaudio_cluster.make_up import DEPLOYMENT, cluster_url
from tests.e2e.load import Load, learn
from tests.e2e.nano import Nano, wait_until

pytestmark = pytest.mark.node

LEAVING = ("tts", "gateway")
REQUESTS = 60
PATIENCE_S = 240.0


def scale(nano: Nano, replicas: int) -> None:
    """By the scale subresource, as an autoscaler does."""
    for component in LEAVING:
        nano.cluster.kubectl("scale", "sap", f"{DEPLOYMENT}-{component}", f"--replicas={replicas}")


def pods(nano: Nano) -> dict[tuple[str, str], bool]:
    """Name and uid -> whether it is Ready, of all pods of the two pools, those that leave too."""
    selector = f"stepaudio.io/deployment={DEPLOYMENT},app.kubernetes.io/component in ({','.join(LEAVING)})"
    return {
        (pod["metadata"]["name"], pod["metadata"]["uid"]): any(
            c["type"] == "Ready" and c["status"] == "True" for c in pod["status"].get("conditions", [])
        )
        for pod in nano.objects("pods", "-l", selector)
    }


def evict(nano: Nano, pod: str) -> None:
    """As `kubectl drain` does with every pod of a node."""
    path = f"/api/v1/namespaces/default/pods/{pod}/eviction"
    eviction = {"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": pod}}
    nano.cluster.kubectl("create", "--raw", path, "-f", "-", stdin=json.dumps(eviction))


@pytest.fixture
def doubled(nano: Nano) -> Iterator[Nano]:
    """Two replicas of speech and gateway; one again afterwards."""
    nano.wait_ready()
    scale(nano, 2)
    try:
        wait_until(lambda: list(pods(nano).values()) == [True] * 4, PATIENCE_S, "two replicas each")
        yield nano
    finally:
        scale(nano, 1)
        nano.wait_ready()


def test_streams_end_whole_whoever_takes_their_pod_away(doubled: Nano) -> None:
    nano = doubled
    evicted = {min(pod for pod in pods(nano) if f"-{component}-" in pod[0]) for component in LEAVING}
    with cluster_url(nano.cluster, f"{DEPLOYMENT}-gateway") as url:
        learnt = learn(url)
        with Load(url, learnt, clients=5) as load:
            wait_until(lambda: load.streams > 1, PATIENCE_S, "streams are open")
            for name, _ in sorted(evicted):
                evict(nano, name)
            wait_until(lambda: not evicted & pods(nano).keys(), PATIENCE_S, "the evicted pods are gone")
            # One of two gateways, and a speech pod: the one that loads, if it is not ready yet.
            wait_until(lambda: load.streams > 0, PATIENCE_S, "a stream is open")
            scale(nano, 1)
            wait_until(lambda: len(pods(nano)) == len(LEAVING), PATIENCE_S, "one replica each")
            wait_until(lambda: len(load.outcomes) >= REQUESTS, PATIENCE_S, f"{REQUESTS} requests")
    assert load.broken == []
