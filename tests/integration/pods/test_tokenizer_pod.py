"""The tokenizer pod on nano models: the codes of the offline path at every rate, streamed too; refusals."""

import asyncio
import json

import numpy as np
import pytest
from websockets.asyncio.client import connect

from stepaudio_runtime.contract import Component
from stepaudio_runtime.health.state import PodState
from stepaudio_runtime.pods.loading import load_tokenizer
from stepaudio_runtime.settings import EngineSettings, PodSettings
from stepaudio_runtime.tokenizer.dual import preprocess
from stepaudio_runtime.tokenizer.windows import Windows, windowed

pytestmark = pytest.mark.vllm


@pytest.fixture(scope="module")
def tokenizer(models):
    settings = PodSettings(Component.TOKENIZER, models)
    return load_tokenizer(settings, EngineSettings(), PodState("tokenizer"))


def sound(seconds: float, rate: int) -> np.ndarray:
    t = np.arange(int(seconds * rate)) / rate
    return (0.3 * np.sin(2 * np.pi * 180 * t) * np.sin(2 * np.pi * 2 * t)).astype("<f4")


@pytest.mark.parametrize(
    ("seconds", "rate", "trim"), [(1.0, 16_000, 0), (2.5, 24_000, 1), (0.5, 8_000, 0), (0.7, 192_000, 0)]
)
def test_codes_are_those_of_the_offline_path(pods, tokenizer, seconds, rate, trim):
    wave = sound(seconds, rate)
    answer = pods["tokenizer"].http.post(f"/v1/audio/tokens?rate={rate}&trim={trim}", content=wave.tobytes())
    assert answer.status_code == 200
    expected = tokenizer.encode(wave, rate, trim_silence=bool(trim))
    assert expected.codes
    assert answer.json() == {
        "codes": expected.codes,
        "linguistic": len(expected.linguistic),
        "semantic": len(expected.semantic),
        "duration_s": pytest.approx(seconds),
    }


async def test_three_streams_at_once_give_the_ids_of_the_offline_path(pods, tokenizer):
    url = pods["tokenizer"].url.replace("http", "ws") + "/v1/audio/tokens/stream"

    async def stream(wave, rate):
        async with connect(url) as socket:
            await socket.send(json.dumps({"type": "start", "rate": rate, "format": "float32", "gain": 2}))
            for frame in np.array_split(wave, 23):
                await socket.send(frame.tobytes())
                await asyncio.sleep(0.01)
            await socket.send('{"type": "end"}')
            said = [json.loads(message) async for message in socket]
        assert (socket.close_code, said[0]["type"], said[-1]["type"]) == (1000, "started", "done")
        tokens = [event for event in said if event["type"] == "tokens"]
        assert tokens
        return [[id_ for event in tokens for id_ in event[book]] for book in ("linguistic", "semantic")]

    cases = [(sound(3.1, 16_000), 16_000), (sound(2.0, 48_000), 48_000), (sound(2.5, 8_000), 8_000)]
    found = await asyncio.gather(*(stream(wave, rate) for wave, rate in cases))
    for (wave, rate), (linguistic, semantic) in zip(cases, found, strict=True):
        heard = preprocess(wave, rate, gain=2)
        assert linguistic == tokenizer.encode(wave, rate, gain=2).linguistic.ids.tolist()
        pieces = windowed(heard, Windows.seconds(1.92, 0.96))
        parts = tokenizer.semantic.batch([piece.wave for piece in pieces])
        alone = [ids.ids[piece.skip :].tolist() for ids, piece in zip(parts, pieces, strict=True)]
        assert semantic == [id_ for part in alone for id_ in part]


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
