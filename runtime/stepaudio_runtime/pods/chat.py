"""The chat pod: an agent that owns vLLM's OpenAI server as a child process and stands in front of it.

vLLM listens on a unix socket only. The agent verifies the model folder before it starts vLLM, answers
health while vLLM loads, admits and counts requests, streams them through unbuffered, and lets a client's
disconnect reach vLLM, which aborts the request. It drains on SIGTERM before it ends vLLM, and ends itself
when vLLM has died, so that the kubelet starts both anew.
"""

import asyncio
import contextlib
import hashlib
import logging
import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import httpx
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route as HttpRoute
from starlette.types import ASGIApp, Receive, Scope, Send

from stepaudio_runtime.bodies import ModelInfo
from stepaudio_runtime.contract import TYPE_OCTETS, Route
from stepaudio_runtime.errors import InputError, StepAudioError, Unavailable
from stepaudio_runtime.health.answers import ERROR_HANDLERS
from stepaudio_runtime.health.canary import Canary, CanaryPlan, Ids, check_ids
from stepaudio_runtime.health.heartbeat import follow_steps
from stepaudio_runtime.health.metrics import PodMetrics
from stepaudio_runtime.health.routes import Admission, health_routes
from stepaudio_runtime.health.state import PodState
from stepaudio_runtime.pieces import pieces
from stepaudio_runtime.service.body import json_object, read_body
from stepaudio_runtime.service.child import Child
from stepaudio_runtime.service.disconnect import ClientGone, run_while_connected
from stepaudio_runtime.service.engine import EngineFailed

log = logging.getLogger(__name__)

MAX_BODY_BYTES = 8 << 20  # a prompt of 32,768 ids is under 300 kB of JSON
POLL_S = 0.25  # between looks at a loading server
STOP_TIMEOUT_S = 15.0  # for vLLM to end by itself
CANARY_TOKENS = 8
SHARDS = re.compile(r"checkpoint shards:\s+\d+% Completed \| (\d+)/(\d+)")
HEADERS_PASSED = ("content-type", "retry-after", "x-request-id")


@dataclass(frozen=True)
class ChatModel:
    """A verified chat model: its folder, the size of its files, and what the gateway must know of it."""

    folder: Path
    bytes_total: int
    info: ModelInfo
    tokenizer_model: bytes  # the SentencePiece file


class ChatService:
    """Owns the engine; `verify` reads the model folder (blocking), `command` and `env` start the server."""

    def __init__(
        self,
        state: PodState,
        *,
        verify: Callable[[], ChatModel],
        command: Callable[[ChatModel, Path], list[str]],
        env: Mapping[str, str],
        run_dir: Path,
        canary: CanaryPlan,
    ) -> None:
        self.state = state
        self.model: ChatModel | None = None
        self.failed: asyncio.Future[StepAudioError] = asyncio.get_running_loop().create_future()
        self._verify = verify
        self._command = command
        self._env = env
        # A socket's path is limited to 107 bytes, and two agents may share a folder outside of containers.
        self._socket = run_dir / f"chat-{os.getpid()}.sock"
        self._child: Child | None = None
        self._canary = Canary(state, self._ask, canary)
        self._tasks: list[asyncio.Task[None]] = []
        self.http = httpx.AsyncClient(
            transport=httpx.AsyncHTTPTransport(
                uds=str(self._socket), limits=httpx.Limits(max_connections=None)
            ),
            base_url="http://vllm",
            timeout=httpx.Timeout(
                None, connect=10
            ),  # a long answer is not a failure; stalls are health's task
        )

    async def start(self) -> None:
        """Verify, start vLLM, wait until it answers, ask it for a few tokens."""
        self.state.load("verifying the model folder")
        model = await asyncio.to_thread(self._verify)
        self.model = model
        self.state.load_progress(0, model.bytes_total)
        self.state.load("vLLM is loading the model")
        self._socket.parent.mkdir(parents=True, exist_ok=True)
        self._socket.unlink(missing_ok=True)
        child = await Child.start(self._command(model, self._socket), self._env, "vllm", self._note_shards)
        self._child = child
        ended = asyncio.create_task(child.wait())
        answering = asyncio.create_task(self._wait_until_answering())
        try:
            await asyncio.wait({ended, answering}, return_when=asyncio.FIRST_COMPLETED)
            if ended.done():
                raise ended_child(child, ended.result())
            await answering
        finally:
            answering.cancel()
        self._tasks.append(asyncio.create_task(self._watch_child(child, ended)))
        self.state.load("the canary is running")
        await self._canary.prove()
        steps = follow_steps(self.state, self.engine_metrics, self.state.stall_timeout_s)
        self._tasks += [asyncio.create_task(steps), asyncio.create_task(self._canary.run(self.failed))]

    async def stop(self) -> None:
        """End vLLM."""
        for task in self._tasks:
            task.cancel()
        if self._child is not None:
            await self._child.stop(STOP_TIMEOUT_S)
        await self.http.aclose()
        self._socket.unlink(missing_ok=True)

    async def engine_metrics(self) -> bytes:
        """vLLM's own exposition text; nothing while it does not answer."""
        try:
            answer = await self.http.get(Route.METRICS, timeout=5)
        except httpx.HTTPError:
            return b""
        # prometheus_client's process_* series are in our own text already, for our own process.
        lines = answer.content.splitlines(keepends=True) if answer.status_code == 200 else []
        return b"".join(
            line for line in lines if b"process_" not in line[:24] and b"python_" not in line[:24]
        )

    async def _wait_until_answering(self) -> None:
        while True:
            with contextlib.suppress(httpx.HTTPError):
                if (await self.http.get("/health", timeout=5)).status_code == 200:
                    return
            await asyncio.sleep(POLL_S)

    def _note_shards(self, line: str) -> None:
        """vLLM says how many of the files it has read."""
        if (found := SHARDS.search(line)) is not None and self.model is not None:
            done, of = int(found[1]), max(int(found[2]), 1)
            self.state.load_progress(self.model.bytes_total * min(done, of) // of, self.model.bytes_total)

    async def _ask(self) -> Ids:
        """The ids that follow a known prompt."""
        info = _loaded(self).info
        request = {
            "model": info["model"],
            "prompt": [info["bos"], info["bot"], info["eot"]],
            "max_tokens": CANARY_TOKENS,
            "min_tokens": CANARY_TOKENS,
            "temperature": 0,
            "return_token_ids": True,
        }
        try:
            answer = await self.http.post(Route.COMPLETIONS, json=request)
        except httpx.TransportError as error:
            raise EngineFailed(f"vLLM does not answer the canary: {type(error).__name__}") from error
        if answer.status_code != 200:
            raise EngineFailed(f"vLLM answered the canary with {answer.status_code}: {answer.text[:300]}")
        ids = tuple(answer.json()["choices"][0].get("token_ids") or ())
        return check_ids(ids, length=CANARY_TOKENS, vocabulary=info["vocab_size"])

    async def _watch_child(self, child: Child, ended: "asyncio.Task[int]") -> None:
        status = await ended
        if not self.failed.done():
            self.failed.set_result(ended_child(child, status))


def ended_child(child: Child, status: int) -> EngineFailed:
    """What is said of an engine that has ended by itself."""
    how = f"was ended by signal {-status}" if status < 0 else f"exited with status {status}"
    line = child.last_error()
    return EngineFailed(f"vLLM {how}{': ' + line if line else ''}; the pod's log has the rest")


class CompletionsProxy:
    """ASGI endpoint that passes one request to vLLM and its answer back, chunk by chunk."""

    def __init__(self, service: ChatService) -> None:
        self._service = service

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one POST."""
        with contextlib.suppress(ClientGone):
            body = await read_body(Request(scope, receive), MAX_BODY_BYTES)
            check_prompt(json_object(body).get("prompt"), _loaded(self._service).info["vocab_size"])
            await run_while_connected(receive, self._forward(body, send))

    async def _forward(self, body: bytes, send: Send) -> None:
        state = self._service.state
        headers = {"content-type": "application/json", "content-length": str(len(body))}
        request = self._service.http.build_request(
            "POST", Route.COMPLETIONS, content=pieces(body), headers=headers
        )
        try:
            upstream = await self._service.http.send(request, stream=True)
        except httpx.TransportError as error:
            raise Unavailable(f"vLLM does not answer: {type(error).__name__}") from error
        try:
            passed = [(k, v) for k, v in upstream.headers.items() if k in HEADERS_PASSED]
            answered = [(k.encode(), v.encode()) for k, v in passed]
            await send({"type": "http.response.start", "status": upstream.status_code, "headers": answered})
            async for chunk in upstream.aiter_raw():
                state.beat()
                await send({"type": "http.response.body", "body": chunk, "more_body": True})
            await send({"type": "http.response.body", "body": b""})
        except httpx.TransportError as error:
            # The status line is out: only a body that breaks off can tell that this is not the end.
            log.warning("vLLM broke off its answer: %s", type(error).__name__)
        finally:
            await upstream.aclose()


def check_prompt(prompt: object, vocab_size: int) -> None:
    """Raise InputError unless `prompt` is a list of ids of the vocabulary.

    Without a tokenizer vLLM does not check them, and a single one beyond the embeddings ends the engine.
    """
    if not isinstance(prompt, list) or not prompt or not all(type(id_) is int for id_ in prompt):
        raise InputError("prompt is not a list of token ids", param="prompt", code="invalid_prompt")
    if not 0 <= min(prompt) <= max(prompt) < vocab_size:
        wrong = next(id_ for id_ in prompt if not 0 <= id_ < vocab_size)
        raise InputError(
            f"prompt holds {wrong}, which is not an id in 0..{vocab_size - 1}",
            param="prompt",
            code="invalid_prompt",
        )


def chat_app(service: ChatService) -> ASGIApp:
    """The pod's application."""
    state = service.state
    metrics = PodMetrics(state)

    async def model_info(_request: Request) -> Response:
        return JSONResponse(_loaded(service).info)

    async def tokenizer_model(_request: Request) -> Response:
        content = _loaded(service).tokenizer_model
        etag = f'"{hashlib.sha256(content).hexdigest()}"'
        return Response(content, headers={"ETag": etag}, media_type=TYPE_OCTETS)

    app = Starlette(
        routes=[
            *health_routes(state, metrics, service.engine_metrics),
            HttpRoute(Route.MODEL_INFO, model_info),
            HttpRoute(Route.TOKENIZER_MODEL, tokenizer_model),
            HttpRoute(Route.COMPLETIONS, CompletionsProxy(service), methods=["POST"]),
        ],
        exception_handlers=ERROR_HANDLERS,
    )
    return Admission(app, state, metrics, frozenset({Route.COMPLETIONS}))


def _loaded(service: ChatService) -> ChatModel:
    if service.model is None:
        raise Unavailable("the model folder is being verified")
    return service.model
