"""What the operator counts, for Prometheus. One registry per process, made in `main` and passed on."""

from collections.abc import Callable, Iterator
from functools import partial

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    PlatformCollector,
    ProcessCollector,
    generate_latest,
)
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from stepaudio_operator.kube import resources
from stepaudio_operator.kube.resources import Resource
from stepaudio_operator.records import PoolRecord

WRITES = frozenset({"create", "apply", "patch_status", "update", "delete"})
"""The verbs of `client.Client` that change something."""
HELD = (resources.DEPLOYMENTS, resources.POOLS, resources.PODS, resources.REVISIONS)


class _Pools(Collector):
    """Reads the pools at every scrape, as their status says."""

    def __init__(self) -> None:
        self.pools: Callable[[], list[PoolRecord]] = list

    def collect(self) -> Iterator[GaugeMetricFamily]:
        labels = ["namespace", "deployment", "component"]
        replicas = GaugeMetricFamily(
            "stepaudio_operator_pool_replicas", "Replicas of a pool.", labels=[*labels, "state"]
        )
        ready = GaugeMetricFamily(
            "stepaudio_operator_pool_ready", "1 for a pool that is Ready.", labels=labels
        )
        stalled = GaugeMetricFamily(
            "stepaudio_operator_pool_stalled",
            "1 for a pool that needs a person, with the reason.",
            labels=[*labels, "reason"],
        )
        memory = GaugeMetricFamily(
            "stepaudio_operator_pool_gpu_memory_bytes",
            "Memory of one GPU of a pool that serves: expected, and measured on the fullest.",
            labels=[*labels, "state"],
        )
        drift = GaugeMetricFamily(
            "stepaudio_operator_pool_gpu_memory_drift",
            "1 for a pool whose GPUs do not hold what was estimated, with the reason.",
            labels=[*labels, "reason"],
        )
        for pool in self.pools():
            place = [pool.namespace, pool.deployment, pool.component]
            counts = {
                "wanted": pool.replicas or 0,
                "ready": pool.ready_replicas,
                "updated": pool.updated_replicas,
            }
            for state, count in counts.items():
                replicas.add_metric([*place, state], count)
            ready.add_metric(place, float(pool.ready is not None and pool.ready.status == "True"))
            if pool.stalled is not None and pool.stalled.status == "True":
                stalled.add_metric([*place, pool.stalled.reason], 1.0)
            if pool.gpu_memory is not None:
                held = {"expected": pool.gpu_memory.expected, "measured": pool.gpu_memory.measured}
                for state, size in held.items():
                    if size:
                        memory.add_metric([*place, state], float(size.removesuffix("GB")) * 1e9)
                if pool.gpu_memory.drift:
                    drift.add_metric([*place, pool.gpu_memory.drift], 1.0)
        yield from (replicas, ready, stalled, memory, drift)


class Metrics:
    """The operator's metrics."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        PlatformCollector(registry=self.registry)
        self.reconciles = Histogram(
            "stepaudio_operator_reconcile_seconds",
            "Duration of one reconcile.",
            ["kind", "outcome"],
            buckets=(0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 15),
            registry=self.registry,
        )
        self.calls = Counter(
            "stepaudio_operator_api_calls",
            "Answered calls to the API server; code 0 stands for no answer.",
            ["verb", "kind", "code"],
            registry=self.registry,
        )
        self.writes = Counter(
            "stepaudio_operator_api_writes",
            "Successful writes to the API server.",
            ["verb", "kind"],
            registry=self.registry,
        )
        self.errors = Counter(
            "stepaudio_operator_errors",
            "Failures by the place and the class of the error.",
            ["where", "error"],
            registry=self.registry,
        )
        self.polls = Counter(
            "stepaudio_operator_polls",
            "Status requests to pods by outcome.",
            ["outcome"],
            registry=self.registry,
        )
        self.leader = Gauge(
            "stepaudio_operator_leader", "1 while this replica holds the lease.", registry=self.registry
        )
        self.queue = Gauge(
            "stepaudio_operator_queue_depth",
            "Objects that are due and wait for a worker.",
            registry=self.registry,
        )
        self.running = Gauge(
            "stepaudio_operator_queue_running", "Objects being reconciled.", registry=self.registry
        )
        self.objects = Gauge(
            "stepaudio_operator_cached_objects", "Objects held in memory.", ["kind"], registry=self.registry
        )

        self.pools = _Pools()
        self._rendered: tuple[list[PoolRecord], bytes] = ([], generate_latest(self.pools))

    def count_call(self, verb: str, resource: Resource, code: int) -> None:
        """Counts one call; `code` is the HTTP status, 0 where there was no answer."""
        self.calls.labels(verb, resource.kind, str(code)).inc()
        if verb in WRITES and 200 <= code < 300:
            self.writes.labels(verb, resource.kind).inc()

    def follow(
        self,
        depth: Callable[[], int],
        running: Callable[[], int],
        leader: Callable[[], bool],
        held: Callable[[str], int],
        pools: Callable[[], list[PoolRecord]],
    ) -> None:
        """Reads these at every scrape; `held(kind)` counts the objects in memory."""
        self.pools.pools = pools
        self.queue.set_function(depth)
        self.running.set_function(running)
        self.leader.set_function(lambda: float(leader()))
        for resource in HELD:
            self.objects.labels(resource.kind).set_function(partial(held, resource.kind))

    def text(self) -> bytes:
        """The Prometheus text format; thousands of pools take long, so theirs is kept while none changes."""
        pools = self.pools.pools()
        if pools != self._rendered[0]:
            self._rendered = pools, generate_latest(self.pools)
        return generate_latest(self.registry) + self._rendered[1]
