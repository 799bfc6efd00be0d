"""Proves that simulated nodes take pods with GPUs, so that tests of scale need no hardware."""

import json
import os
from collections.abc import Iterator

import pytest

from stepaudio_cluster.api import Cluster, Provider
from stepaudio_cluster.own import OwnCluster
from stepaudio_cluster.settings import Mode, Wish

pytestmark = pytest.mark.api


@pytest.fixture
def cluster() -> Iterator[Cluster]:
    name = "stepaudio-test-kwok"
    if os.environ.get("STEPAUDIO_TEST_KWOK") != "1":
        pytest.skip("simulated nodes: set STEPAUDIO_TEST_KWOK=1 (builds kwok: 100 s the first time)")
    OwnCluster.of(name).down(purge=True)
    yield Cluster.up(Wish(name, Mode.API, kwok=5), Provider.OWN)
    OwnCluster.of(name).down(purge=True)


def test_forty_gpus_on_five_nodes_take_ten_pods_of_four(cluster: Cluster) -> None:
    container = {"name": "chat", "image": "none", "resources": {"limits": {"nvidia.com/gpu": "4"}}}
    tolerations = [{"key": "kwok.x-k8s.io/node", "operator": "Exists"}]
    template = {
        "metadata": {"labels": {"app": "chat"}},
        "spec": {"containers": [container], "tolerations": tolerations},
    }
    deployment = {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": "chat"},
        "spec": {"replicas": 10, "selector": {"matchLabels": {"app": "chat"}}, "template": template},
    }

    cluster.kubectl("apply", "-f", "-", stdin=json.dumps(deployment))
    cluster.kubectl("rollout", "status", "deployment/chat", "--timeout=60s")

    pods = json.loads(cluster.kubectl("get", "pods", "-o", "json"))["items"]
    nodes = [pod["spec"]["nodeName"] for pod in pods]
    assert sorted(nodes) == sorted([f"kwok-{number}" for number in range(5)] * 2)
