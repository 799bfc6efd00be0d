"""Two hundred mixed requests, many of them broken off at random: afterwards the pods hold nothing of them, no
request, utterance, session or KV block, and no more memory than before."""

import asyncio
import contextlib
import json
import random

import httpx
import numpy as np
import psutil
import pytest
from websockets.asyncio.client import connect

pytestmark = pytest.mark.vllm

REQUESTS = 200
AT_ONCE = 8
WARM_UP = 60
MEMORY = 1.02
QUIET_S = 30
TEXTS = ("你好。", "一二三。", "Hello there.", "好", "(高兴1)再见。")
WAVE = (0.2 * np.sin(np.arange(16_000) / 20)).astype("<f4")


class Callers:
    """Clients of the TTS and tokenizer pods; what they get is 200, 429 or their own leaving."""

    def __init__(self, pods, rng: random.Random) -> None:
        self.rng = rng
        self.tts, self.tokenizer = pods["tts"].url, pods["tokenizer"].url
        self.statuses: dict[str, int] = {}

    async def run(self, count: int) -> None:
        async with httpx.AsyncClient(timeout=120) as self.http:
            numbers = iter(range(count))

            async def work() -> None:
                for _ in numbers:
                    await self.one()

            await asyncio.gather(*(work() for _ in range(AT_ONCE)))

    async def one(self) -> None:
        call = self.rng.choice(
            [self.text, self.text, self.codes, self.codes, self.tokens, self.stream, self.bad]
        )
        leaves = self.rng.random() < 0.4
        try:
            async with asyncio.timeout(self.rng.uniform(0.01, 1.5) if leaves else 100):
                outcome = await call()
        except TimeoutError:
            assert leaves, f"{call.__name__} hangs"
            outcome = "left"
        self.statuses[outcome] = self.statuses.get(outcome, 0) + 1

    async def speech(self, **body) -> str:
        async with self.http.stream("POST", f"{self.tts}/v1/speech", json=body) as answer:
            size = sum([len(piece) async for piece in answer.aiter_raw()])
        assert size > 0
        return str(answer.status_code)

    async def text(self) -> str:
        return await self.speech(input=self.rng.choice(TEXTS), seed=self.rng.randrange(99))

    async def codes(self) -> str:
        return await self.speech(codes=[self.rng.randrange(5120) for _ in range(self.rng.randint(1, 90))])

    async def bad(self) -> str:
        return await self.speech(**self.rng.choice([{"input": ""}, {"codes": [9999]}, {"input": "😀"}, {}]))

    async def tokens(self) -> str:
        wave = WAVE[: self.rng.randint(4_000, 16_000)]
        answer = await self.http.post(f"{self.tokenizer}/v1/audio/tokens?rate=16000", content=wave.tobytes())
        return str(answer.status_code)

    async def stream(self) -> str:
        url = self.tokenizer.replace("http", "ws") + "/v1/audio/tokens/stream"
        async with connect(url) as socket:
            await socket.send(json.dumps({"type": "start", "rate": 16_000, "format": "float32"}))
            for part in np.array_split(WAVE, self.rng.randint(1, 20)):
                await socket.send(part.tobytes())
            await socket.send('{"type": "end"}')
            said = [json.loads(message) async for message in socket]
        assert said[-1]["type"] == "done"
        return "stream"


def held(pods) -> dict[str, float]:
    """What the pods hold of requests."""
    tts, tokenizer = pods["tts"], pods["tokenizer"]
    return {
        "utterances": tts.metric("stepaudio_speech_open"),
        "waiting": tts.metric("stepaudio_speech_queue_length"),
        "running": tts.metric("vllm:num_requests_running"),
        "queued": tts.metric("vllm:num_requests_waiting"),
        "kv": tts.metric("vllm:kv_cache_usage_perc"),
        "streams": tokenizer.metric("stepaudio_tokenizer_streams"),
        "in flight": tts.status()["inFlight"] + tokenizer.status()["inFlight"],
    }


async def watch(pods, most: dict[str, float]) -> None:
    """Notes the most that is held at a time: what is never seen at work cannot be trusted to be idle."""
    while True:
        for name, value in (await asyncio.to_thread(held, pods)).items():
            most[name] = max(most[name], value)
        await asyncio.sleep(0.2)


def memory(pods) -> dict[str, int]:
    """Resident bytes by pod, all of its processes."""
    found = {}
    for component in ("tts", "tokenizer"):
        processes = [psutil.Process(pods[component].process.pid), *pods[component].descendants()]
        found[component] = 0
        for process in processes:
            with contextlib.suppress(psutil.NoSuchProcess):
                found[component] += process.memory_info().rss
    return found


async def test_nothing_is_left_of_two_hundred_requests(pods):
    callers = Callers(pods, random.Random(4))
    await callers.run(WARM_UP)
    nothing = dict.fromkeys(held(pods), 0)
    pods["tts"].wait_until("rest", lambda: held(pods) == nothing, QUIET_S)
    threads = {name: len(psutil.Process(pods[name].process.pid).threads()) for name in ("tts", "tokenizer")}
    before = memory(pods)
    callers.statuses.clear()
    most = dict(nothing)
    watching = asyncio.create_task(watch(pods, most))
    await callers.run(REQUESTS)
    watching.cancel()
    assert all(most[name] > 0 for name in ("utterances", "running", "kv", "streams")), most
    pods["tts"].wait_until("rest", lambda: held(pods) == nothing, QUIET_S)
    after = memory(pods)
    print(callers.statuses, before, after)
    assert sum(callers.statuses.values()) == REQUESTS
    assert callers.statuses.keys() <= {"200", "400", "429", "stream", "left"}
    assert callers.statuses["200"] > REQUESTS / 5
    assert callers.statuses["left"] > REQUESTS / 20
    assert all(after[name] <= MEMORY * before[name] for name in before), (before, after)
    assert {
        name: len(psutil.Process(pods[name].process.pid).threads()) for name in ("tts", "tokenizer")
    } == threads
