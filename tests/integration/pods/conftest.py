"""The pods as real processes on loopback, on one nano folder: started once a session, again if ended."""

import contextlib
import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import psutil
import pytest

START_S = 240  # two engines on two busy cores
DRAIN_S = 60


class Pod:
    """One `stepaudio serve COMPONENT` on the models in `models`; its log and last words are in `folder`."""

    def __init__(self, component: str, models: Path, folder: Path, env: dict[str, str] | None = None) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        with socket.create_server(("127.0.0.1", 0)) as probe:
            self.port = probe.getsockname()[1]
        self.component = component
        self.url = f"http://127.0.0.1:{self.port}"
        self.words = folder / "termination-log"
        self.log = folder / "log"
        self.http = httpx.Client(base_url=self.url, timeout=120)
        # Engines leave their sockets when they are killed, and a socket's path may not be long.
        self._sockets = tempfile.TemporaryDirectory(prefix="stepaudio-")
        variables = {
            "STEPAUDIO_TERMINATION_LOG": str(self.words),
            "STEPAUDIO_RUN_DIR": str(folder / "run"),
            "STEPAUDIO_DRAIN_TIMEOUT_S": str(DRAIN_S),
            "STEPAUDIO_KV_CACHE_GIB": "0.25",
            "STEPAUDIO_MAX_MODEL_LEN": "2048",
            "STEPAUDIO_THREADS": "1",
            "HOME": str(folder),
            "CXX": "/no/compiler",  # nor has the image one
            "VLLM_RPC_BASE_PATH": self._sockets.name,
            **(env or {}),
        }
        with self.log.open("wb") as log:
            command = [sys.executable, "-m", "stepaudio_runtime.cli", "serve", component]
            arguments = ["--host", "127.0.0.1", "--port", str(self.port), "--models", str(models)]
            self.process = subprocess.Popen(
                [*command, *arguments], env={**os.environ, **variables}, stdout=log, stderr=subprocess.STDOUT
            )

    def status(self) -> dict:
        return self.http.get("/status").json()

    def wait_until(self, what: str, holds: Callable[[], bool], timeout_s: float = START_S) -> None:
        deadline = time.monotonic() + timeout_s
        while True:
            with contextlib.suppress(httpx.TransportError):
                if holds():
                    return
            assert self.process.poll() is None, f"{self.component} ended:\n{self.tail()}"
            assert time.monotonic() < deadline, f"{self.component}: no {what}:\n{self.tail()}"
            time.sleep(0.05)

    def wait_ready(self) -> "Pod":
        self.wait_until("readiness", lambda: self.http.get("/readyz").status_code == 200)
        return self

    def tail(self) -> str:
        return self.log.read_text(errors="replace")[-3000:]

    def descendants(self) -> list[psutil.Process]:
        return psutil.Process(self.process.pid).children(recursive=True)

    def metric(self, name: str) -> float:
        lines = self.http.get("/metrics").text.splitlines()
        return sum(
            float(line.rsplit(" ", 1)[1]) for line in lines if line.startswith((f"{name}{{", f"{name} "))
        )

    def end(self) -> None:
        self.http.close()
        if self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(DRAIN_S)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
        self._sockets.cleanup()


class Pods:
    """The session's pods by component."""

    def __init__(self, models: Path, folder: Path) -> None:
        self.models = models
        self.store = folder / "voices"
        self._folder = folder
        self._pods: dict[str, Pod] = {}
        self._started: list[Pod] = []

    def start(self, component: str, **env: str) -> Pod:
        """Start one in the place of the component's last, without waiting for it. Voices can be created."""
        if component in ("tts", "gateway"):
            env = {"STEPAUDIO_VOICES_URL": f"file://{self.store}", **env}
        pod = Pod(component, self.models, self._folder / f"{component}-{len(self._started)}", env)
        self._started.append(pod)
        self._pods[component] = pod
        return pod

    def __getitem__(self, component: str) -> Pod:
        """The ready pod of `component`; a new one if a test has ended the last."""
        pod = self._pods.get(component)
        if pod is None or pod.process.poll() is not None:
            pod = self.start(component)
        return pod.wait_ready()

    def end(self) -> None:
        for pod in self._started:
            pod.end()


@pytest.fixture(scope="session")
def pods(models, tmp_path_factory) -> Iterator[Pods]:
    """All three pools' pods, loading at the same time."""
    pods = Pods(models, tmp_path_factory.mktemp("pods"))
    for component in ("chat", "tts", "tokenizer"):
        pods.start(component)
    yield pods
    pods.end()


@pytest.fixture
def new_pod(tmp_path) -> Iterator[Callable[..., Pod]]:
    """Starts a pod of a component on a model folder, for one test."""
    started: list[Pod] = []

    def start(component: str, models: Path, **env: str) -> Pod:
        started.append(Pod(component, models, tmp_path / f"{component}-{len(started)}", env))
        return started[-1]

    yield start
    for pod in started:
        pod.end()
