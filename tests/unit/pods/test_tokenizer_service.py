"""The tokenizer's route over ASGI: what reaches the models, what is refused, what the canary rules out.

The models are stood in for by a function of the same protocol; the real ones are in the integration tests.
"""

import httpx
import numpy as np
import pytest

from stepaudio_runtime.errors import OutputError
from stepaudio_runtime.health.state import PodState
from stepaudio_runtime.settings import TokenizerSettings
from stepaudio_runtime.tokenizer.service import TokenizerService, tokenizer_app


class Heard:
    """An encoder that notes its arguments and answers with two rounds of codes, or with `codes`."""

    def __init__(self, codes=(1, 2, 1030, 1031, 1032)) -> None:
        self.calls = []
        self.codes = list(codes)

    def __call__(self, wave, rate, *, trim):
        self.calls.append((wave.copy(), rate, trim))
        codes = self.codes if len(wave) > 1 else []
        return {"codes": codes, "linguistic": 2, "semantic": 3, "duration_s": len(wave) / rate}


async def started(encoder: Heard, max_audio_s: float = 1.0) -> tuple[PodState, httpx.AsyncClient]:
    state = PodState("tokenizer")
    service = TokenizerService(state, lambda _state: encoder, TokenizerSettings(max_audio_s))
    await service.start()
    state.become_ready()
    transport = httpx.ASGITransport(tokenizer_app(service), raise_app_exceptions=False)
    return state, httpx.AsyncClient(transport=transport, base_url="http://pod")


async def test_samples_reach_the_models_as_they_were_sent():
    encoder = Heard()
    state, http = await started(encoder)
    wave = np.linspace(-1, 1, 8000, dtype="<f4")
    async with http:
        answer = await http.post("/v1/audio/tokens?rate=8000&trim=1", content=wave.tobytes())
    assert (answer.status_code, answer.json()) == (
        200,
        {"codes": [1, 2, 1030, 1031, 1032], "linguistic": 2, "semantic": 3, "duration_s": 1.0},
    )
    heard, rate, trim = encoder.calls[-1]
    np.testing.assert_array_equal(heard, wave)
    assert (rate, trim, state.in_flight) == (8000, True, 0)


@pytest.mark.parametrize(
    ("query", "body", "param", "code"),
    [
        ("rate=16000", b"", "audio", "audio_empty"),
        ("rate=16000", bytes(7), "audio", "audio_invalid"),
        ("rate=16000", np.array([0, np.nan], dtype="<f4").tobytes(), "audio", "audio_invalid"),
        ("rate=16000", np.array([0, np.inf], dtype="<f4").tobytes(), "audio", "audio_invalid"),
        ("rate=16000", bytes(4 * 16001), "audio", "audio_too_long"),
        ("rate=16000", bytes(4), "audio", "audio_too_short"),
        ("rate=7999", bytes(64), "rate", "rate_invalid"),
        ("rate=192001", bytes(64), "rate", "rate_invalid"),
        ("rate=16k", bytes(64), "rate", "rate_invalid"),
        ("", bytes(64), "rate", "rate_invalid"),
    ],
)
async def test_bad_audio_is_a_400_that_names_the_fault(query, body, param, code):
    _state, http = await started(Heard())
    async with http:
        answer = await http.post(f"/v1/audio/tokens?{query}", content=body)
    error = answer.json()["error"]
    assert (answer.status_code, error["type"], error["param"], error["code"]) == (
        400,
        "invalid_request_error",
        param,
        code,
    )


async def test_exactly_the_longest_audio_is_taken():
    _state, http = await started(Heard())
    async with http:
        answer = await http.post("/v1/audio/tokens?rate=192000", content=bytes(4 * 192_000))
    assert answer.status_code == 200


@pytest.mark.parametrize("codes", [[], [0, 5120], [-1]])
async def test_the_canary_refuses_models_that_give_no_codes(codes):
    service = TokenizerService(PodState("tokenizer"), lambda _state: Heard(codes), TokenizerSettings())
    with pytest.raises(OutputError, match="canary"):
        await service.start()
