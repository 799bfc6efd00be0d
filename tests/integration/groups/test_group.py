"""A chat model that two pods share: they become ready together, answer, and drain together.

Both are real pods with vLLM's own processes on two "nodes" of one machine, with one CPU process of the model
each, which find each other over TCP as on two machines.
"""

import contextlib
import socket
import threading
import time

import pytest

from tests.integration.groups.test_stall import ask
from tests.integration.pods.conftest import Pod

pytestmark = pytest.mark.vllm

START_S = 900


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return int(probe.getsockname()[1])


class Pair:
    """A leader and a follower, started at the same time."""

    def __init__(self, models, folder) -> None:
        common = {
            "STEPAUDIO_TENSOR_PARALLEL": "2",
            "STEPAUDIO_NODES": "2",
            "STEPAUDIO_GROUP_PORT": str(free_port()),
            "VLLM_HOST_IP": "127.0.0.1",
        }
        leads = {"STEPAUDIO_LEADER_ADDRESS": "127.0.0.1"}
        self.leader = Pod("chat", models, folder / "leader", common | leads)
        follows = {"STEPAUDIO_NODE_RANK": "1", "STEPAUDIO_LEADER_ADDRESS": f"127.0.0.1:{self.leader.port}"}
        self.follower = Pod("chat", models, folder / "follower", common | follows)
        self.pods = (self.leader, self.follower)

    def wait_ready(self) -> "Pair":
        for pod in self.pods:
            pod.wait_until("readiness", lambda pod=pod: pod.http.get("/readyz").status_code == 200, START_S)
        return self

    def end(self) -> None:
        for pod in self.pods:
            pod.process.kill()
            pod.process.wait()
        for pod in self.pods:
            pod.end()


@pytest.fixture
def pair(models, tmp_path):
    pair = Pair(models, tmp_path).wait_ready()
    yield pair
    pair.end()


def test_a_request_is_computed_by_both_and_ends_before_either_leaves(pair):
    assert ask(pair.leader, 8, 60) == 200, pair.leader.tail()
    assert pair.follower.http.post("/v1/completions", json={}).status_code == 404
    answers = []
    asking = threading.Thread(target=lambda: answers.append(ask(pair.leader, 200, 300)))
    asking.start()
    with contextlib.suppress(AssertionError):
        pair.leader.wait_until("a request", lambda: pair.leader.status()["inFlight"] == 1, 30)
    pair.follower.process.terminate()  # both hear of it at the same time, or the follower first
    time.sleep(1)
    pair.leader.process.terminate()
    asking.join()
    assert answers == [200], pair.leader.tail()
    assert [pod.process.wait(60) for pod in pair.pods] == [0, 0], pair.follower.tail()
