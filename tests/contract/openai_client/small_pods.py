"""Small pods that speak the wire contract over real HTTP. Their tiny models answer by what they get:

- tokenizer: the first code is the wave's frequency in Hz (zero crossings), then one code for every 24 ms;
- chat: obeys the last thing said (`say`, `codes`, `bytes`, `count`, `break`, `fault`); to audio it answers
  "heard N codes at F Hz";
- tts: a tone, 50 ms a character of text at 440 Hz, or 24 ms a code at 300 Hz, in two pieces ("halting" text
  waits between them, "break" breaks off there).
Each records what it was asked, so a test can compare what arrived with what was sent.
"""

from __future__ import annotations

import asyncio
import hashlib
import io
import json
import re
import socket
import threading
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import sentencepiece
import uvicorn
from fastapi import FastAPI, Request, Response
from fastapi.responses import JSONResponse, StreamingResponse

EOT, BOT, BOS = 3, 4, 1
CODES = 5120
TTS_RATE = 22050
CORPUS = (
    "the answer is short and clear. say hello to the world! count to ten. heard codes at Hz "
    "human assistant system 你好 世界 请记录下你所听到的语音内容。"
)


def small_vocabulary() -> bytes:
    """A SentencePiece model with byte fallback and the markers' ids of the contract."""
    out = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter([*CORPUS.split(), *CORPUS] * 20),
        model_writer=out,
        vocab_size=420,
        hard_vocab_limit=False,
        model_type="bpe",
        byte_fallback=True,
        pad_id=0,
        bos_id=BOS,
        eos_id=2,
        unk_id=5,
        control_symbols=["<|EOT|>", "<|BOT|>"],
        user_defined_symbols=["<audio_7>", "\n"],
        minloglevel=2,
    )
    return out.getvalue()


@dataclass
class Pod:
    """A running fake: where it is, what it was asked, and how to make it misbehave."""

    component: str
    url: str = ""
    requests: list[dict[str, Any]] = field(default_factory=list)
    aborted: list[dict[str, Any]] = field(default_factory=list)
    refuse: tuple[int, dict[str, str]] | None = None  # status and headers of every answer
    created: set[str] = field(default_factory=set)  # voices of a tts pod that are not its own
    hold: threading.Event = field(default_factory=threading.Event)  # answers wait for it while clear
    server: uvicorn.Server | None = None

    def __post_init__(self) -> None:
        self.hold.set()


def start(pod: Pod, app: FastAPI) -> Pod:
    """Serve `app` on a free port of loopback in a thread."""
    listener = socket.create_server(("127.0.0.1", 0))
    pod.url = f"http://127.0.0.1:{listener.getsockname()[1]}"
    pod.server = uvicorn.Server(uvicorn.Config(app, log_level="error", lifespan="off"))
    threading.Thread(target=pod.server.run, kwargs={"sockets": [listener]}, daemon=True).start()
    while not pod.server.started:
        time.sleep(0.01)
    return pod


def refusal(pod: Pod) -> Response | None:
    if pod.refuse is None:
        return None
    status, headers = pod.refuse
    error = {"message": "refused by the test", "type": "test", "param": None, "code": None}
    return JSONResponse({"error": error}, status, headers)


async def held(pod: Pod) -> None:
    while not pod.hold.is_set():  # noqa: ASYNC110 - set by another thread
        await asyncio.sleep(0.01)


def tokenizer_pod() -> Pod:
    pod, app = Pod("tokenizer"), FastAPI()

    @app.post("/v1/audio/tokens")
    async def tokens(request: Request, rate: int, trim: int = 0, gain: float | None = None) -> Response:
        if (refused := refusal(pod)) is not None:
            return refused
        wave = np.frombuffer(await request.body(), "<f4")
        seconds = len(wave) / rate
        asked = {"rate": rate, "trim": trim, "seconds": round(seconds, 3)}
        pod.requests.append(asked if gain is None else asked | {"gain": gain})
        await held(pod)
        if seconds < 0.12:
            error = {"message": "too short for a code", "type": "invalid_request_error"}
            return JSONResponse({"error": {**error, "param": "audio", "code": "audio_too_short"}}, 400)
        crossings = int(np.count_nonzero(np.diff(np.signbit(wave))))
        codes = [min(1023, round(crossings / 2 / seconds)), *range(1024, 1024 + int(seconds / 0.024) - 1)]
        return JSONResponse({"codes": codes, "linguistic": 1, "semantic": 1, "duration_s": seconds})

    return start(pod, app)


class TinyChat:
    """The fake chat model: ids in, ids out."""

    def __init__(self, model: bytes) -> None:
        self.text = sentencepiece.SentencePieceProcessor(model_proto=model)
        self.offset = self.text.get_piece_size()

    def answer(self, prompt: list[int]) -> list[int]:
        turns: list[list[int]] = []
        for id_ in prompt:
            if id_ == BOT:
                turns.append([])
            elif id_ != EOT:
                turns[-1].append(id_)
        said = turns[-2]  # the last turn is the assistant's, left open
        audio = [id_ - self.offset for id_ in said if id_ >= self.offset]
        if audio:
            return [*self.text.encode(f"heard {len(audio)} codes at {audio[0]} Hz"), EOT]
        line = self.text.decode(said).partition("\n")[2]
        command, _, rest = line.partition(" ")
        if command == "codes":
            return [*(self.offset + int(n) for n in rest.split()), EOT]
        if command == "mixed":  # text around audio
            return [*self.text.encode("hello"), self.offset + 5, *self.text.encode("world"), EOT]
        if command == "bytes":
            return [self.text.piece_to_id(f"<0x{byte:02X}>") for byte in bytes.fromhex(rest)] + [EOT]
        if command == "count":
            return self.text.encode(" ".join("hello" for _ in range(int(rest))))
        return [*self.text.encode(rest if command == "say" else f"{command} {rest}"), EOT]


def chat_pod(model: bytes, name: str = "tiny", max_model_len: int = 600) -> Pod:
    pod, app, tiny = Pod("chat"), FastAPI(), TinyChat(model)
    info = {
        "model": name,
        "audio_offset": tiny.offset,
        "vocab_size": tiny.offset + CODES,
        "bos": BOS,
        "eot": EOT,
        "bot": BOT,
        "max_model_len": max_model_len,
    }

    @app.get("/stepaudio/model")
    async def model_info() -> dict[str, Any]:
        return info

    @app.get("/stepaudio/tokenizer.model")
    async def tokenizer() -> Response:
        etag = f'"{hashlib.sha256(model).hexdigest()}"'
        return Response(model, media_type="application/octet-stream", headers={"ETag": etag})

    @app.post("/v1/completions")
    async def completions(request: Request) -> Response:
        if (refused := refusal(pod)) is not None:
            return refused
        body = await request.json()
        pod.requests.append(body)
        ids = tiny.answer(body["prompt"])
        last = ids[: body["max_tokens"]]
        said = tiny.text.decode([id_ for id_ in body["prompt"] if id_ < tiny.offset])

        async def events() -> AsyncIterator[str]:
            done = False
            try:
                for number, id_ in enumerate(last):
                    await held(pod)
                    if "break" in said and number == 2:
                        raise RuntimeError("the test breaks this connection")
                    if "fault" in said and number == 2:
                        yield 'data: {"error": {"message": "engine fault", "code": 500}}\n\n'
                        return
                    if "slow" in said:
                        await asyncio.sleep(0.02)
                    ended = number == len(last) - 1
                    reason = ("stop" if id_ == EOT else "length") if ended else None
                    choice = {"index": 0, "text": "", "token_ids": [id_], "finish_reason": reason}
                    yield f"data: {json.dumps({'choices': [choice]})}\n\n"
                yield "data: [DONE]\n\n"
                done = True
            finally:
                if not done:
                    pod.aborted.append(body)

        return StreamingResponse(events(), media_type="text/event-stream")

    return start(pod, app)


def tts_pod() -> Pod:
    pod, app = Pod("tts"), FastAPI()

    @app.post("/v1/speech")
    async def speech(request: Request) -> Response:
        if (refused := refusal(pod)) is not None:
            return refused
        body = await request.json()
        pod.requests.append(body)
        if "halting" not in body.get("input", ""):
            await held(pod)
        if re.search(r"<\|\w+\|>", body.get("input", "")) or len(body.get("input", "")) > 60:
            code = "input_too_long" if len(body["input"]) > 60 else "reserved_text"
            error = {"message": "not to be spoken", "type": "invalid_request_error"}
            return JSONResponse({"error": {**error, "param": "input", "code": code}}, 400)
        if "①" in body.get("input", ""):  # as what has a number's name and no sound
            error = {"message": "nothing to speak", "type": "invalid_request_error"}
            return JSONResponse({"error": {**error, "param": "input", "code": "empty_input"}}, 400)
        if body.get("voice") not in (None, "lulu", *pod.created):
            error = {"message": "no such voice", "type": "invalid_request_error"}
            return JSONResponse({"error": {**error, "param": "voice", "code": "unknown_voice"}}, 400)
        codes = len(body.get("codes") or ())
        seconds, hertz = (codes * 0.024, 300) if codes else (len(body["input"]) * 0.05, 440)
        t = np.arange(round(seconds * TTS_RATE)) / TTS_RATE
        tone = np.sin(2 * np.pi * hertz * t)
        if "seconds" in body.get("input", ""):  # with overtones, for what works on the whole band
            tone = np.sum([np.sin(2 * np.pi * 110 * n * t**1.01) / n for n in range(1, 60)], axis=0) / 2
        pcm = np.round(tone * 16000).clip(-32768, 32767).astype("<i2").tobytes()
        headers = {"X-Sample-Rate": str(TTS_RATE), "X-Text-Tokens": "5"}
        if body.get("voice") in pod.created:
            headers["X-Created-Voice"] = "1"
        said = body.get("input", "")

        async def pieces() -> AsyncIterator[bytes]:
            done = False
            try:
                yield pcm[: len(pcm) // 2 + 1]  # in the middle of a sample
                if "break" in said:
                    raise RuntimeError("the test breaks this connection")
                if "halting" in said:
                    await held(pod)
                yield pcm[len(pcm) // 2 + 1 :]
                done = True
            finally:
                if not done:
                    pod.aborted.append(body)

        return StreamingResponse(
            pieces(), headers=headers, media_type=f"audio/L16; rate={TTS_RATE}; channels=1"
        )

    @app.get("/v1/voices")
    async def voices() -> dict[str, Any]:
        return {"data": [{"id": "lulu", "name": "lulu"}]}

    return start(pod, app)
