"""Small real pods on loopback (`small_pods.py`), a real gateway process in front of them, and the OpenAI SDK
as its client.
"""

from __future__ import annotations

import io
import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import openai
import pytest

from tests.contract.openai_client.small_pods import Pod, chat_pod, small_vocabulary, tokenizer_pod, tts_pod


@pytest.fixture(scope="session")
def tokenizer_model() -> bytes:
    """The small chat pod's vocabulary."""
    return small_vocabulary()


@dataclass
class GatewayProcess:
    """A gateway in a process of its own."""

    url: str
    process: subprocess.Popen[bytes]
    log: Path
    routing: Path

    def client(self, **options: Any) -> openai.OpenAI:
        options = {"api_key": "none", "max_retries": 0, "timeout": 60} | options
        return openai.OpenAI(base_url=f"{self.url}/v1", **options)

    def status(self) -> dict[str, Any]:
        return dict(httpx.get(f"{self.url}/status").json())


StartGateway = Callable[..., GatewayProcess]


def launch(folder: Path, pools: dict[str, list[Any]], **env: str) -> GatewayProcess:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    routing, log = folder / "routing.json", folder / "gateway.log"
    routing.write_text(json.dumps({"generation": 3, "pools": pools}))
    settings = {
        "STEPAUDIO_STATIC_ROUTING": str(routing),
        "STEPAUDIO_HOST": "127.0.0.1",
        "STEPAUDIO_PORT": str(port),
        "STEPAUDIO_REVISION": "1f0c22aa",
    }
    with log.open("wb") as out:
        process = subprocess.Popen(
            [sys.executable, "-m", "stepaudio_runtime.cli", "serve", "gateway"],
            env={**os.environ, "OMP_NUM_THREADS": "1", **settings, **env},
            stderr=out,
            stdout=out,
        )
    gateway = GatewayProcess(f"http://127.0.0.1:{port}", process, log, routing)
    deadline = time.monotonic() + 60
    while True:
        try:
            if httpx.get(f"{gateway.url}/readyz").status_code == 200:
                return gateway
        except httpx.TransportError:
            pass
        if process.poll() is not None or time.monotonic() > deadline:
            process.kill()
            raise AssertionError(f"the gateway did not start: {log.read_text()}")
        time.sleep(0.05)


@pytest.fixture
def start_gateway(tmp_path: Path) -> Iterator[StartGateway]:
    """Starts gateways of its own for one test: `start_gateway(pools, **env)`."""
    started: list[GatewayProcess] = []

    def begin(pools: dict[str, list[Any]], **env: str) -> GatewayProcess:
        folder = tmp_path / f"gateway-{len(started)}"
        folder.mkdir()
        started.append(launch(folder, pools, **env))
        return started[-1]

    yield begin
    for gateway in started:
        gateway.process.kill()
        gateway.process.wait()


@dataclass
class Stack:
    """One of each pod behind one gateway."""

    gateway: GatewayProcess
    tokenizer: Pod
    chat: Pod
    tts: Pod

    @property
    def client(self) -> openai.OpenAI:
        return self.gateway.client()


@pytest.fixture(scope="session")
def shared_stack(tokenizer_model: bytes, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    tokenizer, chat, tts = tokenizer_pod(), chat_pod(tokenizer_model), tts_pod()
    pools: dict[str, list[Any]] = {pod.component: [pod.url] for pod in (tokenizer, chat, tts)}
    gateway = launch(tmp_path_factory.mktemp("gateway"), pools, STEPAUDIO_MAX_AUDIO_S="5")
    yield Stack(gateway, tokenizer, chat, tts)
    gateway.process.kill()
    gateway.process.wait()
    # Whatever the tests sent and broke off, none of it was unforeseen.
    assert "Traceback" not in gateway.log.read_text()


@pytest.fixture
def stack(shared_stack: Stack) -> Stack:
    """The shared stack, its records emptied."""
    for pod in (shared_stack.tokenizer, shared_stack.chat, shared_stack.tts):
        pod.requests.clear()
        pod.aborted.clear()
        pod.created.clear()
        pod.refuse = None
        pod.hold.set()
    return shared_stack


@pytest.fixture(scope="session")
def new_chat_pod(tokenizer_model: bytes) -> Callable[..., Pod]:
    """Starts another chat pod."""
    return lambda **options: chat_pod(tokenizer_model, **options)


@pytest.fixture(scope="session")
def new_tts_pod() -> Callable[[], Pod]:
    """Starts another TTS pod."""
    return tts_pod


@pytest.fixture(scope="session")
def tone() -> Callable[..., bytes]:
    """`tone(seconds, rate, hertz, channels, format)` as the bytes of a file."""
    import soundfile

    def make(
        seconds: float = 0.6, rate: int = 16000, hertz: float = 440, channels: int = 1, kind: str = "WAV"
    ) -> bytes:
        wave = 0.5 * np.sin(2 * np.pi * hertz * np.arange(round(seconds * rate)) / rate)
        out = io.BytesIO()
        soundfile.write(out, np.stack([wave] * channels, axis=1), rate, format=kind)
        return out.getvalue()

    return make


def until(condition: Callable[[], bool], seconds: float = 20) -> None:
    """Wait for `condition`, failing after `seconds`."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.02)


@pytest.fixture(scope="session")
def eventually() -> Callable[..., None]:
    """`eventually(condition)` waits until it holds."""
    return until
