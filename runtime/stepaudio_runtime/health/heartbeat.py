"""The engine's heartbeat: whether vLLM takes steps, and how long requests wait for it, read from its metrics.

vLLM's front end answers `/health` while a tensor-parallel worker behind it hangs, and a long prompt takes
many steps before its first token. So a sign of life is that one of the series below has changed: each is
written from what the engine core reports of a step.
"""

import asyncio
from collections.abc import Awaitable, Callable

from stepaudio_runtime.health.state import PodState

STEP_SERIES = (
    b"vllm:iteration_tokens_total_count",
    b"vllm:kv_cache_usage_perc",  # moves with every piece of a long prompt
    b"vllm:prompt_tokens_total",
    b"vllm:generation_tokens_total",
    b"vllm:num_requests_running",
)
QUEUE_SECONDS, QUEUED = b"vllm:request_queue_time_seconds_sum", b"vllm:request_queue_time_seconds_count"
LOOKS = 20  # at the engine in one stall timeout


def step_signs(text: bytes) -> tuple[bytes, ...]:
    """The lines of an exposition text that change with the engine's steps."""
    return tuple(line for line in text.splitlines() if line.startswith(STEP_SERIES))


def queue_times(text: bytes) -> tuple[float, int]:
    """How many seconds requests have waited in all before vLLM began them, and how many requests."""
    waited, requests = 0.0, 0.0
    for line in text.splitlines():
        if line.startswith(QUEUE_SECONDS):
            waited += float(line.rpartition(b" ")[2])
        elif line.startswith(QUEUED):
            requests += float(line.rpartition(b" ")[2])
    return waited, int(requests)


async def follow_steps(state: PodState, read: Callable[[], Awaitable[bytes]], stall_timeout_s: float) -> None:
    """Beats for every step that is seen, and notes how long requests waited; for ever. `read` gives the
    engine's exposition text, or nothing.
    """
    before: tuple[bytes, ...] = ()
    told, busy = (0.0, 0), False
    while True:
        await asyncio.sleep(stall_timeout_s / LOOKS)
        was_busy, busy = busy, state.in_flight > 0
        if not (busy or was_busy):
            continue
        text = await read()
        signs = step_signs(text)
        if signs and before and signs != before:
            state.beat()
        before = signs or before
        seconds, requests = queue_times(text)
        if requests > told[1]:
            state.lately.queued(seconds - told[0], requests - told[1])
            told = seconds, requests
