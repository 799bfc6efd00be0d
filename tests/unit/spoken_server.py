"""An OpenAI-compatible server on loopback that really speaks (espeak-ng) and listens (pocketsphinx)."""

from __future__ import annotations

import base64
import json
import socket
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest
import uvicorn
from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse, Response, StreamingResponse

from stepaudio_runtime.audio.encoding import Format, encode
from stepaudio_runtime.audio.files import decode
from stepaudio_runtime.engine.espeak import Espeak
from stepaudio_runtime.engine.judge import EnglishJudge
from stepaudio_runtime.engine.speech import STYLES, SpeechRequest
from stepaudio_runtime.errors import InputError

KEY = "a key"


@dataclass
class Server:
    """`faults` are answered first, each once: a status, with its headers; `asked` are the bodies."""

    url: str
    faults: list[tuple[int, dict[str, str]]] = field(default_factory=list)
    asked: list[dict[str, Any]] = field(default_factory=list)

    def app(self) -> FastAPI:
        app = FastAPI()
        espeak, judge, lock = Espeak(), EnglishJudge(), threading.Lock()

        @app.middleware("http")
        async def refuse(request: Request, proceed):
            if request.headers.get("authorization") != f"Bearer {KEY}":
                return JSONResponse({"error": {"message": "no key"}}, 401)
            if self.faults:
                status, headers = self.faults.pop(0)
                return JSONResponse({"error": {"message": "a fault"}}, status, headers)
            return await proceed(request)

        @app.post("/v1/audio/speech")
        def speak(body: dict[str, Any]) -> Response:
            self.asked.append(body)
            tag, _, text = body["input"].rpartition(")")
            try:
                with lock:
                    wave = espeak.speak(
                        SpeechRequest(text, body["voice"], STYLES[tag.strip("(")], body["seed"])
                    )
            except InputError as error:
                return JSONResponse({"error": {"message": str(error)}}, 400)
            file = encode(wave.samples, wave.rate, Format.WAV)

            def in_two() -> Iterator[bytes]:
                yield file[:44]
                time.sleep(0.05)
                yield file[44:2000]
                time.sleep(0.1)
                yield file[2000:]

            return StreamingResponse(in_two(), media_type="audio/wav")

        @app.post("/v1/audio/transcriptions")
        async def listen(request: Request) -> dict[str, str]:
            async with request.form() as form:
                data = await form["file"].read()
            with lock:
                words = judge.words(decode(data, max_seconds=60))
            return {"text": words.capitalize() + "."}

        @app.post("/v1/chat/completions")
        def chat(body: dict[str, Any]) -> dict[str, Any]:
            """Says back what it heard last; as the judge, is pleased by that, and annoyed by nothing else."""
            self.asked.append(body)
            last = body["messages"][-1]["content"]
            if isinstance(last, str):
                user, said = last.splitlines()[-2:]
                good = user.partition(": ")[2] == said.partition(": ")[2]
                verdict = {"factual": good, "relevant": good, "score": 5 if good else 1}
                answer = f"My verdict: {json.dumps(verdict)}"
            else:
                data = base64.b64decode(last[0]["input_audio"]["data"])
                with lock:
                    answer = judge.words(decode(data, max_seconds=60))
            return {"choices": [{"message": {"role": "assistant", "content": answer}}]}

        return app


@pytest.fixture(scope="session")
def running() -> Iterator[Server]:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    server = Server(f"http://127.0.0.1:{port}")
    served = uvicorn.Server(uvicorn.Config(server.app(), port=port, log_level="error"))
    thread = threading.Thread(target=served.run, daemon=True)
    thread.start()
    deadline = time.monotonic() + 30
    while not served.started and time.monotonic() < deadline:
        time.sleep(0.01)
    yield server
    served.should_exit = True
    thread.join(10)


@pytest.fixture
def server(running: Server) -> Server:
    running.faults.clear()
    running.asked.clear()
    return running
