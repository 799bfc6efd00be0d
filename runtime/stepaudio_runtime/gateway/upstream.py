"""Requests to pods: choose, connect, try one other endpoint, translate every fault.

Until a pod has answered with a good status nothing has gone to the client, so up to then a fault of the
connection, or a pod that is full, loading or draining, sends the request to one other endpoint. Pods have no
state that a request changes, so doing it twice is safe. After that a fault is UpstreamFailed.
"""

import asyncio
import contextlib
import json
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import httpx

from stepaudio_runtime.contract import HEADER_REQUEST_ID, HEADER_RETRY_AFTER, Component
from stepaudio_runtime.errors import InputError, Overloaded, StepAudioError, Unavailable
from stepaudio_runtime.gateway.envelope import request_id
from stepaudio_runtime.gateway.errors import UpstreamFailed
from stepaudio_runtime.gateway.figures import Counts, Figures
from stepaudio_runtime.gateway.metrics import GatewayMetrics
from stepaudio_runtime.gateway.paths import current_path
from stepaudio_runtime.gateway.routing import RETRY_AFTER_S, Balancer, Endpoint, Path
from stepaudio_runtime.pieces import pieces

log = logging.getLogger(__name__)

ATTEMPTS = 2
MAX_ERROR_BODY = 64 * 1024
"""Bytes of a pod's error that are read."""

CLIENT_FAULTS = frozenset({400, 413, 415, 422})
"""Statuses by which a pod says that the client's input is at fault."""


@dataclass(frozen=True)
class Call:
    """One request to a pod; `json` or `content` is the body."""

    path: str
    method: str = "POST"
    json: Any = None
    content: bytes | None = None
    params: dict[str, str | int] = field(default_factory=dict)

    def body(self) -> bytes | None:
        """The bytes to send."""
        if self.json is None:
            return self.content
        return json.dumps(self.json, ensure_ascii=False, separators=(",", ":"), allow_nan=False).encode()


Prepare = Callable[[Endpoint], Awaitable[Call]]
"""The request for an endpoint: it may depend on the endpoint's revision, and may itself ask that pod."""


class _Refused(Exception):  # noqa: N818 - never leaves this module
    """A pod did not take the request; another may. `error` is the answer if none does."""

    def __init__(self, kind: str, error: StepAudioError) -> None:
        self.kind = kind
        self.error = error


class Reply:
    """A pod's good answer, to be read once. Every fault while reading is UpstreamFailed.

    `counts` are told of it, and `waited` says how long it has taken so far (s).
    """

    def __init__(
        self,
        pool: str,
        endpoint: Endpoint,
        response: httpx.Response,
        *,
        counts: Counts | None = None,
        waited: Callable[[], float] = lambda: 0.0,
    ) -> None:
        self._pool = pool
        self._response = response
        self._counts = counts
        self._waited = waited
        self._seen = False
        self.endpoint = endpoint
        self.headers = response.headers

    async def chunks(self) -> AsyncIterator[bytes]:
        """The body as it arrives."""
        try:
            async for chunk in self._response.aiter_bytes():
                self._begun()
                yield chunk
        except httpx.HTTPError as fault:
            raise self.broken(repr(fault)) from fault

    async def lines(self) -> AsyncIterator[str]:
        """The body's lines as they arrive."""
        try:
            async for line in self._response.aiter_lines():
                self._begun()
                yield line
        except httpx.HTTPError as fault:
            raise self.broken(repr(fault)) from fault

    async def body(self) -> bytes:
        """The whole body."""
        return b"".join([chunk async for chunk in self.chunks()])

    async def json(self) -> dict[str, Any]:
        """The whole body, a JSON object."""
        try:
            found = json.loads(await self.body())
        except ValueError as fault:
            raise self.broken("not JSON") from fault
        if not isinstance(found, dict):
            raise self.broken("not a JSON object")
        return found

    def broken(self, why: str) -> UpstreamFailed:
        """The error for an answer that broke off or is not what the contract says; `why` is for the log."""
        log.warning("%s pod %s: %s", self._pool, self.endpoint.name, why)
        if self._counts is not None:
            self._counts.errors += 1
            self._counts = None
        return UpstreamFailed(f"the {self._pool} pod that served this request did not answer in full")

    def _begun(self) -> None:
        """The first byte has come."""
        if self._counts is not None and not self._seen:
            self._seen = True
            self._counts.answered(self._waited())


class Upstreams:
    """The pods, as the routes use them."""

    def __init__(
        self,
        client: httpx.AsyncClient,
        balancer: Balancer,
        metrics: GatewayMetrics,
        figures: Figures,
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._figures = figures
        self._client = client
        self._balancer = balancer
        self._metrics = metrics
        self._clock = clock
        self._news = asyncio.Event()

    def routing_changed(self) -> None:
        """There may be a pod for those who wait for one."""
        self._news.set()
        self._news = asyncio.Event()

    @asynccontextmanager
    async def open(
        self, pool: Component, prepare: Prepare, *, key: bytes | None = None, patient: bool = True
    ) -> AsyncIterator[Reply]:
        """Send a request to a pod of `pool` and hold its in-flight place until the block ends.

        `key` identifies a conversation. A `patient` request waits for the first pod of a pool that sleeps, as
        long as the routing object says. Raises Unavailable, Overloaded, UpstreamFailed, or InputError where
        the pod says that the input is at fault.
        """
        tried: frozenset[str] = frozenset()
        path = current_path.get()
        if not self._balancer.candidates(pool, path):
            self._metrics.missed.labels(pool).inc()
        if patient:
            await self._first_pod(pool, path)
        for attempt in range(1, ATTEMPTS + 1):
            endpoint = self._balancer.pick(pool, now=self._clock(), path=path, key=key, avoid=tried)
            with self._balancer.holding(pool, endpoint):
                started = self._clock()
                counts = self._figures.of(pool, endpoint.revision)
                try:
                    response = await self._send(pool, endpoint, await prepare(endpoint))
                except UpstreamFailed:
                    counts.requests += 1
                    counts.errors += 1
                    raise
                except _Refused as refusal:
                    if refusal.kind == "unreachable":
                        counts.requests += 1
                        counts.errors += 1
                    self._metrics.upstream_faults.labels(pool, refusal.kind).inc()
                    log.warning("%s pod %s: %s", pool, endpoint.name, refusal.error)
                    if refusal.kind == "unreachable":
                        self._balancer.failed(pool, endpoint, now=self._clock())
                    tried |= {endpoint.name}
                    others = any(e.name not in tried for e in self._balancer.candidates(pool, path))
                    # A full pod is not asked twice; a broken connection may have been an old idle one.
                    if attempt == ATTEMPTS or (refusal.kind == "refused" and not others):
                        raise refusal.error from refusal
                    continue
                self._metrics.upstream_first_byte.labels(pool).observe(self._clock() - started)
                counts.requests += 1
                waited = partial(_since, self._clock, started)
                try:
                    yield Reply(pool, endpoint, response, counts=counts, waited=waited)
                finally:
                    await response.aclose()
                    self._metrics.upstream_seconds.labels(pool).observe(self._clock() - started)
                return

    def rouse(self, pools: Iterable[Component]) -> None:
        """Wake those of `pools` that sleep, at once and not one after the other."""
        path = current_path.get()
        for pool in pools:
            if self._balancer.asleep(pool, path) is not None:
                self._balancer.missed(pool, now=self._clock())

    async def _first_pod(self, pool: Component, path: Path | None) -> None:
        """Returns when there is a pod, or no hope of one in time."""
        wake = self._balancer.asleep(pool, path)
        if wake is None or not wake.hold_s:
            return
        self._balancer.missed(pool, now=self._clock())
        with contextlib.suppress(TimeoutError), self._balancer.held(pool):
            async with asyncio.timeout(wake.hold_s):
                while self._balancer.asleep(pool, path) is not None:
                    await self._news.wait()

    async def fetch(self, pool: Component, endpoint: Endpoint, path: str) -> tuple[bytes, httpx.Headers]:
        """GET a small file of one pod; to be called while preparing a request to it."""
        response = await self._send(pool, endpoint, Call(path, method="GET"))
        try:
            reply = Reply(pool, endpoint, response)
            return await reply.body(), reply.headers
        finally:
            await response.aclose()

    async def _send(self, pool: Component, endpoint: Endpoint, call: Call) -> httpx.Response:
        headers = {HEADER_REQUEST_ID: request_id.get()}
        body = call.body()
        if body is not None:
            headers["Content-Length"] = str(len(body))
        if call.json is not None:
            headers["Content-Type"] = "application/json"
        request = self._client.build_request(
            call.method,
            endpoint.url + call.path,
            params=call.params or None,
            content=None if body is None else pieces(body),
            headers=headers,
        )
        try:
            response = await self._client.send(request, stream=True)
        except httpx.HTTPError as fault:
            error = UpstreamFailed(f"the {pool} pod could not be reached ({type(fault).__name__})")
            raise _Refused("unreachable", error) from fault
        if response.status_code < 300:
            return response
        try:
            raise await _fault(pool, endpoint, response)
        finally:
            await response.aclose()


def _since(clock: Callable[[], float], started: float) -> float:
    return clock() - started


async def _fault(pool: str, endpoint: Endpoint, response: httpx.Response) -> Exception:
    """What a pod's answer that is not 2xx means."""
    raw = b""
    try:
        async for chunk in response.aiter_bytes():
            raw += chunk
            if len(raw) > MAX_ERROR_BODY:
                break
        detail = json.loads(raw)["error"]
        message = str(detail["message"])
        param, code = detail.get("param"), detail.get("code")
    except (httpx.HTTPError, ValueError, TypeError, KeyError):
        message, param, code = "", None, None
    status = response.status_code
    if status in CLIENT_FAULTS:
        return InputError(
            message or f"the {pool} pod refuses the input",
            param=param if isinstance(param, str) else None,
            code=code if isinstance(code, str) else None,
        )
    retry_after = response.headers.get(HEADER_RETRY_AFTER, "")
    retry_after_s = int(retry_after) if retry_after.isdigit() else RETRY_AFTER_S
    if status == 429:
        return _Refused("refused", Overloaded(f"all {pool} pods are full", retry_after_s=retry_after_s))
    if status == 503:
        return _Refused("refused", Unavailable(f"no {pool} pod is ready", retry_after_s=retry_after_s))
    log.error("%s pod %s answered %d: %s", pool, endpoint.name, status, message or raw[:200])
    return UpstreamFailed(f"the {pool} pod failed (status {status})")
