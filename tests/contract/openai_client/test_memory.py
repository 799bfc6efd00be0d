"""What large requests cost the gateway: few times their bytes, and nothing once they are answered.

A pod has 1 GiB. What a request leaves behind until Python next looks for garbage in cycles would add up to
more than that within seconds, so it is not to be left in one.
"""

import base64
import io
from pathlib import Path

import httpx
import numpy as np
import pytest
import soundfile

MODEL = "step-audio-chat"
MIB = 1 << 20


@pytest.mark.parametrize("filler", ["A" * 64, "AA "])
def test_a_body_that_is_no_audio_costs_few_times_its_bytes_however_often_it_comes(
    stack, start_gateway, filler
):
    gateway = start_gateway({"chat": [stack.chat.url]})
    before, size = peak_bytes(gateway), 60 * MIB
    body = conversation(filler * (size // len(filler)))
    costs = []
    for _ in range(6):
        answer = httpx.post(f"{gateway.url}/v1/chat/completions", json=body, timeout=60)
        assert (answer.status_code, answer.json()["error"]["code"]) == (400, "invalid_audio")
        costs.append((peak_bytes(gateway) - before) / size)
    assert max(costs) < 4.5, costs  # 3, and what two threads hold for a moment


def test_recordings_that_were_answered_are_gone(stack, start_gateway):
    pools = {pod.component: [pod.url] for pod in (stack.chat, stack.tokenizer)}
    gateway = start_gateway(pools)
    sound, file = np.random.default_rng(0).normal(0, 0.1, 25 * 192_000), io.BytesIO()
    soundfile.write(file, sound, 192_000, format="WAV")
    body = conversation(base64.b64encode(file.getvalue()).decode())
    peaks = []
    for _ in range(8):
        httpx.post(f"{gateway.url}/v1/chat/completions", json=body, timeout=60)
        peaks.append(peak_bytes(gateway) / MIB)
    assert len(stack.tokenizer.requests) == 8
    assert peaks[-1] - peaks[1] < 20, peaks  # what the tokenizer was sent of six is 110


def conversation(data):
    part = {"type": "input_audio", "input_audio": {"data": data, "format": "wav"}}
    return {"model": MODEL, "messages": [{"role": "user", "content": [part]}]}


def peak_bytes(gateway):
    """The most memory that the gateway ever held."""
    status = Path(f"/proc/{gateway.process.pid}/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0]) * 1024
