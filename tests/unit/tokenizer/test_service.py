"""The tokenizer pod on small random models: its route, and its streams over a real server and sockets."""

import asyncio
import json
import socket
import tempfile
import threading
import time
from contextlib import asynccontextmanager
from pathlib import Path

import httpx
import numpy as np
import pytest
import uvicorn
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

from stepaudio_runtime.errors import OutputError
from stepaudio_runtime.health.canary import CanaryPlan, Record
from stepaudio_runtime.health.state import PodState
from stepaudio_runtime.settings import TokenizerSettings
from stepaudio_runtime.tokenizer.dual import DualTokenizer, preprocess
from stepaudio_runtime.tokenizer.service import TokenizerService, tokenizer_app
from stepaudio_runtime.tokenizer.windows import Windows, windowed


def noise(samples, seed=0):
    return np.random.default_rng(seed).normal(0, 0.1, samples).astype("<f4")


def canary():
    return CanaryPlan(Record(Path(tempfile.mkdtemp()) / "canary.json"), interval_s=60, timeout_s=60)


@asynccontextmanager
async def pod(dual, **settings):
    """A ready pod as (state, service, app)."""
    of_state = {"max_in_flight": 64, "clock": time.monotonic}
    state = PodState("tokenizer", **{name: settings.pop(name, value) for name, value in of_state.items()})
    service = TokenizerService(state, lambda _state: dual, TokenizerSettings(**settings), canary())
    await service.start()
    state.become_ready()
    yield state, service, tokenizer_app(service)
    await service.stop()


@asynccontextmanager
async def http_pod(dual, **settings):
    async with pod(dual, **settings) as (state, _service, app):
        transport = httpx.ASGITransport(app, raise_app_exceptions=False)
        async with httpx.AsyncClient(transport=transport, base_url="http://pod") as http:
            yield state, http


@asynccontextmanager
async def served(dual, **settings):
    """A ready pod on a port of its own as (state, service, host and port)."""
    async with pod(dual, **settings) as (state, service, app):
        listener = socket.create_server(("127.0.0.1", 0))
        server = uvicorn.Server(uvicorn.Config(app, log_config=None, lifespan="off"))
        serving = asyncio.create_task(server.serve([listener]))
        yield state, service, f"127.0.0.1:{listener.getsockname()[1]}"
        server.should_exit = True
        await serving
        assert (service.sessions, state.in_flight) == (0, 0)


# --- whole files -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("rate", "query", "options"),
    [
        (8_000, "", {}),
        (16_000, "&trim=1", {"trim_silence": True}),
        (44_100, "&trim=0&gain=0.5", {"gain": 0.5}),
        (192_000, "", {}),
    ],
)
async def test_the_answer_is_what_the_tokenizers_say(dual, rate, query, options):
    wave = noise(rate)
    async with http_pod(dual) as (state, http):
        answer = await http.post(f"/v1/audio/tokens?rate={rate}{query}", content=wave.tobytes())
    expected = dual.encode(wave, rate, **options)
    assert (answer.status_code, answer.json()) == (
        200,
        {
            "codes": expected.codes,
            "linguistic": len(expected.linguistic),
            "semantic": len(expected.semantic),
            "duration_s": 1.0,
        },
    )
    assert state.in_flight == 0


@pytest.mark.parametrize(
    "wave",
    [
        np.zeros(16_000),  # silence
        np.full(16_000, 0.5),  # a constant
        np.sign(np.sin(np.arange(16_000) / 20)) * 3,  # clipped, and beyond full scale
        np.full(16_000, 1e-30),
    ],
)
async def test_strange_but_finite_audio_is_answered(dual, wave):
    async with http_pod(dual) as (_state, http):
        answer = await http.post("/v1/audio/tokens?rate=16000", content=wave.astype("<f4").tobytes())
    assert (answer.status_code, answer.json()["semantic"]) == (200, 25)


@pytest.mark.parametrize(
    ("query", "body", "param", "code"),
    [
        ("rate=16000", b"", "audio", "audio_empty"),
        ("rate=16000", bytes(7), "audio", "audio_invalid"),
        ("rate=16000", np.array([0, np.nan], dtype="<f4").tobytes(), "audio", "audio_invalid"),
        ("rate=16000", np.array([0, np.inf], dtype="<f4").tobytes(), "audio", "audio_invalid"),
        ("rate=16000", np.full(9, 1e30, dtype="<f4").tobytes(), "audio", "audio_invalid"),
        ("rate=16000", bytes(4 * 16001), "audio", "audio_too_long"),
        ("rate=16000", bytes(4), "audio", "audio_too_short"),
        ("rate=7999", bytes(64), "rate", "rate_invalid"),
        ("rate=192001", bytes(64), "rate", "rate_invalid"),
        ("rate=16k", bytes(64), "rate", "rate_invalid"),
        ("rate=16000&gain=loud", bytes(64), "gain", "gain_invalid"),
        ("rate=16000&gain=nan", bytes(64), "gain", "gain_invalid"),
        ("rate=16000&gain=0", bytes(64), "gain", "gain_invalid"),
        ("", bytes(64), "rate", "rate_invalid"),
    ],
)
async def test_bad_audio_is_a_400_that_names_the_fault(dual, query, body, param, code):
    async with http_pod(dual, max_audio_s=1) as (_state, http):
        answer = await http.post(f"/v1/audio/tokens?{query}", content=body)
    error = answer.json()["error"]
    assert (answer.status_code, error["type"], error["param"], error["code"]) == (
        400,
        "invalid_request_error",
        param,
        code,
    )


async def test_a_pod_whose_models_are_beyond_cure_ends(dual):
    class Broken(DualTokenizer):
        broken = False

        def step(self, progress, shares):
            if self.broken:
                raise RuntimeError("CUDA error: an illegal memory access was encountered")
            super().step(progress, shares)

    tokenizer = Broken(dual.linguistic, dual.semantic)
    async with pod(tokenizer) as (_state, service, app):
        tokenizer.broken = True
        transport = httpx.ASGITransport(app, raise_app_exceptions=False)
        async with httpx.AsyncClient(transport=transport, base_url="http://pod") as http:
            for _ in range(3):
                assert not service.failed.done()
                answer = await http.post("/v1/audio/tokens?rate=16000", content=noise(16_000).tobytes())
                assert answer.status_code == 500
        assert repr(await asyncio.wait_for(service.failed, 20)) == (
            "EngineFailed('3 steps of the tokenizers in a row failed, the last of RuntimeError: CUDA error:"
            " an illegal memory access was encountered')"
        )


async def test_exactly_the_longest_audio_is_taken(dual):
    async with http_pod(dual, max_audio_s=1) as (_state, http):
        answer = await http.post("/v1/audio/tokens?rate=192000", content=bytes(4 * 192_000))
    assert answer.status_code == 200


async def test_minutes_are_taken_where_they_are_allowed_in_several_steps_and_pieces(dual):
    async with http_pod(dual, max_audio_s=150) as (_state, http):
        answer = await http.post("/v1/audio/tokens?rate=8000", content=noise(8_000 * 150).tobytes())
    assert (answer.status_code, answer.json()["linguistic"], answer.json()["semantic"]) == (
        200,
        2_500,
        3_750,
    )


async def test_requests_together_get_what_each_gets_alone_and_beyond_the_bound_429(dual):
    waves = [noise(16_000 + 999 * n, n) for n in range(6)]
    async with http_pod(dual, max_in_flight=5, max_held_audio_s=4) as (_state, http):
        posts = (http.post("/v1/audio/tokens?rate=16000", content=wave.tobytes()) for wave in waves)
        answers = await asyncio.gather(*posts)
    refused = [answer for answer in answers if answer.status_code == 429]
    assert {answer.headers["Retry-After"] for answer in refused} == {"1"}
    assert [answer.status_code for answer in answers] == [200, 200, 200, 429, 429, 429]
    for answer, wave in zip(answers[:3], waves, strict=False):
        assert answer.json()["codes"] == dual.encode(wave, 16_000).codes


async def test_the_canary_refuses_models_that_give_no_codes(dual):
    class Mute:
        def encode(self, _wave, _rate):
            return type("Tokens", (), {"codes": []})

    service = TokenizerService(PodState("tokenizer"), lambda _state: Mute(), TokenizerSettings(), canary())
    with pytest.raises(OutputError, match="canary"):
        await service.start()


# --- streams ---------------------------------------------------------------------------------------------


async def stream(address, wave, sizes, **start):
    """Everything a stream of `wave` said, cut into frames of `sizes`, and how it was closed."""
    async with connect(f"ws://{address}/v1/audio/tokens/stream") as socket_:
        await socket_.send(json.dumps({"type": "start", "rate": 16_000, "format": "float32"} | start))
        data, at = wave.tobytes(), 0
        for size in [*sizes, len(data)]:
            await socket_.send(data[at : at + size])
            at += size
        await socket_.send('{"type": "end"}')
        said = [json.loads(message) async for message in socket_]
        return said, socket_.close_code, socket_.close_reason


def joined(said, book):
    return [id_ for event in said if event["type"] == "tokens" for id_ in event[book]]


async def test_streams_side_by_side_get_the_ids_of_their_whole_waves(dual):
    cases = [
        (noise(70_000, 1), [1, 5_001, 100_000], {"gain": 2.0}),
        (noise(96_000, 2), [640] * 40, {"rate": 48_000, "gain": "auto"}),
        (noise(40_000, 3), [], {"gain": 1.0, "semantic_window_s": 0.96, "semantic_hop_s": 0.48}),
        (noise(300, 4), [], {"gain": 1.0}),
        (noise(0), [], {}),
    ]
    async with served(dual) as (_state, _service, address):
        answers = await asyncio.gather(
            *(stream(address, wave, sizes, **start) for wave, sizes, start in cases)
        )
    for (wave, _, asked), (said, code, reason) in zip(cases, answers, strict=True):
        assert (code, reason) == (1000, "done")
        started, done, rate = said[0], said[-1], asked.get("rate", 16_000)
        gain = next((event["gain"] for event in said if event["type"] == "gain"), started["gain"])
        windows = Windows.seconds(started["semantic_window_s"], started["semantic_hop_s"])
        offline = dual.encode(wave, rate, gain=gain)
        assert joined(said, "linguistic") == offline.linguistic.ids.tolist()
        pieces = windowed(preprocess(wave, rate, gain=gain), windows)
        parts = dual.semantic.batch([piece.wave for piece in pieces]) if pieces else []
        semantic = [
            i for ids, piece in zip(parts, pieces, strict=True) for i in ids.ids[piece.skip :].tolist()
        ]
        assert joined(said, "semantic") == semantic
        assert done == {
            "type": "done",
            "linguistic": len(offline.linguistic),
            "semantic": len(semantic),
            "codes": len(joined(said, "codes")),
            "duration_s": len(wave) / rate,
        }


async def test_ids_come_while_the_stream_goes_on(dual):
    async with served(dual) as (_state, _service, address):
        async with connect(f"ws://{address}/v1/audio/tokens/stream") as socket_:
            await socket_.send('{"type": "start", "rate": 16000, "gain": 1}')
            await socket_.recv()
            await socket_.send(bytes(2 * 3_840))
            event = json.loads(await asyncio.wait_for(socket_.recv(), 10))
            assert (len(event["linguistic"]), event["semantic"], event["codes"]) == (4, [], [])
            await socket_.send(bytes(2 * 11_520))
            counts = [0, 0, 0]
            while counts != [12, 24, 40]:
                event = json.loads(await asyncio.wait_for(socket_.recv(), 10))
                for at, book in enumerate(("linguistic", "semantic", "codes")):
                    counts[at] += len(event[book])


async def test_a_stream_that_waits_for_its_client_is_not_stalled_and_one_that_waits_for_the_models_is(dual):
    class Held(DualTokenizer):
        go = threading.Event()

        def step(self, progress, shares):
            assert self.go.wait(30)
            super().step(progress, shares)

    now, go = [0.0], Held.go
    go.set()
    tokenizer = Held(dual.linguistic, dual.semantic)
    async with served(tokenizer, clock=lambda: now[0]) as (state, _service, address):
        async with connect(f"ws://{address}/v1/audio/tokens/stream") as socket_:
            now[0] += 1000
            assert state.stalled() is None, "it was opened, and nothing was said"
            await socket_.send('{"type": "start", "rate": 16000, "gain": 1}')
            await socket_.recv()
            for _ in range(3):
                await asyncio.sleep(0.1)
                now[0] += 1000
                assert state.stalled() is None, "nothing is owed"
                go.clear()
                await socket_.send(bytes(2 * 3_840))
                await asyncio.sleep(0.1)
                assert state.stalled() is None, "its time has just begun"
                now[0] += 1000
                assert state.stalled() is not None
                go.set()
                await asyncio.wait_for(socket_.recv(), 10)
    with state.admit():
        now[0] += 1000
        assert state.stalled() is not None, "what was waited for is not counted twice"


@pytest.mark.parametrize(
    ("messages", "code", "reason"),
    [
        (["hello"], 1007, "invalid_message"),
        ([b"\x00\x01"], 1008, "start_expected"),
        (['{"type": "end"}'], 1008, "start_expected"),
        (['{"type": "start", "rate": 1}'], 1008, "rate_invalid"),
        (["START", "more"], 1007, "invalid_message"),
        (["START", "START"], 1008, "stream_started"),
        (["START", b"abc", "END"], 1007, "audio_invalid"),
        (["START", "END", b"ab"], None, None),  # the end may have been answered by then
        (["START", bytes((1 << 20) + 1)], 1009, "frame_too_large"),
        (["START", bytes(17 << 20)], 1009, None),  # refused by the server itself
        (["START"], 1008, "session_idle"),
        ([], 1008, "session_idle"),
    ],
)
async def test_breaches_of_the_protocol_close_with_a_code_and_leave_nothing_behind(
    dual, messages, code, reason
):
    short = {"START": '{"type": "start", "rate": 16000}', "END": '{"type": "end"}'}
    async with served(dual, session_idle_s=0.5) as (_state, _service, address):
        async with connect(f"ws://{address}/v1/audio/tokens/stream", max_size=None) as socket_:
            said = []
            try:
                for message in messages:
                    await socket_.send(short.get(message, message) if isinstance(message, str) else message)
                while True:
                    said.append(json.loads(await asyncio.wait_for(socket_.recv(), 10)))
            except ConnectionClosed:
                pass
        if code is not None:
            assert socket_.close_code == code
        if reason is not None:
            assert socket_.close_reason == said[-1]["error"]["code"] == reason


async def test_streams_beyond_the_bound_are_refused_until_one_leaves(dual):
    async with served(dual, max_sessions=1) as (state, service, address):
        url = f"ws://{address}/v1/audio/tokens/stream"
        async with connect(url) as first:
            await first.send('{"type": "start", "rate": 16000}')
            await first.recv()
            with pytest.raises(InvalidStatus) as refused:
                await connect(url)
            answer = refused.value.response
            assert (answer.status_code, answer.headers["Retry-After"]) == (429, "1")
            assert json.loads(answer.body)["error"]["code"] == "overloaded"
            await first.send(noise(100_000).tobytes())
            first.transport.abort()  # gone without a word, with work under way
        for _ in range(200):
            if service.sessions == 0:
                break
            await asyncio.sleep(0.02)
        said, code, _ = await stream(address, noise(4_000), [])
        assert (code, said[-1]["type"]) == (1000, "done")
        state.drain()
        with pytest.raises(InvalidStatus) as draining:
            await connect(url)
        assert draining.value.response.status_code == 503
