"""Prometheus series that only the gateway has; those of every pod are in `health.metrics`."""

from prometheus_client import Counter, Gauge, Histogram

from stepaudio_runtime.health.metrics import SECONDS, PodMetrics


class GatewayMetrics:
    """Registers the gateway's series beside the pod's."""

    def __init__(self, pod: PodMetrics) -> None:
        registry = pod.registry
        self.first_byte = Histogram(
            "stepaudio_gateway_first_byte_seconds",
            "Seconds from a request's arrival to the first byte of its answer's body.",
            ["route"],
            buckets=SECONDS,
            registry=registry,
        )
        self.upstream_first_byte = Histogram(
            "stepaudio_gateway_upstream_first_byte_seconds",
            "Seconds until a pod began to answer.",
            ["pool"],
            buckets=SECONDS,
            registry=registry,
        )
        self.upstream_seconds = Histogram(
            "stepaudio_gateway_upstream_seconds",
            "Seconds until a pod had answered in full.",
            ["pool"],
            buckets=SECONDS,
            registry=registry,
        )
        self.upstream_faults = Counter(
            "stepaudio_gateway_upstream_faults",
            "Requests that a pod did not take: unreachable, or refused (full, loading, draining).",
            ["pool", "kind"],
            registry=registry,
        )
        self.missed = Counter(
            "stepaudio_gateway_missed",
            "Requests that found no ready pod, those that were held for one too.",
            ["pool"],
            registry=registry,
        )
        self.tokens = Counter(
            "stepaudio_gateway_tokens", "Tokens of the chat model.", ["kind"], registry=registry
        )
        self.audio_seconds = Counter(
            "stepaudio_gateway_audio_seconds", "Seconds of audio.", ["direction"], registry=registry
        )
        self.endpoints = Gauge(
            "stepaudio_gateway_endpoints", "Ready endpoints of a pool.", ["pool"], registry=registry
        )
        self.generation = Gauge(
            "stepaudio_gateway_routing_generation", "Generation of the routing object.", registry=registry
        )
