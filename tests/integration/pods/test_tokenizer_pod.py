"""The tokenizer pod on nano models: the codes of the offline path, at every rate, and clear refusals."""

import numpy as np
import pytest

from stepaudio_runtime.contract import Component
from stepaudio_runtime.health.state import PodState
from stepaudio_runtime.pods.loading import load_encoder
from stepaudio_runtime.settings import EngineSettings, PodSettings

pytestmark = pytest.mark.vllm


@pytest.fixture(scope="module")
def encode(models):
    settings = PodSettings(Component.TOKENIZER, models)
    return load_encoder(settings, EngineSettings(), PodState("tokenizer"))


def sound(seconds: float, rate: int) -> np.ndarray:
    t = np.arange(int(seconds * rate)) / rate
    return (0.3 * np.sin(2 * np.pi * 180 * t) * np.sin(2 * np.pi * 2 * t)).astype("<f4")


@pytest.mark.parametrize(
    ("seconds", "rate", "trim"), [(1.0, 16_000, 0), (2.5, 24_000, 1), (0.5, 8_000, 0), (0.7, 192_000, 0)]
)
def test_codes_are_those_of_the_offline_path(pods, encode, seconds, rate, trim):
    wave = sound(seconds, rate)
    answer = pods["tokenizer"].http.post(f"/v1/audio/tokens?rate={rate}&trim={trim}", content=wave.tobytes())
    assert answer.status_code == 200
    tokens = answer.json()
    assert tokens == encode(wave, rate, trim=bool(trim))
    assert tokens["duration_s"] == pytest.approx(seconds)
    assert tokens["codes"]


def test_too_short_and_too_long_are_400s(pods):
    http = pods["tokenizer"].http
    answers = [http.post("/v1/audio/tokens?rate=16000", content=bytes(4 * n)) for n in (100, 16_000 * 30 + 1)]
    assert [(a.status_code, a.json()["error"]["code"]) for a in answers] == [
        (400, "audio_too_short"),
        (400, "audio_too_long"),
    ]


def test_status_tells_what_was_loaded(pods):
    status = pods["tokenizer"].status()
    assert (status["component"], status["phase"], status["ready"]) == ("tokenizer", "Ready", True)
    assert status["load"]["bytesLoaded"] == status["load"]["bytesTotal"] > 0
