"""Clients that talk with a gateway without a pause, and a judge of every answer: whole, failed or truncated.

Real HTTP, no retries. Half of the clients keep their connections, as SDKs do, the others connect for every
request. One of them always has a long stream of speech open. What an answer should be is learnt from the
first one, so that a short one is seen: greedy texts word for word, codes by their number, speech by the
tokens that the gateway counted and by its length.
"""

import asyncio
import base64
import io
import json
import threading
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import soundfile

QUESTION = Path(__file__).parents[2] / "examples/hello.wav"
SAID = "please say three nine five"  # in QUESTION
SHORT = "Three nine five."
LONG = "The timer is set for seven minutes. The kitchen lamp is on. Three nine five."
RATE = 24_000
CODES_A_SECOND = 125 / 3
LENGTHS = (0.5, 2.0)
"""Of the length of the same text before: sampling is by seed, but other requests share the steps."""
PAUSE_S = 0.2
"""Between two requests of one client."""
TIMEOUT_S = 240.0
STREAMED = frozenset({"speech", "speech events", "long speech", "chat streamed"})


class NotWhole(Exception):  # noqa: N818 - a verdict, not an error
    """An answer that is not whole; `began` says whether some of it had come."""

    def __init__(self, what: str, began: bool) -> None:
        super().__init__(what)
        self.began = began


@dataclass(frozen=True)
class Outcome:
    """One request: its kind, `whole`, `failed` or `truncated`, what was wrong, begin and end (s)."""

    kind: str
    verdict: str
    detail: str
    began: float
    ended: float


@dataclass
class Caller:
    """The kinds of requests; each returns when its answer is whole, else raises NotWhole or HTTPError."""

    url: str
    learnt: dict[str, Any]
    http: httpx.AsyncClient

    async def chat(self) -> None:
        """A short text for a short text."""
        answer = await self._post("chat/completions", json=self._talk())
        choice = answer.json()["choices"][0]
        self._same("chat", choice["message"]["content"])
        if choice["finish_reason"] not in {"stop", "length"}:
            raise NotWhole(f"ends by {choice['finish_reason']}", began=True)

    async def chat_streamed(self) -> None:
        """The same as a stream."""
        text, reason, done = "", None, False
        async for line in self._lines("chat/completions", {**self._talk(), "stream": True}):
            if line == "[DONE]":
                done = True
                continue
            event = json.loads(line)
            if "error" in event:
                raise NotWhole(event["error"]["message"], began=True)
            for choice in event["choices"]:
                text += choice["delta"].get("content") or ""
                reason = choice["finish_reason"] or reason
        if not done or reason is None:
            raise NotWhole(f"no end: {text!r}, finish_reason {reason}, [DONE] {done}", began=True)
        self._same("chat", text)

    async def transcription(self) -> None:
        """A spoken sentence to its words, by tokenizer and chat model."""
        file = {"file": ("hello.wav", QUESTION.read_bytes(), "audio/wav")}
        answer = await self._post("audio/transcriptions", data={"model": "step-audio-chat"}, files=file)
        if (heard := answer.json()["text"]) != SAID:
            raise NotWhole(f"heard {heard!r}", began=True)

    async def tokens(self) -> None:
        """A recording to its codes."""
        answer = await self._post("audio/tokens", files={"file": ("tone.wav", _tone(), "audio/wav")})
        self._same("tokens", len(answer.json()["codes"]))

    async def speech(self) -> None:
        """A short text to PCM, as it is made."""
        pcm = b""
        async with self.http.stream(
            "POST", f"{self.url}/audio/speech", json=_speech(SHORT, "pcm")
        ) as response:
            await _require_good(response)
            try:
                async for piece in response.aiter_bytes():
                    pcm += piece
            except httpx.HTTPError as error:
                raise NotWhole(f"after {len(pcm)} bytes: {error!r}", began=True) from error
        self._heard("speech", pcm)

    async def speech_events(self) -> None:
        """The same as events, whose last one says how much there should be."""
        await self.events("speech", SHORT)

    async def long_speech(self) -> None:
        """Several sentences as events: a stream that is open for many seconds."""
        await self.events("long speech", LONG)

    async def events(self, name: str, text: str) -> None:
        """Any text, as events; `name` says which length is usual for it."""
        pcm, codes = b"", None
        body = {**_speech(text, "pcm"), "stream_format": "sse"}
        async for line in self._lines("audio/speech", body):
            event = json.loads(line)
            if "error" in event:
                raise NotWhole(event["error"]["message"], began=True)
            if event["type"] == "speech.audio.delta":
                pcm += base64.b64decode(event["audio"])
            else:
                codes = event["usage"]["output_tokens"]
        if codes is None:
            raise NotWhole(f"no last event after {len(pcm)} bytes", began=True)
        seconds = len(pcm) / 2 / RATE
        if abs(seconds - codes / CODES_A_SECOND) > 0.1:
            raise NotWhole(f"{seconds:.2f} s of speech for {codes} codes", began=True)
        self._heard(name, pcm)

    def _heard(self, name: str, pcm: bytes) -> None:
        samples = np.frombuffer(pcm, "<i2")
        seconds = len(samples) / RATE
        usual = self.learnt.setdefault(name, seconds)
        if not LENGTHS[0] * usual <= seconds <= LENGTHS[1] * usual or not np.abs(samples).max(initial=0) > 30:
            raise NotWhole(f"{seconds:.2f} s of speech where {usual:.2f} s are usual", began=True)

    def _same(self, name: str, found: Any) -> None:
        if found != self.learnt.setdefault(name, found) or not found:
            raise NotWhole(f"{found!r} instead of {self.learnt[name]!r}", began=True)

    def _talk(self) -> dict[str, Any]:
        messages = [{"role": "user", "content": SAID}]
        return {
            "model": "step-audio-chat",
            "messages": messages,
            "temperature": 0,
            "max_completion_tokens": 16,
        }

    async def _post(self, path: str, **body: Any) -> httpx.Response:
        response = await self.http.post(f"{self.url}/{path}", **body)
        await _require_good(response)
        return response

    async def _lines(self, path: str, body: dict[str, Any]):
        """The data of an event stream."""
        async with self.http.stream("POST", f"{self.url}/{path}", json=body) as response:
            await _require_good(response)
            seen = 0
            try:
                async for line in response.aiter_lines():
                    if line.startswith("data: "):
                        seen += 1
                        yield line.removeprefix("data: ")
            except httpx.HTTPError as error:
                raise NotWhole(f"after {seen} events: {error!r}", began=True) from error


KINDS: dict[str, Callable[[Caller], Awaitable[None]]] = {
    "chat": Caller.chat,
    "chat streamed": Caller.chat_streamed,
    "transcription": Caller.transcription,
    "tokens": Caller.tokens,
    "speech": Caller.speech,
    "speech events": Caller.speech_events,
    "long speech": Caller.long_speech,
}
SPEAKING = (("long speech",), ("speech", "speech events"))
"""What the first clients ask for, one after the other: speech takes as long as everything else together."""
MIX = ("tokens", "chat", "tokens", "chat streamed", "chat", "tokens", "transcription", "chat streamed")
"""All other clients go round this, each from its own place on."""


class Load:
    """`clients` of them, from `with` on until its end. `learn` has to have been asked before."""

    def __init__(self, url: str, learnt: dict[str, Any], clients: int = 6, key: str = "none") -> None:
        self.outcomes: list[Outcome] = []
        self._url = url
        self._learnt = learnt
        self._key = key
        self._clients = clients
        self._open: Counter[str] = Counter()
        self._ending = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._all()), name="load")

    def __enter__(self) -> "Load":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Lets what is open come to its end."""
        self._ending.set()
        self._thread.join()

    @property
    def streams(self) -> int:
        """Streams that are open now."""
        return sum(count for kind, count in self._open.items() if kind in STREAMED)

    def count(self, verdict: str) -> int:
        return sum(outcome.verdict == verdict for outcome in self.outcomes)

    @property
    def broken(self) -> list[Outcome]:
        """Everything that was not whole."""
        return [outcome for outcome in self.outcomes if outcome.verdict != "whole"]

    async def _all(self) -> None:
        await asyncio.gather(*(self._client(number) for number in range(self._clients)))

    async def _client(self, number: int) -> None:
        place = 3 * number % len(MIX)
        kinds = SPEAKING[number] if number < len(SPEAKING) else (*MIX[place:], *MIX[:place])
        kept = _http(self._key) if number % 2 else None
        turn = 0
        while not self._ending.is_set():
            http = kept or _http(self._key)
            self.outcomes.append(await self._one(kinds[turn % len(kinds)], http))
            if kept is None:
                await http.aclose()
            turn += 1
            await asyncio.sleep(PAUSE_S)
        if kept is not None:
            await kept.aclose()

    async def _one(self, kind: str, http: httpx.AsyncClient) -> Outcome:
        began, verdict, detail = time.monotonic(), "whole", ""
        self._open[kind] += 1
        try:
            await KINDS[kind](Caller(self._url, self._learnt, http))
        except NotWhole as fault:
            verdict, detail = ("truncated" if fault.began else "failed"), str(fault)
        except (httpx.HTTPError, ValueError, KeyError, IndexError) as error:
            verdict, detail = "failed", repr(error)
        finally:
            self._open[kind] -= 1
        return Outcome(kind, verdict, detail, began, time.monotonic())


def learn(url: str) -> dict[str, Any]:
    """One request of each kind, from which what is usual is known. Raises what is wrong."""

    async def ask() -> dict[str, Any]:
        learnt: dict[str, Any] = {}
        async with _http() as http:
            for kind in KINDS.values():
                await kind(Caller(url, learnt, http))
        return learnt

    return asyncio.run(ask())


def _http(key: str = "none") -> httpx.AsyncClient:
    headers = {"Authorization": f"Bearer {key}"}
    return httpx.AsyncClient(timeout=TIMEOUT_S, trust_env=False, headers=headers)


async def _require_good(response: httpx.Response) -> None:
    if response.status_code != 200:
        await response.aread()
        raise NotWhole(f"{response.status_code}: {response.text[:200]}", began=False)


def _speech(text: str, format_: str) -> dict[str, Any]:
    return {
        "model": "step-audio-tts",
        "voice": "alloy",
        "input": text,
        "response_format": format_,
        "seed": 1,
    }


def _tone() -> bytes:
    sink = io.BytesIO()
    wave = 0.3 * np.sin(2 * np.pi * 220 * np.arange(8_000) / 16_000)
    soundfile.write(sink, wave, 16_000, format="WAV", subtype="PCM_16")
    return sink.getvalue()
