"""A TTS pod that holds the tokenizer: one process hears and speaks at once, behind one port and one drain."""

import concurrent.futures
import signal

import numpy as np
import pytest

from stepaudio_runtime.contract import Component
from stepaudio_runtime.health.state import PodState
from stepaudio_runtime.pods.loading import load_tokenizer
from stepaudio_runtime.settings import EngineSettings, PodSettings

pytestmark = pytest.mark.vllm


def sound(seconds: float, rate: int) -> np.ndarray:
    t = np.arange(int(seconds * rate)) / rate
    return (0.3 * np.sin(2 * np.pi * 180 * t) * np.sin(2 * np.pi * 2 * t)).astype("<f4")


def test_it_hears_the_ids_of_the_offline_path_while_it_speaks(models, new_pod):
    both = new_pod("tts", models, STEPAUDIO_WITH_TOKENIZER="on").wait_ready()
    settings = PodSettings(Component.TOKENIZER, models)
    offline = load_tokenizer(settings, EngineSettings(), PodState("tokenizer"))
    wave = sound(1.5, 16_000)
    with concurrent.futures.ThreadPoolExecutor(1) as caller:
        speech = caller.submit(both.http.post, "/v1/speech", json={"input": "one two three", "seed": 1})
        heard = both.http.post("/v1/audio/tokens?rate=16000", content=wave.tobytes())
        assert heard.status_code == 200
        assert heard.json()["codes"] == offline.encode(wave, 16_000).codes
        spoken = speech.result()
    assert spoken.status_code == 200
    assert len(spoken.content) > 1000
    assert both.status()["component"] == "tts"
    counted = both.http.get("/metrics").text
    for route in ("/v1/speech", "/v1/audio/tokens"):
        assert f'stepaudio_requests_total{{route="{route}",status="200"}} 1.0' in counted
    assert counted.count("# TYPE stepaudio_in_flight ") == 1

    both.process.send_signal(signal.SIGTERM)
    assert both.process.wait(60) == 0
