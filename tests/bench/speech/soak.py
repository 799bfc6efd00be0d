"""Two hundred mixed requests, many of them broken off at random: what the pods hold of them afterwards, in
requests, utterances, sessions, KV blocks, threads and memory."""

import asyncio
import contextlib
import json
import random
import time
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import psutil
from websockets.asyncio.client import connect

from tests.integration.pods.conftest import Pods

REQUESTS = 200
AT_ONCE = 8
WARM_UP = 460  # until what is compiled and cached for the lengths that come by is there
QUIET_S = 30
TEXTS = ("你好。", "一二三。", "Hello there.", "好", "(高兴1)再见。")
WAVE = (0.2 * np.sin(np.arange(16_000) / 20)).astype("<f4")


class Callers:
    """Clients of the TTS and tokenizer pods; what they get is 200, 429 or their own leaving."""

    def __init__(self, pods: Pods, rng: random.Random) -> None:
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


def held(pods: Pods) -> dict[str, float]:
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


async def watch(pods: Pods, most: dict[str, float]) -> None:
    """Notes the most that is held at a time: what is never seen at work cannot be trusted to be idle."""
    while True:
        for name, value in (await asyncio.to_thread(held, pods)).items():
            most[name] = max(most[name], value)
        await asyncio.sleep(0.2)


def memory(pods: Pods) -> dict[str, int]:
    """Resident bytes by pod, all of its processes."""
    found = {}
    for component in ("tts", "tokenizer"):
        processes = [psutil.Process(pods[component].process.pid), *pods[component].descendants()]
        found[component] = 0
        for process in processes:
            with contextlib.suppress(psutil.NoSuchProcess):
                found[component] += process.memory_info().rss
    return found


def soak(models: Path, folder: Path) -> dict[str, Any]:
    """On new pods, after a warm-up: `held` shall be empty, memory 1 and the threads' difference 0."""
    pods = Pods(models, folder)
    try:
        for component in ("tts", "tokenizer"):
            pods.start(component)
        callers = Callers(pods, random.Random(4))
        asyncio.run(callers.run(WARM_UP))
        at_rest(pods)
        before, threads = memory(pods), thread_count(pods)
        callers.statuses.clear()
        most = asyncio.run(_watched(pods, callers))
        left = {name: value for name, value in at_rest(pods).items() if value}
        after = memory(pods)
        return {
            "outcomes": callers.statuses,
            "most": most,
            "held": left,
            "memory": {name: after[name] / before[name] for name in before},
            "more threads": {name: count - threads[name] for name, count in thread_count(pods).items()},
        }
    finally:
        pods.end()


async def _watched(pods: Pods, callers: Callers) -> dict[str, float]:
    most = dict.fromkeys(held(pods), 0.0)
    watching = asyncio.create_task(watch(pods, most))
    await callers.run(REQUESTS)
    watching.cancel()
    return most


def at_rest(pods: Pods) -> dict[str, float]:
    """What is held once nothing is, or after `QUIET_S`."""
    deadline = time.monotonic() + QUIET_S
    while any(held(pods).values()) and time.monotonic() < deadline:
        time.sleep(0.2)
    return held(pods)


def thread_count(pods: Pods) -> dict[str, int]:
    """By pod."""
    return {name: psutil.Process(pods[name].process.pid).num_threads() for name in ("tts", "tokenizer")}
