"""`POST /v1/chat/completions`: text and audio in; text, or speech with its transcript, out.

    recordings -> codes (tokenizer) -> prompt ids -> answer (chat) -> speech (tts) -> client

A stream carries the text as it is made. Spoken answers follow OpenAI's shape: `content` is null, the text is
the audio's transcript, and a stream carries it before the audio, which is 24 kHz PCM; `audio_ids.py` has what
their ids mean.
"""

import base64
import time
import uuid
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from stepaudio_runtime.audio.encoding import Format
from stepaudio_runtime.chat.completion import Sampling
from stepaudio_runtime.codec.chat_template import Turn
from stepaudio_runtime.codec.controls import Reading
from stepaudio_runtime.codec.tools import Spoken, ToolCallReader
from stepaudio_runtime.contract import Component
from stepaudio_runtime.errors import InputError
from stepaudio_runtime.gateway.audio_ids import KEPT_S, new_id, words_part
from stepaudio_runtime.gateway.catalogue import Catalogue
from stepaudio_runtime.gateway.conversation import Message, conversation_key, parse_messages
from stepaudio_runtime.gateway.engine import Answer, Engine, Usage, spoken_text
from stepaudio_runtime.gateway.json_body import read_json
from stepaudio_runtime.gateway.media import Media
from stepaudio_runtime.gateway.schemas import AudioOutput, ChatRequest, manner_of
from stepaudio_runtime.gateway.sound import SpeechLine
from stepaudio_runtime.gateway.stream import DONE, Stream, note_headers, sse, sse_error
from stepaudio_runtime.gateway.tools import Calls, Offer

PIECE = 24_000
"""Most bytes of PCM in one event of a stream: half a second."""


class ChatRoute:
    """Serves chat completions. `max_new_tokens` bounds an answer that its request does not bound."""

    def __init__(
        self, engine: Engine, media: Media, catalogue: Catalogue, *, max_new_tokens: int, reading: Reading
    ) -> None:
        self._engine = engine
        self._media = media
        self._catalogue = catalogue
        self._max_new_tokens = max_new_tokens
        self._reading = reading

    async def __call__(self, request: Request) -> Response:
        """Answer one conversation."""
        body = await read_json(request, ChatRequest, self._media)
        body.check()
        self._catalogue.require(body.model, Component.CHAT)
        if body.speaks:
            self._catalogue.require_pool(Component.TTS, "modalities")
        notes = self._notes(body.audio) if body.speaks and body.audio else {}
        offer = body.offer
        turns, key = await self._heard(body)
        task = _Task(body, offer.turns(turns), key, self._sampling(body), offer)
        if body.stream:
            return Stream(lambda: self._stream(task), "text/event-stream", sse_error, headers=notes)
        return JSONResponse(await self._whole(task), headers=notes)

    async def _heard(self, body: ChatRequest) -> tuple[list[Turn], bytes]:
        """The conversation with its recordings as codes, and its key; of the recordings nothing is kept."""
        messages, key = await self._media.run(lambda: _conversation(body))  # it may hold much audio
        heard = any(not isinstance(part, str) for message in messages for part in message.parts)
        needed = {Component.TOKENIZER: heard, Component.CHAT: True, Component.TTS: body.speaks}
        self._engine.rouse([pool for pool, is_needed in needed.items() if is_needed])
        return await self._engine.turns(messages), key

    def _notes(self, wanted: AudioOutput) -> dict[str, str]:
        """Check how the answer is to be spoken before there is one."""
        try:
            return note_headers(wanted.direct("an answer", self._reading).notes)
        except InputError as fault:
            raise InputError(fault.message, param=f"audio.{fault.param}", code=fault.code) from fault

    def _sampling(self, body: ChatRequest) -> Sampling:
        defaults = Sampling(body.max_completion_tokens or body.max_tokens or self._max_new_tokens)
        return Sampling(
            max_tokens=defaults.max_tokens,
            temperature=defaults.temperature if body.temperature is None else body.temperature,
            top_p=defaults.top_p if body.top_p is None else body.top_p,
            seed=body.seed,
            frequency_penalty=body.frequency_penalty or 0.0,
            presence_penalty=body.presence_penalty or 0.0,
        )

    def _answer(self, task: "_Task") -> AbstractAsyncContextManager[Answer]:
        begun, stops = task.offer.begun, task.body.stops
        return self._engine.answer(task.turns, task.sampling, stops=stops, key=task.key, begun=begun)

    async def _whole(self, task: "_Task") -> dict[str, Any]:
        text = ""
        async with self._answer(task) as answer:
            async for said in task.read(answer):
                text += said.text
                task.calls.take(said.calls)
        message: dict[str, Any] = {"role": "assistant", "content": text, "refusal": None}
        if task.calls.made:
            message |= {"content": text or None, "tool_calls": task.calls.made}
        # An answer of nothing has no sound: it stays an empty text.
        if task.body.speaks and task.body.audio and (answer.codes or _said(task.body.audio, text)):
            message |= {"content": None, "audio": await self._audio(task, task.body.audio, answer, text)}
        choice = {
            "index": 0,
            "message": message,
            "logprobs": None,
            "finish_reason": task.calls.finish_reason(answer.finish_reason),
        }
        return task.frame("chat.completion") | {"choices": [choice], "usage": usage_object(answer.usage)}

    async def _audio(self, task: "_Task", wanted: AudioOutput, answer: Answer, text: str) -> dict[str, Any]:
        to = Format.PCM if wanted.format == "pcm16" else Format(wanted.format)
        async with self._engine.spoken_answer(
            _said(wanted, text), answer.codes, voice=self._catalogue.voice(wanted.voice), seed=task.body.seed
        ) as spoken:
            pcm = await self._engine.pcm(spoken)
        file = await self._media.encode(pcm, spoken.rate, to, manner_of(wanted), marked=spoken.marked)
        data = await self._media.run(lambda: base64.b64encode(file).decode())
        return {
            "id": task.audio_id + words_part(text),
            "data": data,
            "transcript": text,
            "expires_at": task.created + KEPT_S,
        }

    async def _stream(self, task: "_Task") -> AsyncIterator[bytes]:
        speaks, text = task.body.speaks, ""
        async with self._answer(task) as answer:
            first = True
            async for said in task.read(answer):
                if first:
                    first = False
                    yield task.chunk(task.opening())
                if said.text:
                    text += said.text
                    piece = {"audio": {"transcript": said.text}} if speaks else {"content": said.text}
                    yield task.chunk(piece)
                if calls := task.calls.take(said.calls):
                    yield task.chunk({"tool_calls": calls})
            if first:
                yield task.chunk(task.opening())
        if speaks and task.body.audio and (answer.codes or _said(task.body.audio, text)):
            async for data in self._spoken(task, task.body.audio, answer, text):
                yield task.chunk({"audio": {"data": base64.b64encode(data).decode()}})
            yield task.chunk({"audio": {"id": words_part(text), "expires_at": task.created + KEPT_S}})
        yield task.chunk({}, finish_reason=task.calls.finish_reason(answer.finish_reason))
        if task.wants_usage:
            yield sse(
                task.frame("chat.completion.chunk") | {"choices": [], "usage": usage_object(answer.usage)}
            )
        yield DONE

    async def _spoken(
        self, task: "_Task", wanted: AudioOutput, answer: Answer, text: str
    ) -> AsyncIterator[bytes]:
        """The answer's speech as 24 kHz PCM as it is made, in pieces of at most half a second."""
        voice = self._catalogue.voice(wanted.voice)
        said = _said(wanted, text)
        async with self._engine.spoken_answer(said, answer.codes, voice=voice, seed=task.body.seed) as spoken:
            line = SpeechLine(spoken.rate, Format.PCM, manner_of(wanted), marked=spoken.marked)
            async for pcm in self._media.stream(spoken.chunks(), line):
                for start in range(0, len(pcm), PIECE):
                    yield pcm[start : start + PIECE]
        self._engine.count_speech(line.seconds)


def _conversation(body: ChatRequest) -> tuple[list[Message], bytes]:
    """The messages, taken out of `body`, and the key by which they stay on one replica. Raises InputError."""
    messages = parse_messages(body.messages)
    body.messages.clear()  # it lives as long as the answer is made, and may hold a recording of 60 MB
    return messages, conversation_key(messages, body.prompt_cache_key)


def _said(wanted: AudioOutput, text: str) -> str:
    """The answer's `text` with its tags as the TTS pod takes it, or nothing where it holds no word.

    Always read compatibly: what the model begins its answer with is not the client's fault.
    """
    words = spoken_text(text)
    if not words.strip():
        return ""
    try:
        return wanted.direct(words, Reading.COMPATIBLE).wire
    except InputError:  # tags and not a word
        return ""


class _Task:
    """One request on its way: what was asked, and the names of its answer."""

    def __init__(
        self, body: ChatRequest, turns: list[Turn], key: bytes, sampling: Sampling, offer: Offer
    ) -> None:
        self.body = body
        self.offer = offer
        self.calls = Calls(offer)
        self.turns = turns
        self.key = key
        self.sampling = sampling
        self.id = f"chatcmpl-{uuid.uuid4().hex}"
        self.audio_id = new_id()
        self.created = int(time.time())

    async def read(self, answer: Answer) -> AsyncIterator[Spoken]:
        """The answer as words and calls; without tools nothing is taken for a call."""
        if not self.offer.names:
            async for delta in answer.deltas():
                yield Spoken(delta.text)
            return
        reader = ToolCallReader(self.offer.names)
        reader.feed(self.offer.begun)
        async for delta in answer.deltas():
            yield reader.feed(delta.text)
        yield reader.finish()

    @property
    def wants_usage(self) -> bool:
        """Whether a stream ends with the usage."""
        return bool(self.body.stream_options and self.body.stream_options.include_usage)

    def frame(self, kind: str) -> dict[str, Any]:
        """The fields that every object of this answer has."""
        return {"id": self.id, "object": kind, "created": self.created, "model": self.body.model}

    def opening(self) -> dict[str, Any]:
        """The first delta."""
        if self.body.speaks:
            return {"role": "assistant", "content": None, "audio": {"id": self.audio_id, "transcript": ""}}
        return {"role": "assistant", "content": ""}

    def chunk(self, delta: dict[str, Any], finish_reason: str | None = None) -> bytes:
        """One event of the stream."""
        choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish_reason}
        usage = {"usage": None} if self.wants_usage else {}
        return sse(self.frame("chat.completion.chunk") | {"choices": [choice]} | usage)


def usage_object(usage: Usage) -> dict[str, Any]:
    """OpenAI's usage object."""
    return {
        "prompt_tokens": usage.prompt,
        "completion_tokens": usage.completion,
        "total_tokens": usage.prompt + usage.completion,
        "prompt_tokens_details": {"audio_tokens": usage.prompt_audio},
        "completion_tokens_details": {"audio_tokens": usage.completion_audio},
    }
