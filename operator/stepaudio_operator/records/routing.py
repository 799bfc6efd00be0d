"""The routing object, as gateways read it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Wake:
    """What a gateway does with a request for a pool that sleeps: it holds it up to `hold_s` (None: not at
    all), then sends the client away for `retry_after_s`.
    """

    hold_s: int | None
    retry_after_s: int


@dataclass(frozen=True)
class RoutedPool:
    """Where one component is served: weights in per cent by revision. `wake` where the pool may sleep."""

    service: str
    port: int
    revisions: Mapping[str, int]
    wake: Wake | None = None


@dataclass(frozen=True)
class Routing:
    """The routing object that gateways read. `serving` false is a declared outage with `retry_after_s`."""

    generation: int
    release: str
    serving: bool
    retry_after_s: int | None
    pools: Mapping[str, RoutedPool]
