"""A pod's process from start to end, as a real child process: drain on SIGTERM, exit statuses, last words.

The pod is a small service on the real `run_pod`; its one route streams until told to stop.
"""

import contextlib
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import httpx
import pytest

POD = """
import asyncio, sys
from pathlib import Path
from starlette.applications import Starlette
from starlette.responses import StreamingResponse
from starlette.routing import Route
from stepaudio_runtime.errors import ModelFileError, StepAudioError
from stepaudio_runtime.health.metrics import PodMetrics
from stepaudio_runtime.health.process import Listen, exit_process, run_pod
from stepaudio_runtime.health.routes import Admission, health_routes
from stepaudio_runtime.health.state import PodState

mode, port, words, finish = sys.argv[1], int(sys.argv[2]), Path(sys.argv[3]), Path(sys.argv[4])

class Service:
    def __init__(self):
        self.failed = asyncio.get_running_loop().create_future()
    async def start(self):
        if mode == "bad-model":
            raise ModelFileError("ModelFileTruncated", file="flow.pt", what="12 of 40 bytes", cure="fetch it")
        if mode == "bug":
            raise ZeroDivisionError("a\\nbug")
        if mode in ("loading", "load-hangs"):
            await asyncio.sleep(600)
        if mode == "fails-later":
            asyncio.get_running_loop().call_later(0.2, self.failed.set_result, StepAudioError("engine died"))
    async def stop(self):
        if mode == "hangs":
            await asyncio.sleep(600)
        print("stopped", flush=True)

async def main():
    state = PodState("tts", stall_timeout_s=2 if mode == "hangs" else 120)
    metrics = PodMetrics(state)
    async def work(request):
        if mode == "hangs":
            await asyncio.sleep(600)
        async def chunks():
            while not finish.exists():
                yield b"x"
                await asyncio.sleep(0.02)
            yield b"end"
        return StreamingResponse(chunks())
    app = Starlette(routes=[*health_routes(state, metrics), Route("/work", work, methods=["POST"])])
    app = Admission(app, state, metrics, frozenset())
    drain = 0.3 if mode == "short-drain" else 60
    listen = Listen("127.0.0.1", port, drain, words, 1 if mode == "load-hangs" else 600)
    return await run_pod(app, state, Service(), listen)

exit_process(asyncio.run(main()))
"""


class Pod:
    """The child process above."""

    def __init__(self, mode: str, folder: Path) -> None:
        with socket.create_server(("127.0.0.1", 0)) as probe:
            self.port = probe.getsockname()[1]
        self.words = folder / "termination-log"
        self.finish = folder / "finish"
        arguments = [mode, str(self.port), str(self.words), str(self.finish)]
        self.process = subprocess.Popen(
            [sys.executable, "-c", POD, *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        self.http = httpx.Client(base_url=f"http://127.0.0.1:{self.port}", timeout=30)

    def wait_for(self, path: str, status: int) -> httpx.Response:
        deadline = time.monotonic() + 30
        while True:
            with contextlib.suppress(httpx.TransportError):
                answer = self.http.get(path)
                if answer.status_code == status:
                    return answer
            assert time.monotonic() < deadline, f"no {status} from {path}"
            time.sleep(0.02)

    def stream(self) -> tuple[threading.Thread, list[bytes]]:
        """Start a request in a thread; returns once its first byte is there."""
        received: list[bytes] = []
        begun = threading.Event()

        def read() -> None:
            with (
                contextlib.suppress(httpx.TransportError),
                httpx.stream("POST", self.url, timeout=30) as answer,
            ):
                for chunk in answer.iter_bytes():
                    received.append(chunk)
                    begun.set()

        thread = threading.Thread(target=read)
        thread.start()
        assert begun.wait(30)
        return thread, received

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/work"

    def end(self) -> tuple[int, str, str]:
        out, err = self.process.communicate(timeout=30)
        return self.process.returncode, out, err


@pytest.fixture
def start(tmp_path):
    pods = []

    def start_pod(mode: str) -> Pod:
        pods.append(Pod(mode, tmp_path))
        return pods[-1]

    yield start_pod
    for pod in pods:
        pod.http.close()
        if pod.process.poll() is None:
            pod.process.kill()
            pod.process.communicate()


def test_sigterm_lets_a_stream_finish_and_refuses_new_work(start):
    pod = start("ready")
    pod.wait_for("/readyz", 200)
    thread, received = pod.stream()
    pod.process.send_signal(signal.SIGTERM)
    assert pod.wait_for("/readyz", 503).json()["reason"] == "Draining"
    refusal = pod.http.post("/work")
    assert (refusal.status_code, "retry-after" in refusal.headers) == (503, True)
    assert pod.process.poll() is None
    pod.finish.touch()
    thread.join(30)
    assert b"".join(received).endswith(b"end")
    assert pod.end()[:2] == (0, "stopped\n")


def test_the_drain_timeout_ends_a_stream_that_does_not(start):
    pod = start("short-drain")
    pod.wait_for("/readyz", 200)
    thread, received = pod.stream()
    pod.process.send_signal(signal.SIGTERM)
    assert pod.end()[:2] == (0, "stopped\n")
    thread.join(30)
    assert not b"".join(received).endswith(b"end")


def test_sigterm_while_loading_ends_at_once(start):
    pod = start("loading")
    pod.wait_for("/status", 200)
    pod.process.send_signal(signal.SIGTERM)
    assert pod.end()[:2] == (0, "stopped\n")


@pytest.mark.parametrize(
    ("mode", "status", "line"),
    [
        ("bad-model", 78, "ModelFileTruncated: 12 of 40 bytes (flow.pt); fetch it"),
        ("bug", 1, "InternalError: a bug"),
        ("fails-later", 1, "InternalError: engine died"),
    ],
)
def test_a_failure_leaves_one_line_and_its_exit_status(start, mode, status, line):
    pod = start(mode)
    code, out, err = pod.end()
    assert (code, out, pod.words.read_text()) == (status, "stopped\n", line + "\n")
    assert line in err.splitlines()


def test_a_request_that_hangs_ends_the_pod(start):
    pod = start("hangs")
    pod.wait_for("/readyz", 200)
    with contextlib.suppress(httpx.TransportError):
        assert pod.http.post("/work").status_code == 500
    assert pod.end()[:2] == (1, ""), "what hangs is not waited for"
    assert pod.words.read_text() == (
        "EngineStalled: 1 requests in flight and no step of the engine within the stall timeout of 2 s;"
        " the pod is started anew\n"
    )


def test_a_load_that_stands_still_ends_the_pod(start):
    pod = start("load-hangs")
    assert pod.end()[0] == 1
    assert pod.words.read_text() == (
        "LoadStalled: nothing was read or reported for 1 s while starting (0 of 0 bytes);"
        " the pod is started anew\n"
    )


def test_a_tethered_process_dies_with_its_parent(tmp_path):
    """A parent that is killed outright takes its tethered child along."""
    script = (
        "import subprocess, sys, os, time\n"
        "sleep = [sys.executable, '-c', 'import time; print(1, flush=True); time.sleep(600)']\n"
        "tether = [sys.executable, '-m', 'stepaudio_runtime.health.tether', str(os.getpid())]\n"
        "child = subprocess.Popen(tether + sleep, stdout=subprocess.PIPE)\n"
        "child.stdout.readline()\n"
        "print(child.pid, flush=True)\n"
        "time.sleep(600)\n"
    )
    parent = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True)
    child = int(parent.stdout.readline())
    os.kill(child, 0)
    parent.kill()
    parent.communicate()
    _wait_gone(child)


@pytest.mark.parametrize("when", ["while it runs", "while it imports"])
def test_a_multiprocessing_child_that_follows_dies_with_its_parent(tmp_path, when):
    """The same for processes that Python's multiprocessing spawned, by a call in the main module."""
    module = tmp_path / "follower.py"
    module.write_text(
        "import multiprocessing, os, time\n"
        "from stepaudio_runtime.health.tether import follow_parent\n"
        "follow_parent()\n"
        "def child():\n"
        "    print(os.getpid(), flush=True)\n"
        "    time.sleep(600)\n"
        "if __name__ == '__main__':\n"
        "    multiprocessing.get_context('spawn').Process(target=child).start()\n"
        "    time.sleep(600)\n"
        f"elif {when == 'while it imports'}:\n"
        "    child()\n"
    )
    parent = subprocess.Popen([sys.executable, str(module)], stdout=subprocess.PIPE, text=True)
    child = int(parent.stdout.readline())
    parent.kill()
    parent.wait()
    parent.stdout.close()
    _wait_gone(child)


def _wait_gone(pid: int) -> None:
    deadline = time.monotonic() + 30
    while _alive(pid):
        assert time.monotonic() < deadline, f"process {pid} outlived its parent"
        time.sleep(0.02)


def _alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False
