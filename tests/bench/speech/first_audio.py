"""First audio through the gateway: the nano pods as processes, listeners who take their audio at the rate at
which it plays, alone and beside others."""

from __future__ import annotations

import asyncio
import json
import time
from pathlib import Path
from statistics import median
from typing import Any

import httpx

from tests.integration.pods.conftest import Pods

PCM_RATE = 24_000
TEXTS = (
    "今天天气很好，我们一起去公园散步吧。",
    "She wrote the answer down and read it twice before she left.",
    "请把三个苹果和两个梨放进篮子里。",
    "The shop at the corner is still open tonight.",
)
ROUNDS = 6


def first_audio(models: Path, folder: Path) -> dict[str, Any]:
    """Seconds to the first audio and of silence in between, for one, three and five listeners at a time."""
    pods = Pods(models, folder)
    try:
        for component in ("tts", "tokenizer"):
            pods.start(component)
        routing = folder / "routing.json"
        ready = {component: [pods[component].url] for component in ("tts", "tokenizer")}
        routing.write_text(json.dumps({"generation": 1, "release": "bench", "pools": ready}))
        gateway = pods.start("gateway", STEPAUDIO_STATIC_ROUTING=str(routing)).wait_ready()
        return asyncio.run(_all(gateway.url))
    finally:
        pods.end()


async def _all(url: str) -> dict[str, Any]:
    async with httpx.AsyncClient(base_url=url, timeout=300) as client:
        await listen(client, TEXTS[0], 0)  # the first request fetches what later ones have
        found = {}
        for count in (1, 3, 5):
            heard = []
            for number in range(ROUNDS):
                heard += await asyncio.gather(
                    *(listen(client, TEXTS[i % len(TEXTS)], number * 10 + i) for i in range(count))
                )
            found[str(count)] = {
                "first_s": median(each["first_s"] for each in heard),
                "first_worst_s": max(each["first_s"] for each in heard),
                "underrun_s": sum(each["underrun_s"] for each in heard),
                "with_underrun": sum(each["underrun_s"] > 0.02 for each in heard),
                "listeners": len(heard),
                "audio_s": sum(each["audio_s"] for each in heard),
            }
        return found


async def listen(client: httpx.AsyncClient, text: str, seed: int) -> dict[str, float]:
    """One listener: plays from the first piece on, and reads at most a second ahead of what it plays."""
    body = {"model": "step-audio-tts", "input": text, "seed": seed, "response_format": "pcm"}
    asked = time.monotonic()
    first, played_until, underrun, total = 0.0, 0.0, 0.0, 0
    async with client.stream("POST", "/v1/audio/speech", json=body) as answer:
        answer.raise_for_status()
        async for piece in answer.aiter_raw():
            now = time.monotonic()
            if not total:
                first, played_until = now - asked, now
            elif now > played_until:
                underrun += now - played_until
                played_until = now
            total += len(piece)
            played_until += len(piece) / 2 / PCM_RATE
            await asyncio.sleep(max(0.0, played_until - now - 1.0))
    return {"first_s": first, "underrun_s": underrun, "audio_s": total / 2 / PCM_RATE}
