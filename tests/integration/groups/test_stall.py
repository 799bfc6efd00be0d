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

from stepaudio_runtime.health.state import STALL_SHARE
from tests.integration.pods.conftest import Pod

pytestmark = pytest.mark.vllm

GROUP_START_S = 900  # four processes, each of which imports vLLM
STALL_S = 12
ENDING_S = 12  # for looking and ending, as the default time-out leaves for it
LONG = 1900  # tokens, all that the model has room for


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


def ask(pod, tokens, timeout_s):
    """The status of an answer; None where it was not there in time."""
    body = {
        "model": "step-audio-chat",
        "prompt": [1, 4, 60, 61],
        "max_tokens": tokens,
        "ignore_eos": True,
        "return_token_ids": True,
    }
    with contextlib.suppress(httpx.TransportError):
        return pod.http.post("/v1/completions", json=body, timeout=timeout_s).status_code
    return None


def test_an_answer_that_takes_longer_than_the_time_out_is_waited_for(group):
    begun = time.monotonic()
    while time.monotonic() - begun < STALL_S + 3:  # nothing is said until the end
        assert ask(group, LONG, STALL_S + 3) in (None, 200)
    assert ask(group, 8, 60) == 200, group.tail()


def test_a_group_that_hangs_is_ended_within_the_time_out(group):
    assert group.process.poll() is None, group.tail()
    workers = [p for p in group.descendants() if "Worker" in " ".join([p.name(), *p.cmdline()])]
    assert len(workers) == 2, [p.cmdline() for p in group.descendants()]
    workers[1].suspend()
    begun = time.monotonic()
    asking = threading.Thread(target=ask, args=(group, 8, STALL_S + 60))
    asking.start()
    assert group.process.wait(STALL_S + 60) == 1
    took = time.monotonic() - begun
    asking.join()
    assert took < STALL_SHARE * STALL_S + ENDING_S
    assert group.words.read_text().startswith("EngineStalled: 1 requests in flight and no step of the engine")
