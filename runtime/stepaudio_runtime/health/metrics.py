"""Prometheus metrics that every pod has: its phase, its work, its requests, its process."""

from collections.abc import Iterator
from typing import Literal

from prometheus_client import CollectorRegistry, Counter, Histogram, ProcessCollector, generate_latest
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from stepaudio_runtime.bodies import Phase
from stepaudio_runtime.health.state import PodState

SECONDS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0)


GpuFigure = Literal["usedBytes", "totalBytes", "temperature", "eccErrors", "xid"]
GPU_SERIES: tuple[tuple[str, str, GpuFigure], ...] = (
    ("memory_used_bytes", "Memory in use on the GPU, of all processes.", "usedBytes"),
    ("memory_total_bytes", "Memory of the GPU.", "totalBytes"),
    ("temperature_celsius", "Temperature of the GPU.", "temperature"),
    ("ecc_errors", "ECC errors that lost data, since the driver was loaded.", "eccErrors"),
    ("xid", "Last XID that the driver reported of the GPU.", "xid"),
)


class _StateCollector(Collector):
    """Reads the pod's state at scrape time."""

    def __init__(self, state: PodState) -> None:
        self._state = state

    def collect(self) -> Iterator[GaugeMetricFamily]:
        state = self._state
        yield GaugeMetricFamily("stepaudio_in_flight", "Requests in flight.", value=state.all_in_flight)
        yield GaugeMetricFamily(
            "stepaudio_max_in_flight", "Bound on requests in flight.", state.max_in_flight
        )
        yield GaugeMetricFamily("stepaudio_load_bytes", "Bytes of model files loaded.", state.bytes_loaded)
        yield GaugeMetricFamily("stepaudio_load_bytes_total", "Bytes of model files.", state.bytes_total)
        phase = GaugeMetricFamily("stepaudio_phase", "1 for the pod's present phase.", labels=["phase"])
        for candidate in Phase:
            phase.add_metric([candidate.value], float(candidate is state.phase))
        yield phase
        for name, what, key in GPU_SERIES:
            family = GaugeMetricFamily(f"stepaudio_gpu_{name}", what, labels=["gpu", "product"])
            for index, gpu in enumerate(state.gpus):
                value = gpu[key]
                if value is not None:
                    family.add_metric([str(index), gpu["product"]], float(value))
            yield family


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
