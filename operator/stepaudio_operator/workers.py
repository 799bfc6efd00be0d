"""The workers between the queue and the reconciler: take a key, reconcile, say how it went.

This is the edge where errors end: an expected one (`ClusterError`) is logged in a line and backed off, any
other is a mistake of ours, logged with its traceback and backed off too; neither ends the process.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable

from stepaudio_operator.errors import ClusterError, Conflict, StillGoing
from stepaudio_operator.kube.cache import Key
from stepaudio_operator.metrics import Metrics
from stepaudio_operator.queue import WorkQueue
from stepaudio_operator.reconcile.core import Outcome

logger = logging.getLogger(__name__)

DEADLINE_S = 120.0
"""A reconcile that takes longer is given up and tried again: something it waits for does not answer (s)."""
GOING_S = 10.0
"""When what is on its way out is looked at again (s), should nobody tell that it is gone."""


async def work(
    queue: WorkQueue[Key],
    reconcile: Callable[[Key], Awaitable[Outcome]],
    metrics: Metrics,
    clock: Callable[[], float],
) -> None:
    """Works for ever; run as many of these as reconciles may run at once."""
    while True:
        key = await queue.get()
        started = clock()
        outcome = "error"
        try:
            async with asyncio.timeout(DEADLINE_S):
                result = await reconcile(key)
        except asyncio.CancelledError:
            queue.fail(key)
            raise
        except StillGoing as error:  # no failure: its end wakes the key, and no backoff may hold that up
            outcome = type(error).__name__
            queue.succeed(key, GOING_S)
            logger.info("%s: %s: %s", key, outcome, error)
        except ClusterError as error:
            outcome = type(error).__name__
            delay = queue.fail(key, error.retry_after_s)
            level = logging.INFO if isinstance(error, Conflict) else logging.WARNING
            logger.log(level, "%s: %s: %s; next try in %.1f s", key, outcome, error, delay)
        except TimeoutError:
            outcome = "TimedOut"
            delay = queue.fail(key)
            logger.warning("%s: not done in %.0f s; next try in %.1f s", key, DEADLINE_S, delay)
        except Exception as error:
            outcome = type(error).__name__
            delay = queue.fail(key)
            logger.exception("%s: unexpected error; next try in %.1f s", key, delay)
        else:
            outcome = "gone" if result.gone else "done"
            if result.gone:
                queue.forget(key)
            else:
                queue.succeed(key, result.requeue_after)
        if outcome not in ("gone", "done"):
            metrics.errors.labels("reconcile", outcome).inc()
        metrics.reconciles.labels(key.kind, outcome).observe(clock() - started)
