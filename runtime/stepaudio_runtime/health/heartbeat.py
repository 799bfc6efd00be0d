"""The engine's heartbeat: whether vLLM takes steps, read from its own metrics.

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
LOOKS = 20  # at the engine in one stall timeout


def step_signs(text: bytes) -> tuple[bytes, ...]:
    """The lines of an exposition text that change with the engine's steps."""
    return tuple(line for line in text.splitlines() if line.startswith(STEP_SERIES))


async def follow_steps(state: PodState, read: Callable[[], Awaitable[bytes]], stall_timeout_s: float) -> None:
    """Beats for every step that is seen; for ever. `read` gives the engine's exposition text, or nothing."""
    before: tuple[bytes, ...] = ()
    while True:
        await asyncio.sleep(stall_timeout_s / LOOKS)
        if not state.in_flight:
            continue
        signs = step_signs(await read())
        if signs and before and signs != before:
            state.beat()
        before = signs or before
