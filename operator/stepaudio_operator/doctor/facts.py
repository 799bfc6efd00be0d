"""What `doctor` knows of a cluster. No I/O."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class NodeFact:
    """One node."""

    name: str
    ready: bool
    runtime: str  # such as containerd://2.1.4
    gpus: Mapping[str, int] = field(default_factory=dict)  # allocatable, by resource (nvidia.com/...)
    product: str = ""  # as GPU feature discovery names it, "" where it does not
    memory_mib: int | None = None  # of one GPU
    driver_major: int | None = None


@dataclass(frozen=True)
class StorageFact:
    """One storage class."""

    name: str
    provisioner: str
    is_default: bool


@dataclass(frozen=True)
class OperatorFact:
    """One installation of the operator."""

    namespace: str
    name: str
    account: str  # its ServiceAccount
    image: str
    ready: int
    wanted: int


@dataclass(frozen=True)
class Permission:
    """Whether an operator may do one thing; `subresource` is "" for the object itself."""

    group: str
    resource: str
    subresource: str
    verb: str
    allowed: bool


@dataclass(frozen=True)
class WebhookFact:
    """An admission webhook that is asked about every pod and refuses when it does not answer."""

    name: str
    service: str  # namespace/name; "" where it is a URL
    answers: bool  # whether that Service has a ready endpoint


@dataclass(frozen=True)
class QuotaFact:
    """One limit of a ResourceQuota, in its own unit."""

    quota: str
    resource: str
    hard: str
    used: str


@dataclass(frozen=True)
class Facts:
    """Everything that was read. `None` where it could not be; `unreadable` says why."""

    namespace: str
    version: tuple[int, int] | None
    crds: Mapping[str, frozenset[str]] | None  # CRD -> fields of its spec; those that are established
    nodes: tuple[NodeFact, ...] | None
    storage: tuple[StorageFact, ...] | None
    operators: tuple[OperatorFact, ...] | None
    permissions: tuple[Permission, ...] | None  # of the first operator
    webhooks: tuple[WebhookFact, ...] | None
    quotas: tuple[QuotaFact, ...] | None
    unreadable: Mapping[str, str] = field(default_factory=dict)
