"""Steps of the engine are read from vLLM's own series: a long prompt beats, a hanging engine does not."""

import asyncio
from contextlib import ExitStack

from stepaudio_runtime.health.heartbeat import LOOKS, follow_steps, queue_times, step_signs
from stepaudio_runtime.health.state import PodState

TEXT = b"""# HELP vllm:kv_cache_usage_perc KV-cache usage.
vllm:kv_cache_usage_perc{engine="0"} %s
vllm:request_success_total{finished_reason="abort"} %s
vllm:iteration_tokens_total_count{engine="0"} 7
http_requests_total 9
"""


def test_only_what_the_engine_core_reports_is_a_sign():
    assert step_signs(TEXT % (b"0.5", b"1")) == (
        b'vllm:kv_cache_usage_perc{engine="0"} 0.5',
        b'vllm:iteration_tokens_total_count{engine="0"} 7',
    )


async def beats(texts: list[bytes]) -> int:
    """How often a pod with one request beats over `texts`, one a look."""
    state, count = PodState("chat"), 0
    state.become_ready()

    async def read() -> bytes:
        if not texts:
            raise EOFError
        return texts.pop(0)

    with state.admit():
        before = state.beat

        def beat() -> None:
            nonlocal count
            count += 1
            before()

        state.beat = beat
        try:
            await asyncio.wait_for(follow_steps(state, read, 0.001 * LOOKS), 30)
        except EOFError:
            return count
    raise AssertionError


async def test_a_long_prompt_beats_with_every_piece_of_it():
    assert await beats([TEXT % (usage, b"0") for usage in (b"0.1", b"0.2", b"0.3", b"0.3")]) == 2


async def test_new_and_leaving_clients_are_no_steps():
    assert await beats([TEXT % (b"0.1", aborts) for aborts in (b"1", b"2", b"3")]) == 0


async def test_how_long_requests_waited_is_noted_once_also_of_the_last_ones() -> None:
    series = b"""vllm:request_queue_time_seconds_bucket{engine="0",le="0.3"} 1.0
vllm:request_queue_time_seconds_sum{engine="0"} %s
vllm:request_queue_time_seconds_count{engine="0"} %s
"""
    texts = [series % pair for pair in ((b"1.5", b"3"), (b"1.5", b"3"), (b"3.5", b"4"))]
    state = PodState("chat")
    state.become_ready()
    admitted = ExitStack()
    admitted.enter_context(state.admit())

    async def read() -> bytes:
        if len(texts) == 1:
            admitted.close()  # the request is over before vLLM says how long it waited
        return texts.pop(0)

    following = asyncio.create_task(follow_steps(state, read, 0.001 * LOOKS))
    async with asyncio.timeout(30):
        while texts:  # noqa: ASYNC110 - the change comes from the code under test
            await asyncio.sleep(0.001)
    following.cancel()
    assert queue_times(series % (b"3.5", b"4")) == (3.5, 4)
    assert state.lately.status()["queueSeconds"] == 3.5 / 4


async def test_an_engine_that_does_not_answer_does_not_beat_when_it_answers_as_before():
    assert await beats([TEXT % (b"0.1", b"0"), b"", TEXT % (b"0.1", b"0")]) == 0
