"""The gateway's process: settings from the environment, clients, sources, then `health.process` runs it."""

import asyncio
import contextlib
import ctypes
import json
import logging
import math
import os
import sys
import time
from collections.abc import Mapping
from typing import Protocol

import httpx

from stepaudio_runtime.contract import Component
from stepaudio_runtime.errors import ConfigError, StepAudioError, Unavailable
from stepaudio_runtime.gateway.app import Gateway
from stepaudio_runtime.gateway.declared_voices import VoicesSource
from stepaudio_runtime.gateway.envelope import request_id
from stepaudio_runtime.gateway.routing import Endpoint, Routing
from stepaudio_runtime.gateway.settings import GatewaySettings, read_settings
from stepaudio_runtime.gateway.static_routing import StaticSource, Update
from stepaudio_runtime.gateway.watch import InClusterApi, KubernetesSource
from stepaudio_runtime.health.process import Listen, exit_status, last_words, leave_last_words, run_pod
from stepaudio_runtime.health.state import PodState
from stepaudio_runtime.pieces import PIECE
from stepaudio_runtime.voices.store import utc_now

log = logging.getLogger(__name__)

M_MMAP_THRESHOLD, M_ARENA_MAX = -3, -8
"""Parameters of glibc's `mallopt`, as its malloc.h numbers them."""

LEAVE_TIMEOUT_S = 5.0
"""Clients that use their connections more often than that never meet one that is closed under them."""


class Source(Protocol):
    """Where routing comes from."""

    async def start(self) -> None:
        """Begin to watch."""

    async def stop(self) -> None:
        """End watching."""


class GatewayService:
    """What the gateway does besides serving: follows routing and keys. Ready once it knows the routing."""

    def __init__(self, gateway: Gateway) -> None:
        self.failed: asyncio.Future[StepAudioError] = asyncio.get_running_loop().create_future()
        self._gateway = gateway
        self._source: Source | None = None
        self._voices: Source | None = None
        self._sweeping: asyncio.Task[None] | None = None
        self._known = asyncio.Event()

    async def start(self) -> None:
        """Wait for the first routing object and its endpoints."""
        self._sweeping = asyncio.create_task(self._sweep(), name="voice-store-sweep")
        self._gateway.state.load("waiting for the routing object", reason="NoRouting")
        await self._gateway.keys.start()
        self._source = await _source(self._gateway, self._changed)
        await self._source.start()
        await self._known.wait()
        self._voices = await _voices_source(self._gateway)
        if self._voices is not None:
            await self._voices.start()

    async def stop(self) -> None:
        """End what was started."""
        if self._sweeping is not None:
            self._sweeping.cancel()
        for source in (self._voices, self._source):
            if source is not None:
                await source.stop()
        await self._gateway.close()

    async def _sweep(self) -> None:
        """Remove once what gateways that died have left in the voice store."""
        if self._gateway.store is None:
            return
        try:
            swept = await self._gateway.store.sweep(utc_now())
        except Unavailable:
            return  # the store has said so in the log; the next gateway will do it
        if swept:
            log.info("%d files that belong to no voice were removed", swept)

    def _changed(self, routing: Routing, endpoints: Mapping[str, tuple[Endpoint, ...]]) -> None:
        self._gateway.routing_changed(routing, endpoints)
        self._known.set()


async def _source(gateway: Gateway, update: Update) -> Source:
    settings = gateway.settings
    if settings.static_routing is not None:
        return StaticSource(settings.static_routing, update)
    api = await InClusterApi.connect()
    return KubernetesSource(
        api, settings.namespace, settings.routing_configmap, update, gateway.pod_says_ready
    )


async def _voices_source(gateway: Gateway) -> Source | None:
    settings = gateway.settings
    if gateway.declared is None or not settings.voices_configmap:
        return None
    api = await InClusterApi.connect()
    return VoicesSource(api, settings.namespace, settings.voices_configmap, gateway.declared)


def http_client(settings: GatewaySettings) -> httpx.AsyncClient:
    """The client for all pods: no proxy, and no bound on connections, since admission bounds the work."""
    return httpx.AsyncClient(
        timeout=httpx.Timeout(
            settings.silence_timeout_s, connect=settings.connect_timeout_s, pool=settings.connect_timeout_s
        ),
        limits=httpx.Limits(max_connections=None, max_keepalive_connections=64, keepalive_expiry=30),
        trust_env=False,
        follow_redirects=False,
    )


async def run(settings: GatewaySettings) -> int:
    """Serve until SIGTERM; returns the exit status."""
    _give_large_buffers_back()
    # The gateway computes nothing that could stall; a pod's stall is the pod's matter.
    state = PodState(
        Component.GATEWAY,
        settings.revision,
        max_in_flight=settings.max_in_flight,
        stall_timeout_s=math.inf,
    )
    gateway = Gateway(settings, state, http_client(settings))
    listen = Listen(
        settings.host,
        settings.port,
        settings.drain_timeout_s,
        settings.termination_log,
        leave_timeout_s=LEAVE_TIMEOUT_S,
    )
    return await run_pod(gateway.app, state, GatewayService(gateway), listen)


def _give_large_buffers_back() -> None:
    """Let the allocator return what is of a piece's size and more as it is freed, and keep no holes for it.

    Left to itself it raises its bound to 32 MiB: a body of 60 MiB then cost 3 to 5.3 times its bytes, with
    this 3.04 times.
    """
    if sys.platform == "linux":
        with contextlib.suppress(OSError, AttributeError):  # other C libraries have neither
            mallopt = ctypes.CDLL(None).mallopt
            mallopt(M_MMAP_THRESHOLD, PIECE)
            mallopt(M_ARENA_MAX, 2)


class JsonLines(logging.Formatter):
    """One JSON object a line: time, level, message, request id and whatever a call adds as `extra`."""

    _PLAIN = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}

    def format(self, record: logging.LogRecord) -> str:
        """The line."""
        line: dict[str, object] = {
            "time": time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
            + f".{int(record.msecs):03d}Z",
            "level": record.levelname,
            "logger": record.name,
            "message": record.getMessage(),
            "requestId": request_id.get(),
        }
        line |= {k: v for k, v in vars(record).items() if k not in self._PLAIN}
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line, ensure_ascii=False, default=str)


def serve_gateway() -> int:
    """Run the gateway as `stepaudio serve gateway` does; returns the exit status."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonLines())
    logging.basicConfig(level=logging.INFO, handlers=[handler], force=True)
    logging.getLogger("httpx").setLevel(logging.WARNING)
    try:
        settings = read_settings(os.environ)
        return asyncio.run(run(settings))
    except ConfigError as fault:
        leave_last_words(last_words(fault), GatewaySettings.termination_log)
        return exit_status(fault)
