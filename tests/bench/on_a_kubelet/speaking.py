"""Speech for clients of other kinds than those of the load, through the gateway's Service: text that comes in
pieces, listeners that leave or read slowly, a long text.
"""

import asyncio
import json
import socket
import statistics
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import httpx
from websockets.asyncio.client import ClientConnection, connect

from tests.bench.on_a_kubelet.controls import KEY
from tests.bench.on_a_kubelet.ground import processes_of
from tests.bench.on_a_kubelet.scenarios import Raw, World
from tests.bench.on_a_kubelet.watching import pod_says
from tests.e2e.load import CODES_A_SECOND, LONG, RATE, SHORT, Caller

MARGIN_S = 0.1
"""Between what was heard and the codes that the gateway counted."""
TALKERS = 2
BEGUN, REST = "The timer is set for seven minutes. The kit", "chen lamp is on. Three nine five."
"""Of one text: its first sentence, and a word that is cut."""
PIECES = ["The timer is set for seven minutes.", "The kitchen lamp is on.", "Three nine five."]
LISTENERS, AT_ONCE = 30, 3
SLOW_BYTES, SLOW_S = 4_096, 0.15
SETTLED_S = 60.0
ROUNDS = 4


def in_pieces(world: World) -> Raw:
    """Text comes in pieces over WebSockets while a speech pod is deleted and replaced: spoken from the first
    clause on, whole at the end, and after a cancel only what came after it.
    """
    told: list[Spoken] = []
    ending = threading.Event()

    async def talk(number: int) -> None:
        while not ending.is_set():
            cancels = (len(told) + number) % 3 == 2
            told.append(await (_cancelled if cancels else _spoken)(world.url))

    async def all_of_them() -> None:
        await asyncio.gather(*(talk(number) for number in range(TALKERS)))

    with ThreadPoolExecutor(1) as one:
        talking = one.submit(lambda: asyncio.run(all_of_them()))
        try:
            world.until(lambda: talking.done() or len(told) > TALKERS, "text has been spoken")
            pod = min(pod["metadata"]["name"] for pod in world.pods("tts"))
            world.note_streams()
            world.nano.cluster.kubectl("delete", "pod", pod, "--wait=false")
            before = len(told)
            world.until(lambda: talking.done() or len(told) > before + TALKERS, "text was spoken meanwhile")
            world.until_whole()
        finally:
            ending.set()
        talking.result()
    whole = [each for each in told if not each.cancelled]
    return {
        "streams": len(told),
        "cancelled": len(told) - len(whole),
        "first sound before the text's end": sum(each.early for each in told),
        "median s to the first sound": round(statistics.median(each.first_s for each in told), 1),
    }


def listeners(world: World) -> Raw:
    """A third of the listeners leave in the middle, a third read slowly; afterwards the speech pods have
    nothing open but what the load asks for.
    """
    before = _memory_mib(world)
    with ThreadPoolExecutor(AT_ONCE) as pool:
        ways = [_LEAVES, _SLOW, _ATTENTIVE] * (LISTENERS // 3)
        ended = list(pool.map(lambda way: _listen(world.url, way), ways))
    began = time.monotonic()
    world.until(lambda: _open(world) <= _asked_by_load(world), "nothing is open", SETTLED_S)
    early = [first / whole for way, first, whole in ended if way == _ATTENTIVE]
    return {
        "listeners": dict(Counter(way for way, *_ in ended)),
        "settled after s": round(time.monotonic() - began),
        "first sound after this share of the time": round(statistics.median(early), 2),
        "memory of both pods MiB, before and after": [before, _memory_mib(world)],
    }


def long_text(world: World) -> Raw:
    """A text of many sentences in one request lasts as long as its sentences do one by one."""

    async def heard(text: str) -> float:
        learnt: Raw = {}
        headers = {"Authorization": f"Bearer {KEY}"}
        async with httpx.AsyncClient(timeout=600, trust_env=False, headers=headers) as http:
            await Caller(world.url, learnt, http).events("this", text)
        return float(learnt["this"])

    alone = sum(asyncio.run(heard(piece)) for piece in PIECES)
    together = asyncio.run(heard(" ".join([LONG] * ROUNDS)))
    if not 0.75 <= together / (alone * ROUNDS) <= 1.33:
        raise AssertionError(f"{together:.1f} s for {ROUNDS} times {alone:.1f} s")
    return {
        "sentences": len(PIECES) * ROUNDS,
        "seconds": round(together, 1),
        "one by one": round(alone * ROUNDS, 1),
    }


SPEAKING: Mapping[str, Callable[[World], Raw]] = {
    "text-in-pieces": in_pieces,
    "listeners": listeners,
    "long-text": long_text,
}

_LEAVES, _SLOW, _ATTENTIVE = "left in the middle", "slow", "attentive"


@dataclass(frozen=True)
class Spoken:
    """A stream that was whole: until its first sound (s), whether that came before the text's end."""

    first_s: float
    early: bool
    cancelled: bool = False


class _Talk:
    """One WebSocket of text in pieces: its events, its sound."""

    def __init__(self, connection: ClientConnection) -> None:
        self._connection = connection
        self.events: list[Raw] = []
        self.pcm = b""

    async def say(self, *messages: Raw) -> None:
        for message in messages:
            await self._connection.send(json.dumps(message))

    async def until(self, holds: Callable[[], bool]) -> None:
        """Takes what comes until then; an error of the gateway's is one here."""
        while not holds():
            message = await self._connection.recv()
            if isinstance(message, bytes):
                self.pcm += message
                continue
            self.events.append(json.loads(message))
            if self.events[-1]["type"] == "error":
                raise AssertionError(self.events[-1]["error"])

    async def until_event(self, kind: str) -> Raw:
        await self.until(lambda: self.events[-1:] != [] and self.events[-1]["type"] == kind)
        return self.events[-1]

    @property
    def pieces(self) -> list[str]:
        return [event["text"] for event in self.events if event["type"] == "piece"]


def _text(words: str) -> Raw:
    return {"type": "text", "text": words}


_START = {"type": "start", "model": "step-audio-tts", "voice": "alloy", "response_format": "pcm", "seed": 1}
_END = {"type": "end"}


def _connection(url: str) -> connect:
    address = url.replace("http", "ws", 1) + "/audio/speech/stream"
    return connect(address, additional_headers={"Authorization": f"Bearer {KEY}"}, proxy=None)


async def _spoken(url: str) -> Spoken:
    """A text whose rest is sent when its first clause is heard."""
    async with asyncio.timeout(240), _connection(url) as connection:
        talk, began = _Talk(connection), time.monotonic()
        await talk.say(_START, _text(BEGUN))
        await talk.until(lambda: bool(talk.pcm))
        first, early = time.monotonic() - began, talk.pieces == PIECES[:1]
        await talk.say(_text(REST), _END)
        done = await talk.until_event("done")
    codes, seconds = done["usage"]["output_tokens"], len(talk.pcm) / 2 / RATE
    if talk.pieces != PIECES or abs(seconds - codes / CODES_A_SECOND) > MARGIN_S:
        raise AssertionError(f"{seconds:.2f} s for {codes} codes, pieces {talk.pieces}")
    return Spoken(first, early)


async def _cancelled(url: str) -> Spoken:
    """A text that is cancelled while it is spoken, and another one in its place."""
    async with asyncio.timeout(240), _connection(url) as connection:
        talk, began = _Talk(connection), time.monotonic()
        await talk.say(_START, _text(LONG))
        await talk.until(lambda: bool(talk.pcm))
        first = time.monotonic() - began
        await talk.say({"type": "cancel"})
        await talk.until_event("cancelled")
        spoken, talk.pcm = len(talk.pieces), b""
        await talk.say(_text(SHORT), _END)
        await talk.until_event("done")
    if talk.pieces[spoken:] != [SHORT] or not talk.pcm:
        raise AssertionError(f"after a cancel: {talk.pieces[spoken:]}, {len(talk.pcm)} bytes")
    return Spoken(first, early=True, cancelled=True)


def _listen(url: str, way: str) -> tuple[str, float, float]:
    """One request for speech, taken in this way: until the first and the last byte of it (s)."""
    body = {"model": "step-audio-tts", "voice": "alloy", "input": LONG, "response_format": "pcm"}
    # Else the kernel would take in what a slow reader does not.
    small = [(socket.SOL_SOCKET, socket.SO_RCVBUF, SLOW_BYTES)] if way == _SLOW else []
    headers = {"Authorization": f"Bearer {KEY}"}
    transport = httpx.HTTPTransport(socket_options=small)
    with httpx.Client(timeout=240, transport=transport, headers=headers) as http:
        began = time.monotonic()
        with http.stream("POST", f"{url}/audio/speech", json=body) as response:
            response.raise_for_status()
            first = 0.0
            for _ in response.iter_bytes(SLOW_BYTES):
                first = first or time.monotonic() - began
                if way == _LEAVES:
                    break
                if way == _SLOW:
                    time.sleep(SLOW_S)
    return way, first, time.monotonic() - began


def _open(world: World) -> int:
    """Utterances that the speech pods have open."""
    return sum(int(pod_says(pod, "stepaudio_speech_open")) for pod in world.pods("tts"))


def _asked_by_load(world: World) -> int:
    """Streams of the load, a text's among them."""
    return world.load.streams if world.load is not None else 0


def _memory_mib(world: World) -> int:
    """Of all processes in the speech pods."""
    found = 0
    for pod in world.pods("tts"):
        found += sum(process.memory_info().rss for process in processes_of(pod))
    return found >> 20
