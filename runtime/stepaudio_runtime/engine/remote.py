"""Requests to other machines that may be busy: tried again with growing waits, never for ever.

429, 408, 425, 5xx, no connection    tried again, after Retry-After where it is given
400, 413, 415, 422                   what was sent is at fault: InputError, the sample is refused
anything else                        the address, the key or the model is wrong: ConfigError, the run ends
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import httpx

from stepaudio_runtime.contract import HEADER_RETRY_AFTER
from stepaudio_runtime.errors import ConfigError, InputError, OutputError, Unavailable
from stepaudio_runtime.retry_after import retry_after_s

MAX_ANSWER = 64 << 20
"""Bytes of an answer that are read."""
_FIRST_WAIT_S, _LONGEST_WAIT_S = 0.5, 60.0
_LONGEST_RETRY_AFTER_S = 300.0
_SENDER_AT_FAULT = frozenset({400, 413, 415, 422})
_TRY_AGAIN = frozenset({408, 409, 425, 429})
_SHOWN = 200


@dataclass(frozen=True)
class Retries:
    """How often a request is made, and how waiting is done and timed."""

    attempts: int
    sleep: Callable[[float], None] = time.sleep
    now: Callable[[], float] = time.time  # of the calendar: Retry-After may be a date


Arrived = Callable[[int], None]
"""Told, as an answer comes, how many bytes of it are here."""


def ignore(_size: int) -> None:
    """Told, and not interested."""


def post(
    client: httpx.Client, url: str, retries: Retries, *, arrived: Arrived = ignore, **request: Any
) -> httpx.Response:
    """The good answer to a POST of `request` (httpx's arguments), read whole; raises as said above.

    Unavailable is raised after the last attempt, with what it ended in.
    """
    fault = "no attempt was made"
    for attempt in range(retries.attempts):
        asked: float | None = None
        try:
            with client.stream("POST", url, **request) as response:
                body = _read(response, arrived if response.is_success else ignore)
                if response.is_success:
                    return httpx.Response(response.status_code, headers=_plain(response), content=body)
                said = _said(body)
                fault = f"{url} answered {response.status_code}: {said}"
                if response.status_code in _SENDER_AT_FAULT:
                    raise InputError(fault, code="refused_by_teacher")
                if response.status_code < 500 and response.status_code not in _TRY_AGAIN:
                    raise ConfigError(what=fault, cure="correct the address, the model or the key")
                asked = retry_after_s(response.headers.get(HEADER_RETRY_AFTER, ""), retries.now())
        except httpx.TransportError as error:
            fault = f"{url} cannot be reached: {error or type(error).__name__}"
        except httpx.HTTPError as error:
            raise ConfigError(what=f"{url}: {error}", cure="correct the address") from None
        if attempt + 1 < retries.attempts:
            retries.sleep(wait_s(attempt, asked))
    raise Unavailable(f"{fault}; given up after {retries.attempts} attempts")


def wait_s(attempt: int, asked: float | None) -> float:
    """Seconds to wait after attempt number `attempt` (from 0) failed: doubled each time, or as asked."""
    growing = min(_LONGEST_WAIT_S, _FIRST_WAIT_S * 2.0**attempt)
    return growing if asked is None else min(_LONGEST_RETRY_AFTER_S, max(growing, asked))


def _read(response: httpx.Response, arrived: Arrived) -> bytes:
    parts, size = [], 0
    for part in response.iter_bytes():
        size += len(part)
        if size > MAX_ANSWER:
            raise OutputError(f"{response.url} sends more than {MAX_ANSWER:,} bytes")
        parts.append(part)
        arrived(size)
    return b"".join(parts)


def _plain(response: httpx.Response) -> dict[str, str]:
    """The headers of a body that has been decoded."""
    dropped = {"content-encoding", "content-length", "transfer-encoding"}
    return {name: value for name, value in response.headers.items() if name not in dropped}


def _said(body: bytes) -> str:
    return " ".join(body[:4096].decode(errors="replace").split())[:_SHOWN] or "(nothing)"
