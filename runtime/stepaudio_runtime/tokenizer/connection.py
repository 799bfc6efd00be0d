"""One WebSocket of a token stream: moves messages between client, protocol and models."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager

import numpy as np
from starlette.websockets import WebSocket, WebSocketDisconnect

from stepaudio_runtime.errors import StepAudioError
from stepaudio_runtime.tokenizer.batcher import Batcher
from stepaudio_runtime.tokenizer.session import Action, Bounds, Feed, Open, Say, Session
from stepaudio_runtime.tokenizer.stream import Stream

log = logging.getLogger(__name__)

MAX_AHEAD_S = 10.0
"""Seconds of audio taken from a client before the models have heard it; then its connection fills up."""


class Connection:
    """Serves one accepted WebSocket until its session is closed.

    `at_client` is entered while the models owe it nothing: it waits for its client's next message, and is no
    work. What it sends is the caller's to count.
    """

    def __init__(
        self,
        websocket: WebSocket,
        batcher: Batcher,
        bounds: Bounds,
        *,
        at_client: Callable[[], AbstractContextManager[None]] = contextlib.nullcontext,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._websocket = websocket
        self._batcher = batcher
        self._idle_s = bounds.idle_s
        self._at_client = at_client
        self._waits = contextlib.ExitStack()  # holds `at_client` while that is entered
        self._busy = 0  # pieces of audio that the models have not answered, and messages being sent
        self._clock = clock
        self._session = Session(bounds, clock())
        self._stream: Stream | None = None
        self._rate = 0
        self._waiting: list[Feed] = []
        self._came = asyncio.Event()
        self._went = asyncio.Event()
        self._closed = asyncio.Event()
        self._saying = asyncio.Lock()  # the two tasks' actions do not mix

    async def serve(self) -> None:
        """Until the session ends, the client leaves, or it says nothing for too long."""
        tasks = [asyncio.create_task(self._listen()), asyncio.create_task(self._work())]
        closed = asyncio.ensure_future(self._closed.wait())
        self._waits.enter_context(self._at_client())
        try:
            await asyncio.wait([*tasks, closed], return_when=asyncio.FIRST_COMPLETED)
            for task in tasks:
                error = task.exception() if task.done() else None
                if isinstance(error, Exception) and not isinstance(error, _GONE):
                    log.error("a stream failed", exc_info=error)
                    with contextlib.suppress(*_GONE):
                        await self._do(self._session.fail(error))
        finally:
            closed.cancel()
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, closed, return_exceptions=True)
            self._waits.close()

    def _owe(self, change: int) -> None:
        """Note that there are `change` more things to be done, or fewer, before it is the client's turn."""
        was_busy, self._busy = self._busy > 0, self._busy + change
        if self._busy and not was_busy:
            self._waits.close()
        elif was_busy and not self._busy:
            self._waits.enter_context(self._at_client())

    async def _listen(self) -> None:
        while True:
            deadline = self._session.deadline
            try:
                async with asyncio.timeout_at(None if deadline is None else self._loop_time(deadline)):
                    message = await self._websocket.receive()
            except TimeoutError:
                await self._do(self._session.silent(self._clock()))
                continue
            if message["type"] == "websocket.disconnect":
                raise WebSocketDisconnect
            now = self._clock()
            if message.get("text") is not None:
                await self._do(self._session.text(message["text"], now))
            else:
                await self._do(self._session.audio(message.get("bytes") or b"", now))
            while self._rate and sum(len(feed.samples) for feed in self._waiting) > MAX_AHEAD_S * self._rate:
                self._went.clear()
                await self._went.wait()
                self._session.now = self._clock()  # it could not say anything meanwhile

    def _loop_time(self, deadline: float) -> float:
        return asyncio.get_running_loop().time() + deadline - self._clock()

    async def _work(self) -> None:
        """Hand what has come to the models, all of it at a time, and say what they give."""
        while True:
            await self._came.wait()
            self._came.clear()
            stream = self._stream
            if stream is None:
                continue
            feeds, self._waiting = self._waiting, []
            self._went.set()
            samples = np.concatenate([feed.samples for feed in feeds])
            last = feeds[-1].last
            try:
                done = await self._batcher.run(lambda: stream.push(samples, last=last), urgent=True)  # noqa: B023
            except StepAudioError as error:
                await self._do(self._session.fail(error))
                return
            finally:
                self._owe(-len(feeds))
            stream.advance(done)
            linguistic, semantic = done.linguistic.ids.tolist(), done.semantic.ids.tolist()
            await self._do(self._session.tokens(linguistic, semantic, gain=stream.level.gain, last=last))

    async def _do(self, actions: Sequence[Action]) -> None:
        async with self._saying:
            for action in actions:
                if not self._closed.is_set():
                    await self._act(action)

    async def _act(self, action: Action) -> None:
        if isinstance(action, Open):
            self._rate = action.rate
            self._stream = Stream(self._batcher.tokenizer, action.rate, action.gain, action.windows)
        elif isinstance(action, Feed):
            self._waiting.append(action)
            self._owe(1)
            self._came.set()
        else:
            self._owe(1)
            try:
                # A client that does not read is as silent as one that does not write.
                async with asyncio.timeout(self._idle_s):
                    if isinstance(action, Say):
                        await self._websocket.send_text(json.dumps(action.event))
                    else:
                        await self._websocket.close(action.code, action.reason)
                        self._closed.set()
            finally:
                self._owe(-1)


_GONE = (WebSocketDisconnect, TimeoutError)
"""How a client leaves: by itself, or by no longer reading."""
