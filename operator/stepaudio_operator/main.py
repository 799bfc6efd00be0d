"""The operator's process: settings -> health -> lease -> caches -> kopf -> workers, and down again in order.

A standby waits in `acquire` with its health endpoints up. The leader leaves when it is told to (SIGTERM),
when it loses the lease, or when kopf or one of its own tasks ends; the exit code says which.
"""

import asyncio
import gc
import logging
import os
import signal
import time
from collections.abc import Coroutine, Set
from contextlib import AsyncExitStack
from datetime import UTC, datetime
from typing import Any

import kopf

from stepaudio_operator import handlers, logs
from stepaudio_operator.errors import LeaseLost, SettingsError
from stepaudio_operator.health import HealthServer
from stepaudio_operator.kube.cache import Key
from stepaudio_operator.kube.client import Client, connect
from stepaudio_operator.kube.cluster import Cluster
from stepaudio_operator.kube.lease import Leadership
from stepaudio_operator.metrics import Metrics
from stepaudio_operator.polling import Poller
from stepaudio_operator.queue import WorkQueue
from stepaudio_operator.reconcile.reconciler import Reconciler
from stepaudio_operator.settings import Settings, from_environment
from stepaudio_operator.workers import work

EXIT_OK, EXIT_FAILED, EXIT_LEASE_LOST, EXIT_SETTINGS = 0, 1, 3, 2
GARBAGE = (50_000, 20, 20)
"""New objects that are looked through for cycles at a time, and after how many such looks older ones are. A
page of a list is a hundred thousand dictionaries that go as they came: by Python's own numbers (700, 10, 10)
to look through them takes as long as to decode them.
"""
STUCK_S = 300.0
"""A leader whose lease was not renewed for so long and that still runs is stuck (s)."""

logger = logging.getLogger(__name__)


def main() -> int:
    """Runs the operator until it is told to stop. Returns the exit status."""
    try:
        settings = from_environment(os.environ)
    except SettingsError as error:
        logging.getLogger("stepaudio_operator").error("%s", error)
        return EXIT_SETTINGS
    logs.configure(settings.log)
    gc.freeze()  # what the imports made lives for ever: no need to look at it again
    gc.set_threshold(*GARBAGE)
    return asyncio.run(run(settings))


async def run(settings: Settings) -> int:
    """One life of the operator. Returns the exit status."""
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)

    async with AsyncExitStack() as stack:
        client = await connect()
        stack.push_async_callback(client.close)
        metrics = Metrics()
        client.report_to(metrics.count_call)

        queue: WorkQueue[Key] = WorkQueue(settings.limits, time.monotonic)
        leadership = Leadership(client, settings.lease, time.monotonic, _now)
        cluster = Cluster(
            client,
            lambda key, fresh: queue.add(key, fresh=fresh),
            namespace=settings.namespace,
            instance=settings.lease.identity,
            wall=_now,
            on_trouble=lambda resource, error: metrics.errors.labels(
                f"watch {resource.kind}", type(error).__name__
            ).inc(),
        )
        metrics.follow(
            queue.ready,
            lambda: queue.running,
            lambda: leadership.leader,
            cluster.cache.count,
            cluster.cache.every_pool,
        )
        health = HealthServer(
            settings.health.host,
            settings.health.port,
            metrics,
            alive=lambda: _stuck(leadership),
            ready=lambda: _unready(leadership, cluster),
        )
        await health.start()
        stack.push_async_callback(health.close)

        if not await _until(stop, leadership.acquire()):
            return EXIT_OK
        stack.push_async_callback(leadership.release)
        return await _lead(
            settings,
            stop=stop,
            client=client,
            cluster=cluster,
            queue=queue,
            leadership=leadership,
            metrics=metrics,
        )


async def _lead(
    settings: Settings,
    *,
    stop: asyncio.Event,
    client: Client,
    cluster: Cluster,
    queue: WorkQueue[Key],
    leadership: Leadership,
    metrics: Metrics,
) -> int:
    """Everything that only the leader does, until one of the parts ends."""
    poller = Poller(settings.poll, time.monotonic, queue.add, lambda word: metrics.polls.labels(word).inc())
    reconciler = Reconciler(cluster, poller, settings.images, _now)
    registry = kopf.OperatorRegistry()
    handlers.register(registry, client, cluster)

    async def watch_deployments() -> None:
        if not await _until(stop, cluster.read_written()) or not await _until(stop, cluster.synced()):
            return
        gc.freeze()  # most of what was read will stay as well
        logger.info("caches are filled")
        await kopf.operator(
            registry=registry,
            settings=handlers.operator_settings(),
            identity=settings.lease.identity,  # else kopf asks for a user name, which a bare uid has not
            clusterwide=settings.namespace is None,
            namespaces=[settings.namespace] if settings.namespace else [],
            stop_flag=stop,
        )

    async def start_work() -> None:
        await cluster.told()
        await asyncio.gather(
            *(work(queue, reconciler, metrics, time.monotonic) for _ in range(settings.workers))
        )

    parts = {
        "lease": leadership.keep(),
        "poller": poller.run(),
        **{f"reflector {r.resource.plural}": r.run() for r in cluster.reflectors},
        "workers": start_work(),
        "kopf": watch_deployments(),
    }
    tasks = [asyncio.create_task(part, name=name) for name, part in parts.items()]
    stopped = asyncio.create_task(stop.wait(), name="stop")
    try:
        ended, _ = await asyncio.wait([*tasks, stopped], return_when=asyncio.FIRST_COMPLETED)
        return _verdict(ended, stop)
    finally:
        stop.set()
        for task in (*tasks, stopped):
            if task.get_name() != "kopf":
                task.cancel()  # kopf stops by its flag
        await asyncio.gather(*tasks, stopped, return_exceptions=True)


def _verdict(ended: Set[asyncio.Task[Any]], stop: asyncio.Event) -> int:
    for task in ended:
        error = None if task.cancelled() else task.exception()
        if isinstance(error, LeaseLost):
            logger.error("%s; leaving, so that two never act at once", error)
            return EXIT_LEASE_LOST
        if error is not None:
            logger.error("%s failed", task.get_name(), exc_info=error)
            return EXIT_FAILED
    if stop.is_set() or any(task.get_name() in ("kopf", "stop") for task in ended):
        logger.info("stopping")
        return EXIT_OK
    return EXIT_FAILED


async def _until(stop: asyncio.Event, wanted: Coroutine[None, None, None]) -> bool:
    """Waits for `wanted`; False where the process was told to stop first."""
    tasks = {asyncio.create_task(wanted), asyncio.create_task(stop.wait())}
    await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    for task in tasks:
        task.cancel()
    for result in await asyncio.gather(*tasks, return_exceptions=True):
        if isinstance(result, Exception):
            raise result
    return not stop.is_set()


def _stuck(leadership: Leadership) -> str | None:
    if leadership.leader and leadership.silence_s > STUCK_S:
        return f"the lease was not renewed for {leadership.silence_s:.0f} s"
    return None


def _unready(leadership: Leadership, cluster: Cluster) -> str | None:
    if not leadership.answered.is_set():
        return f"the API server has not answered yet {leadership.trouble}".strip()
    if leadership.leader and (unread := list(cluster.unread())):
        return "; ".join(["not read yet", *unread])
    return None


def _now() -> datetime:
    return datetime.now(UTC)
