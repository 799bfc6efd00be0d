"""A HorizontalPodAutoscaler in the deployment under load: it takes a speech pod away while streams are open,
and adds one again, by what the pods themselves say that they have in flight.
"""

import asyncio
import contextlib
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import httpx
import yaml

from stepaudio_cluster.make_up import DEPLOYMENT
from tests.bench.on_a_kubelet.ground import host_address, pods_of
from tests.bench.on_a_kubelet.scenarios import NAMESPACE, Raw, World, name, note_leaving
from tests.bench.on_a_kubelet.watching import pod_says
from tests.metrics_api import METRIC, SERVICE, MetricsApi, registration

EXAMPLE = Path(__file__).parents[3] / "examples/autoscaling/hpa.yaml"
MANY, FEW = "8", "200m"
"""Utterances in flight with which a replica is content."""


def by_an_autoscaler(world: World) -> Raw:
    """The example, for two replicas at most and without its patience: content with many in flight it takes
    one of the two pods away, content with few it wants the second again.
    """
    seen: Raw = {}
    with _metrics(world) as told:
        try:
            world.apply(_autoscaler(MANY))
            world.until(lambda: world.pool("tts")["spec"]["replicas"] == 1, "one replica is wanted")
            world.note_streams()
            seen["one served after s"] = _until_serving(world, 1)
            world.apply(_autoscaler(FEW))
            seen["two served after s"] = _until_serving(world, 2)
            scaled = world.get("hpa", name("tts"))["status"]
        finally:
            world.nano.cluster.kubectl("delete", "hpa", name("tts"), "--ignore-not-found")
    world.until_whole()
    able = {c["type"]: c["status"] for c in scaled["conditions"]}
    if (able["AbleToScale"], able["ScalingActive"]) != ("True", "True"):
        raise AssertionError(f"the autoscaler says {scaled}")
    return {**seen, "it was told of in flight": [min(told), max(told)], "so often": len(told)}


AUTOSCALER: Mapping[str, Callable[[World], Raw]] = {"hpa": by_an_autoscaler}


def _autoscaler(content_with: str) -> Raw:
    body: Raw = yaml.safe_load(EXAMPLE.read_text())
    body["metadata"]["name"] = body["spec"]["scaleTargetRef"]["name"] = name("tts")
    body["spec"]["maxReplicas"] = 2
    body["spec"]["metrics"][0]["pods"]["target"]["averageValue"] = content_with
    body["spec"]["behavior"]["scaleDown"] = {"stabilizationWindowSeconds": 0}
    return body


def _until_serving(world: World, replicas: int) -> int:
    """Waits until so many speech pods are wanted and serve, and no other is there; returns the seconds."""
    began = time.monotonic()

    def serving() -> bool:
        pool = world.pool("tts")
        found = pool["spec"]["replicas"], pool["status"].get("readyReplicas"), len(world.pods("tts"))
        return note_leaving(world) and found == (replicas,) * 3

    world.until(serving, f"{replicas} speech pods serve")
    return round(time.monotonic() - began)


@contextlib.contextmanager
def _metrics(world: World) -> Iterator[list[float]]:
    """The API server serves what the speech pods say; gives the sums that it was told."""
    kubectl, host, told = world.nano.cluster.kubectl, host_address(world), list[float]()
    over = threading.Event()

    def values() -> dict[str, float]:
        found = {pod["metadata"]["name"]: _in_flight(pod) for pod in pods_of(world, DEPLOYMENT, "tts")}
        told.append(sum(found.values()))
        return found

    async def serve(folder: str) -> None:
        api = MetricsApi(lambda _: asyncio.to_thread(values))
        port = await api.start(Path(folder), host)
        try:
            for thing in registration(NAMESPACE, host, port):
                await asyncio.to_thread(world.apply, thing)
            await asyncio.to_thread(over.wait)
        finally:
            await asyncio.to_thread(kubectl, "delete", "apiservice", SERVICE, "--ignore-not-found")
            await asyncio.to_thread(kubectl, "delete", "service", "metrics", "--ignore-not-found")
            await api.close()

    with tempfile.TemporaryDirectory(prefix="stepaudio-metrics-") as folder:
        serving = threading.Thread(target=lambda: asyncio.run(serve(folder)), name="metrics")
        serving.start()
        try:
            yield told
        finally:
            over.set()
            serving.join()


def _in_flight(pod: Raw) -> float:
    """What a pod says of itself; 0 while it does not answer."""
    try:
        return pod_says(pod, METRIC)
    except (httpx.HTTPError, KeyError):
        return 0.0
