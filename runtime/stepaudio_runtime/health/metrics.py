"""Prometheus metrics that every pod has: its phase, its work, its requests, its process."""

from collections.abc import Iterator

from prometheus_client import CollectorRegistry, Counter, Histogram, ProcessCollector, generate_latest
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from stepaudio_runtime.contract import Phase
from stepaudio_runtime.health.state import PodState

SECONDS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0)


class _StateCollector(Collector):
    """Reads the pod's state at scrape time."""

    def __init__(self, state: PodState) -> None:
        self._state = state

    def collect(self) -> Iterator[GaugeMetricFamily]:
        state = self._state
        yield GaugeMetricFamily("stepaudio_in_flight", "Requests in flight.", value=state.in_flight)
        yield GaugeMetricFamily(
            "stepaudio_max_in_flight", "Bound on requests in flight.", state.max_in_flight
        )
        yield GaugeMetricFamily("stepaudio_load_bytes", "Bytes of model files loaded.", state.bytes_loaded)
        yield GaugeMetricFamily("stepaudio_load_bytes_total", "Bytes of model files.", state.bytes_total)
        phase = GaugeMetricFamily("stepaudio_phase", "1 for the pod's present phase.", labels=["phase"])
        for candidate in Phase:
            phase.add_metric([candidate.value], float(candidate is state.phase))
        yield phase


class PodMetrics:
    """The registry of one pod and the series that its middleware writes."""

    def __init__(self, state: PodState) -> None:
        self.registry = CollectorRegistry()
        self.registry.register(_StateCollector(state))
        ProcessCollector(registry=self.registry)
        self.requests = Counter(
            "stepaudio_requests", "Requests answered.", ["route", "status"], registry=self.registry
        )
        self.seconds = Histogram(
            "stepaudio_request_seconds",
            "Seconds from a request's arrival to its last byte.",
            ["route"],
            buckets=SECONDS,
            registry=self.registry,
        )

    def text(self) -> bytes:
        """The exposition text."""
        return generate_latest(self.registry)
