"""The operator's own settings: typed, with prose and units, read once from the environment in `main`.

Every field `x` of the nested groups below is set by `STEPAUDIO_OPERATOR_` + the name in its comment; the
chart writes these variables.
"""

import re
import socket
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from importlib.metadata import version
from typing import TypeVar

from stepaudio_operator.errors import SettingsError
from stepaudio_operator.kube.lease import LeaseSettings
from stepaudio_operator.queue import Limits
from stepaudio_operator.render.images import ImageDefaults
from stepaudio_operator.spec.fields import IMAGE_TAG, REGISTRY

PREFIX = "STEPAUDIO_OPERATOR_"
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class LogSettings:
    """How the operator logs."""

    json: bool = False
    """One JSON object a line instead of text (LOG_FORMAT=json|text)."""
    level: str = "INFO"
    """Lowest level that is written (LOG_LEVEL)."""


@dataclass(frozen=True, slots=True)
class HealthSettings:
    """Where `/healthz`, `/readyz` and `/metrics` are served."""

    host: str = "0.0.0.0"  # noqa: S104 - the kubelet and Prometheus come from outside the pod
    """Address to bind (HEALTH_HOST)."""
    port: int = 8080
    """TCP port (HEALTH_PORT); 0 takes a free one."""


@dataclass(frozen=True, slots=True)
class PollSettings:
    """How pods are asked for their status."""

    connect_s: float = 1.0
    """Time to connect to a pod (s)."""
    total_s: float = 2.0
    """Time for the whole answer (s)."""
    concurrency: int = 32
    """Requests in flight at once."""
    first_s: float = 0.5
    """Pause after the first answer that is not what is waited for (s); grows by half each time."""
    last_s: float = 5.0
    """Longest pause between two questions to a pod that answers (s)."""
    unreachable_s: float = 30.0
    """Longest pause between two questions to a pod that does not answer (s)."""
    gpus_s: float = 300.0
    """Pause between two questions to a pod that serves on GPUs (s)."""
    settle_s: float = 20.0
    """After how long a pod that has begun to serve says what its GPUs hold (s); it looks every 10 s."""


@dataclass(frozen=True, slots=True)
class Settings:
    """Everything that can be set from outside."""

    lease: LeaseSettings
    """LEASE_NAMESPACE (else POD_NAMESPACE, else "default"), LEASE_NAME, IDENTITY (else POD_NAME, else the
    host's name), LEASE_DURATION_S, LEASE_RENEW_S, LEASE_RETRY_S."""
    images: ImageDefaults
    """RUNTIME_VERSION (else the operator's own) and IMAGE_REGISTRY, for deployments that name none."""
    namespace: str | None = None
    """The one namespace to serve; None for all of them (NAMESPACE)."""
    workers: int = 16
    """Reconciles that run at once (WORKERS)."""
    log: LogSettings = field(default_factory=LogSettings)
    health: HealthSettings = field(default_factory=HealthSettings)
    poll: PollSettings = field(default_factory=PollSettings)
    limits: Limits = field(default_factory=Limits)


def from_environment(environment: Mapping[str, str]) -> Settings:
    """Settings from environment variables. Raises `SettingsError` naming the variable that is wrong."""

    def read(name: str, default: T, parse: Callable[[str], T]) -> T:
        text = environment.get(PREFIX + name, "").strip()
        if not text:
            return default
        try:
            return parse(text)
        except ValueError as error:
            raise SettingsError(f"{PREFIX}{name}={text!r}: {error}") from error

    lease = LeaseSettings(
        namespace=read("LEASE_NAMESPACE", environment.get("POD_NAMESPACE") or "default", str),
        name=read("LEASE_NAME", "stepaudio-operator", str),
        identity=read("IDENTITY", environment.get("POD_NAME") or socket.gethostname(), str),
        duration_s=read("LEASE_DURATION_S", 15.0, float),
        renew_s=read("LEASE_RENEW_S", 10.0, float),
        retry_s=read("LEASE_RETRY_S", 2.0, float),
    )
    if not 0 < lease.retry_s < lease.renew_s < lease.duration_s:
        raise SettingsError(
            f"{PREFIX}LEASE_RETRY_S < {PREFIX}LEASE_RENEW_S < {PREFIX}LEASE_DURATION_S does not hold: "
            f"{lease.retry_s}, {lease.renew_s}, {lease.duration_s}"
        )
    return Settings(
        lease=lease,
        images=ImageDefaults(
            version=read("RUNTIME_VERSION", version("stepaudio-operator"), _version),
            registry=read("IMAGE_REGISTRY", "", _registry),
        ),
        namespace=read("NAMESPACE", None, str),
        workers=read("WORKERS", 16, _positive),
        log=LogSettings(
            json=read("LOG_FORMAT", False, _one_of({"json": True, "text": False})),
            level=read("LOG_LEVEL", "INFO", _one_of({n: n for n in ("DEBUG", "INFO", "WARNING", "ERROR")})),
        ),
        health=HealthSettings(
            host=read("HEALTH_HOST", "0.0.0.0", str),  # noqa: S104 - as above
            port=read("HEALTH_PORT", 8080, int),
        ),
    )


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise ValueError("must be at least 1")
    return number


def _version(text: str) -> str:
    if re.search(IMAGE_TAG, text) is None:
        raise ValueError(f"must be the tag of an image, as 1.4.2 is ({IMAGE_TAG})")
    return text


def _registry(text: str) -> str:
    if re.search(REGISTRY, text) is None:
        raise ValueError(
            "must be a host and a path, without a scheme and without a slash at the end, as"
            " registry.example.com/team is"
        )
    return text


def _one_of(choices: Mapping[str, T]) -> Callable[[str], T]:
    def parse(text: str) -> T:
        if text not in choices:
            raise ValueError(f"must be one of {', '.join(choices)}")
        return choices[text]

    return parse
