"""The judge of the load tests sees every answer that is not whole: a server that spoils each in every way."""

import base64
import json
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import httpx
import numpy as np
import pytest

from tests.e2e.load import CODES_A_SECOND, KINDS, RATE, SAID, Caller, Load, NotWhole, learn

SECONDS = 1.2
PCM = (3000 * np.sin(np.arange(int(SECONDS * RATE)) / 20)).astype("<i2").tobytes()


def speech_events(pcm: bytes) -> list[str]:
    parts = [pcm[at : at + 9600] for at in range(0, len(pcm), 9600)]
    events = [{"type": "speech.audio.delta", "audio": base64.b64encode(part).decode()} for part in parts]
    usage = {"output_tokens": round(SECONDS * CODES_A_SECOND)}
    return [json.dumps(event) for event in (*events, {"type": "speech.audio.done", "usage": usage})]


def chat_events(text: str) -> list[str]:
    def choice(delta: dict[str, str], reason: str | None) -> str:
        return json.dumps({"choices": [{"delta": delta, "finish_reason": reason}]})

    words = [choice({"content": part}, None) for part in text.partition(" ")]
    return [*words, choice({}, "stop"), "[DONE]"]


class Server:
    """A gateway whose answers are known; `spoil` says what is wrong with them."""

    def __init__(self) -> None:
        self.spoil = ""
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def log_message(self, *_: object) -> None:
                pass

            def do_POST(self) -> None:
                outer.answer(self, self.rfile.read(int(self.headers["Content-Length"])))

        self._http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._http.server_address[1]}/v1"
        threading.Thread(target=self._http.serve_forever, args=(0.02,), daemon=True).start()

    def answer(self, handler: BaseHTTPRequestHandler, raw: bytes) -> None:
        asked = json.loads(raw) if handler.headers["Content-Type"] == "application/json" else {}
        text = "Three nine." if self.spoil == "words" else "Three nine five."
        if handler.path.endswith("/speech"):
            pcm = PCM[: len(PCM) // 3] if self.spoil == "short" else PCM
            pcm = bytes(len(pcm)) if self.spoil == "silent" else pcm
            lines = speech_events(pcm) if asked.get("stream_format") == "sse" else None
            body = pcm if lines is None else b""
        elif asked.get("stream"):
            lines, body = chat_events(text), b""
        else:
            lines = None
            message = {"message": {"content": text}, "finish_reason": "stop"}
            heard = SAID[:10] if self.spoil == "words" else SAID
            codes = [1] * (3 if self.spoil == "words" else 20)
            body = json.dumps({"choices": [message], "text": heard, "codes": codes}).encode()
        if lines is not None:
            lines = lines[:-1] if self.spoil == "no end" else lines
            lines = (
                [*lines[:2], json.dumps({"error": {"message": "gone"}})] if self.spoil == "error" else lines
            )
            body = "".join(f"data: {line}\n\n" for line in lines).encode()
        handler.send_response(503 if self.spoil == "status" else 200)
        handler.send_header("Content-Length", str(len(body)))
        handler.end_headers()
        handler.wfile.write(body[: len(body) // 2] if self.spoil == "cut" else body)

    def close(self) -> None:
        self._http.shutdown()
        self._http.server_close()


def until(holds: Callable[[], bool]) -> None:
    while not holds():
        time.sleep(0.02)


@pytest.fixture
def server() -> Iterator[Server]:
    serving = Server()
    yield serving
    serving.close()


SPOILT = {
    "chat": ("status", "cut", "words"),
    "chat streamed": ("status", "cut", "words", "no end", "error"),
    "transcription": ("status", "cut", "words"),
    "tokens": ("status", "cut", "words"),
    "speech": ("status", "cut", "short", "silent"),
    "speech events": ("status", "cut", "short", "silent", "no end", "error"),
    "long speech": ("status", "cut", "short", "silent", "no end", "error"),
}


@pytest.mark.parametrize("kind", KINDS)
async def test_every_spoilt_answer_is_seen(server: Server, kind: str) -> None:
    learnt: dict[str, object] = {}
    async with httpx.AsyncClient() as http:
        caller = Caller(server.url, learnt, http)
        await KINDS[kind](caller)
        for spoil in SPOILT[kind]:
            server.spoil = spoil
            with pytest.raises((NotWhole, httpx.HTTPError)):
                await KINDS[kind](caller)


def test_the_load_counts_what_was_not_whole(server: Server) -> None:
    learnt = learn(server.url)
    with Load(server.url, learnt, clients=3) as load:
        until(lambda: len(load.outcomes) >= 6)
        assert load.broken == []
        server.spoil = "cut"
        told = len(load.outcomes)
        until(lambda: len(load.outcomes) >= told + 9)
    assert {outcome.verdict for outcome in load.broken} == {"failed", "truncated"}
    assert load.streams == 0
