"""What pods say of their work in `GET /status`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from stepaudio_operator import names

MOST = 1_000_000
"""Of requests in flight, and of seconds: what is above cannot be true."""


@dataclass(frozen=True, slots=True)
class Work:
    """What a pod that serves says of its work: now, and of the last minute. Times in seconds; None where
    there was nothing to measure.
    """

    in_flight: int
    lately: float
    """Requests in flight, mean of the last minute."""
    queue_s: float | None = None
    """How long requests waited before work on them began, on average."""
    first_audio_s: float | None = None
    """How late the first sound came, on average."""


def work_of(body: Mapping[str, Any]) -> Work | None:
    """The work of a pod; None where the answer does not say it (an older runtime does not)."""
    said = body.get("lately")
    in_flight = _number(body.get("inFlight"))
    if not isinstance(said, Mapping) or in_flight is None:
        return None
    mean = _number(said.get("inFlight"))
    return Work(
        int(in_flight),
        in_flight if mean is None else mean,
        _number(said.get("queueSeconds")),
        _number(said.get("firstAudioSeconds")),
    )


def waiting_of(body: Mapping[str, Any]) -> Mapping[str, int] | None:
    """Of a gateway: requests that it holds, by component that was asked for lately without a ready pod."""
    said = body.get("waiting")
    if not isinstance(said, Mapping):
        return None
    held = {component: _number(said.get(component)) for component in names.MODEL_COMPONENTS}
    return {component: int(count) for component, count in held.items() if count is not None}


def _number(value: Any) -> float | None:
    if not isinstance(value, int | float) or isinstance(value, bool) or not 0 <= value <= MOST:
        return None
    return float(value)
