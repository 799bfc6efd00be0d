"""A tensor-parallel group of which one worker hangs is ended within the stall time-out; long work is not.

The group is real: a chat pod on two CPU processes; the worker is stopped by SIGSTOP, so that vLLM's own front
end goes on answering as if nothing were wrong.
"""

import contextlib
import threading
import time

import httpx
import psutil
import pytest

from tests.integration.pods.conftest import Pod

pytestmark = pytest.mark.vllm

GROUP_START_S = 900  # four processes, each of which imports vLLM
STALL_S = 30
LONG = 1900  # tokens; several answers at once take longer than the time-out


@pytest.fixture(scope="module")
def group(models, tmp_path_factory):
    env = {"STEPAUDIO_TENSOR_PARALLEL": "2", "STEPAUDIO_STALL_TIMEOUT_S": str(STALL_S)}
    pod = Pod("chat", models, tmp_path_factory.mktemp("group"), env)
    pod.wait_until("readiness", lambda: pod.http.get("/readyz").status_code == 200, GROUP_START_S)
    below = pod.descendants()
    yield pod
    pod.end()
    for process in below:  # a stopped process hears nothing but this
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()


def ask(pod, tokens, answers):
    body = {
        "model": "step-audio-chat",
        "prompt": [1, 4, 60, 61],
        "max_tokens": tokens,
        "ignore_eos": True,
        "return_token_ids": True,
    }
    with contextlib.suppress(httpx.TransportError):
        answers.append(pod.http.post("/v1/completions", json=body).status_code)


def test_answers_that_take_longer_than_the_time_out_are_waited_for(group):
    answers, begun, rounds = [], time.monotonic(), 0
    while time.monotonic() - begun < STALL_S + 3:  # always something in flight, nothing said until the end
        threads = [threading.Thread(target=ask, args=(group, LONG, answers)) for _ in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        rounds += 1
    assert answers == [200] * (6 * rounds)
    assert group.process.poll() is None


def test_a_group_that_hangs_is_ended_within_the_time_out(group):
    workers = [p for p in group.descendants() if "Worker" in " ".join([p.name(), *p.cmdline()])]
    assert len(workers) == 2, [p.cmdline() for p in group.descendants()]
    workers[1].suspend()
    begun = time.monotonic()
    asking = threading.Thread(target=ask, args=(group, 8, []))
    asking.start()
    assert group.process.wait(STALL_S + 60) == 1
    took = time.monotonic() - begun
    asking.join()
    assert took < STALL_S
    assert group.words.read_text().startswith("EngineStalled: 1 requests in flight and no step of the engine")
