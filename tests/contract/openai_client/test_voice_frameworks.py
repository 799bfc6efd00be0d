"""LiveKit and Pipecat talk, listen and speak through the gateway with their own OpenAI clients."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.contract.openai_client.conftest import GatewayProcess, Stack, StartGateway
from tests.contract.openai_client.frameworks.run import run

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


def test_livekit(gateway: GatewayProcess, recording: Path) -> None:
    got = run("livekit_client.py", f"{gateway.url}/v1", recording, "tts-1", "step-audio-tts")
    seconds = [speech.pop("seconds") for speech in got["speech"].values()]
    assert seconds == pytest.approx([SPEECH_S] * 2, abs=0.15)
    speech = {"tts-1": {"rate": 24000}, "step-audio-tts": {"rate": 24000}}  # bytes, and events
    assert got == {"chat": ANSWER, "speech": speech, "transcript": HEARD}


def test_pipecat(gateway: GatewayProcess, recording: Path) -> None:
    got = run("pipecat_client.py", f"{gateway.url}/v1", recording, "step-audio-tts")
    assert got["speech"]["step-audio-tts"].pop("seconds") == pytest.approx(SPEECH_S, abs=0.15)
    assert got == {"chat": ANSWER, "speech": {"step-audio-tts": {"rate": 24000}}, "transcript": HEARD}
