"""LiveKit and Pipecat talk, listen and speak through the gateway with their own OpenAI clients."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.contract.openai_client.conftest import GatewayProcess, Stack, StartGateway

FRAMEWORKS = Path(__file__).parent / "frameworks"
ANSWER = "hello to the world"
SPEECH_S = len(ANSWER) * 0.05  # as the tests' TTS pod speaks
HEARD = "heard 41 codes at 440 Hz"


@pytest.fixture
def gateway(stack: Stack, start_gateway: StartGateway) -> GatewayProcess:
    """One that knows OpenAI's name of a model whose speech LiveKit asks for as bytes, not as events."""
    pools = {pod.component: [pod.url] for pod in (stack.tokenizer, stack.chat, stack.tts)}
    return start_gateway(pools, STEPAUDIO_MODEL_ALIASES="tts-1=step-audio-tts")


@pytest.fixture
def recording(tone: Callable[..., bytes], tmp_path: Path) -> Path:
    path = tmp_path / "question.wav"
    path.write_bytes(tone(seconds=1.0, rate=16000, hertz=440))
    return path


def run(client: str, gateway: GatewayProcess, recording: Path) -> dict[str, Any]:
    environment = {name: value for name, value in os.environ.items() if name != "VIRTUAL_ENV"}
    command = [environment.get("UV", "uv"), "run", "--frozen", "--project", str(FRAMEWORKS), "python"]
    done = subprocess.run(
        [*command, str(FRAMEWORKS / client), f"{gateway.url}/v1", str(recording)],
        capture_output=True,
        text=True,
        check=False,
        timeout=180,
        env=environment,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return dict(json.loads(done.stdout.splitlines()[-1]))


def test_livekit(gateway: GatewayProcess, recording: Path) -> None:
    got = run("livekit_client.py", gateway, recording)
    for speech in ("speech", "speech events"):
        assert got[speech].pop("seconds") == pytest.approx(SPEECH_S, abs=0.15)
    assert got == {
        "chat": ANSWER,
        "speech": {"rate": 24000},
        "speech events": {"rate": 24000},
        "transcript": HEARD,
    }


def test_pipecat(gateway: GatewayProcess, recording: Path) -> None:
    got = run("pipecat_client.py", gateway, recording)
    assert got["speech"].pop("seconds") == pytest.approx(SPEECH_S, abs=0.15)
    assert got == {"chat": ANSWER, "speech": {"rate": 24000}, "transcript": HEARD}
