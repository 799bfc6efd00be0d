"""What the pods do for the routes: audio to codes, a conversation to an answer, an answer to speech."""

import asyncio
import json
import re
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace

from stepaudio_runtime.audio.files import Wave
from stepaudio_runtime.bodies import AudioTokens, SpeechRequest
from stepaudio_runtime.chat.answer import AnswerReader, Delta
from stepaudio_runtime.chat.completion import CompletionBroken, Sampling, completion_body, read_steps
from stepaudio_runtime.chat.model import ChatModel, ModelCache, build_model
from stepaudio_runtime.chat.vocabulary import VocabularyError
from stepaudio_runtime.codec.chat_template import Part, Turn
from stepaudio_runtime.codec.tts_prompt import after_break
from stepaudio_runtime.contract import (
    AUDIO_CODES,
    HEADER_CREATED_VOICE,
    HEADER_ETAG,
    HEADER_SAMPLE_RATE,
    HEADER_TEXT_TOKENS,
    MAX_RATE,
    MIN_RATE,
    Component,
    Route,
)
from stepaudio_runtime.errors import AudioError, InputError, OutputError
from stepaudio_runtime.gateway.conversation import Message
from stepaudio_runtime.gateway.errors import UpstreamFailed
from stepaudio_runtime.gateway.media import Media
from stepaudio_runtime.gateway.metrics import GatewayMetrics
from stepaudio_runtime.gateway.routing import Endpoint
from stepaudio_runtime.gateway.sound import BYTES_PER_SAMPLE
from stepaudio_runtime.gateway.upstream import Call, Prepare, Reply, Upstreams

CHARS_PER_TOKEN = 64
"""Far more characters than one token ever holds: longer text is refused without being encoded."""

MARKER = re.compile(r"<audio_\d+>|<\|\w+\|>|</?s>|<unk>|<pad>")

TOO_LONG = frozenset({"input_too_long", "codes_too_long"})
"""Codes by which the TTS pod says that there is too much to speak."""

THREAD_FROM_CHARS = 2_000
"""Shorter prompts are encoded in place: a thread's hand-over would cost more."""


@dataclass(frozen=True, slots=True)
class Usage:
    """Tokens of one answer; the audio tokens are among the others."""

    prompt: int
    completion: int
    prompt_audio: int = 0
    completion_audio: int = 0


class Answer:
    """One answer in the making: iterate `deltas()`, then read `finish_reason` and `usage`."""

    def __init__(self, reply: Reply, reader: AnswerReader, prompt: Usage) -> None:
        self._reply = reply
        self._reader = reader
        self._prompt = prompt
        self.finish_reason = "length"
        self.codes: list[int] = []

    @property
    def usage(self) -> Usage:
        """Tokens so far."""
        return replace(self._prompt, completion=self._reader.tokens, completion_audio=len(self.codes))

    async def deltas(self) -> AsyncIterator[Delta]:
        """The answer as it comes, audio codes apart from the text. Raises UpstreamFailed."""
        try:
            async for step in read_steps(self._reply.lines()):
                delta = self._reader.feed(step.ids)
                self.codes += delta.codes
                if delta.text or delta.codes:
                    yield delta
                if self._reader.ended or step.finish_reason == "stop":
                    self.finish_reason = "stop"
                    break  # leaving the request's block ends it in the engine too
        except CompletionBroken as fault:
            raise self._reply.broken(str(fault)) from fault
        last = self._reader.finish()
        if last.text:
            yield last


@dataclass(frozen=True)
class Spoken:
    """Speech that is about to arrive: 16-bit mono PCM at `rate` Hz.

    `text_tokens` is the length of its text, where the pod says it; `marked` says that it has to carry the
    watermark.
    """

    reply: Reply
    rate: int
    text_tokens: int | None
    marked: bool

    async def chunks(self) -> AsyncIterator[bytes]:
        """It as it arrives, in whole samples. Raises UpstreamFailed, also where it ends inside one."""
        odd = b""
        async for chunk in self.reply.chunks():
            data = odd + chunk
            whole = len(data) - len(data) % BYTES_PER_SAMPLE
            odd = data[whole:]
            if whole:
                yield data[:whole]
        if odd:
            raise self.reply.broken("16-bit speech that ended inside a sample")


class Engine:
    """The pods' work, as functions. With `watermark`, speech in created voices is to be marked."""

    def __init__(
        self, upstreams: Upstreams, media: Media, metrics: GatewayMetrics, *, watermark: bool = True
    ) -> None:
        self._watermark = watermark
        self._upstreams = upstreams
        self._media = media
        self._metrics = metrics
        self.models = ModelCache()

    def rouse(self, pools: Sequence[Component]) -> None:
        """Wake those of `pools` that sleep, for a request that will need them one after the other."""
        self._upstreams.rouse(pools)

    # --- speech in ----------------------------------------------------------------------------------

    async def tokens(
        self, wave: Wave, param: str, *, trim: bool = False, gain: float | None = None
    ) -> AudioTokens:
        """Audio codes of a recording. Raises AudioError naming `param`."""
        content = await self._media.run(lambda: wave.samples.astype("<f4").tobytes())
        params: dict[str, str | int] = {"rate": wave.rate, "trim": int(trim)}
        if gain is not None:
            params["gain"] = repr(gain)
        call = Call(Route.AUDIO_TOKENS, content=content, params=params)
        try:
            async with self._upstreams.open(Component.TOKENIZER, _same(call)) as reply:
                found = await reply.json()
                codes = found.get("codes")
                if not isinstance(codes, list) or not all(
                    isinstance(code, int) and 0 <= code < AUDIO_CODES for code in codes
                ):
                    raise reply.broken("no audio codes")
        except InputError as fault:
            raise AudioError(fault.message, param=param, code=fault.code) from fault
        self._metrics.audio_seconds.labels("in").inc(wave.duration_s)
        return {
            "codes": codes,
            "linguistic": int(found.get("linguistic", 0)),
            "semantic": int(found.get("semantic", 0)),
            "duration_s": wave.duration_s,
        }

    async def turns(self, messages: Sequence[Message]) -> list[Turn]:
        """The conversation with its recordings as codes. Raises AudioError."""
        turns = []
        for message in messages:
            parts: list[Part] = []
            for part in message.parts:
                if isinstance(part, str):
                    parts.append(part)
                else:
                    wave = await self._media.decode_base64(part.data, part.param)
                    parts.append(tuple((await self.tokens(wave, part.param))["codes"]))
            turns.append(Turn(message.role, tuple(parts)))
        return turns

    # --- the answer ---------------------------------------------------------------------------------

    @asynccontextmanager
    async def answer(
        self,
        turns: Sequence[Turn],
        sampling: Sampling,
        *,
        stops: Sequence[str] = (),
        key: bytes | None = None,
        begun: str = "",
    ) -> AsyncIterator[Answer]:
        """Begin to answer; leaving the block ends the generation. Raises InputError for a long prompt.

        The answer goes on from `begun`, which is not part of it.
        """
        prepared: list[tuple[ChatModel, int]] = []

        async def prepare(endpoint: Endpoint) -> Call:
            model = await self._model(endpoint)
            prompt = await self._prompt(model, turns, begun)
            prepared[:] = [(model, len(prompt))]
            room = model.info["max_model_len"] - len(prompt)
            limited = replace(sampling, max_tokens=min(sampling.max_tokens, room))
            body = completion_body(model.info["model"], prompt, limited, ends=model.vocabulary.ends)
            return Call(Route.COMPLETIONS, json=body)

        async with self._upstreams.open(Component.CHAT, prepare, key=key) as reply:
            model, prompt_tokens = prepared[0]
            audio = sum(
                len(part) for turn in turns for part in turn.content or () if not isinstance(part, str)
            )
            answer = Answer(reply, AnswerReader(model.vocabulary, stops), Usage(prompt_tokens, 0, audio))
            try:
                yield answer
            finally:
                self._metrics.tokens.labels("prompt").inc(prompt_tokens)
                self._metrics.tokens.labels("completion").inc(answer.usage.completion)

    async def _prompt(self, model: ChatModel, turns: Sequence[Turn], begun: str) -> list[int]:
        limit = model.info["max_model_len"]
        parts = [part for turn in turns for part in turn.content or ()]
        chars = sum(len(part) for part in parts if isinstance(part, str))
        least = sum(len(part) for part in parts if not isinstance(part, str)) + chars // CHARS_PER_TOKEN
        prompt: list[int] = []
        if least < limit:
            if chars < THREAD_FROM_CHARS:
                prompt = model.prompt(turns)
            else:
                prompt = await asyncio.to_thread(model.prompt, turns)
            prompt += after_break(begun, model.vocabulary.encode)
        if least >= limit or len(prompt) >= limit:
            raise InputError(
                f"This model's maximum context length is {limit} tokens. However, your messages resulted in "
                f"{len(prompt) or f'at least {least}'} tokens. Please reduce the length of the messages.",
                param="messages",
                code="context_length_exceeded",
            )
        return prompt

    async def _model(self, endpoint: Endpoint) -> ChatModel:
        async def fetch() -> ChatModel:
            raw, _ = await self._upstreams.fetch(Component.CHAT, endpoint, Route.MODEL_INFO)
            file, headers = await self._upstreams.fetch(Component.CHAT, endpoint, Route.TOKENIZER_MODEL)
            try:
                return await asyncio.to_thread(build_model, json.loads(raw), file, headers.get(HEADER_ETAG))
            except (VocabularyError, ValueError) as fault:
                raise UpstreamFailed(f"the chat pod's tokenizer is not usable: {fault}") from fault

        return await self.models.get(endpoint.revision, fetch)

    # --- speech out ---------------------------------------------------------------------------------

    @asynccontextmanager
    async def speech(self, request: SpeechRequest) -> AsyncIterator[Spoken]:
        """Begin to speak; leaving the block ends it. Raises InputError as the TTS pod words it."""
        call = Call(Route.SPEECH, json=request)
        async with self._upstreams.open(Component.TTS, _same(call)) as reply:
            rate = reply.headers.get(HEADER_SAMPLE_RATE, "")
            if not rate.isdigit() or not MIN_RATE <= int(rate) <= MAX_RATE:
                raise reply.broken(f"{HEADER_SAMPLE_RATE}: {rate!r}")
            marked = self._watermark and HEADER_CREATED_VOICE in reply.headers
            yield Spoken(reply, int(rate), _count(reply, HEADER_TEXT_TOKENS), marked)

    @asynccontextmanager
    async def spoken_answer(
        self, text: str, codes: Sequence[int], *, voice: str | None, seed: int | None
    ) -> AsyncIterator[Spoken]:
        """Begin to speak the chat model's answer: its own codes where it made some, else `text`.

        Raises InputError for a voice that does not exist or an answer that is too long, and OutputError where
        it cannot be spoken for another reason: that is not the client's fault.
        """
        request = SpeechRequest(codes=list(codes)) if codes else SpeechRequest(input=text)
        if voice is not None:
            request["voice"] = voice
        if seed is not None:
            request["seed"] = seed % 2**63
        try:
            async with self.speech(request) as spoken:
                yield spoken
        except InputError as fault:
            if fault.param == "voice":
                raise InputError(fault.message, param="audio.voice", code=fault.code) from fault
            if fault.code in TOO_LONG:
                raise InputError(
                    f"the answer is too long to be spoken ({fault.message}); lower max_completion_tokens",
                    param="max_completion_tokens",
                    code="answer_too_long",
                ) from fault
            raise OutputError(f"the model's answer cannot be spoken: {fault.message}") from fault

    async def pcm(self, spoken: Spoken) -> bytes:
        """All of the speech, 16-bit PCM."""
        body = b"".join([chunk async for chunk in spoken.chunks()])
        self.count_speech(len(body) / BYTES_PER_SAMPLE / spoken.rate)
        return body

    def count_speech(self, seconds: float) -> None:
        """Add speech to the metrics."""
        self._metrics.audio_seconds.labels("out").inc(seconds)

    async def voices(self) -> list[dict[str, str]]:
        """The voices of a TTS pod. Nobody counts who asks for them, so they do not wait for a pod."""
        call = Call(Route.VOICES, method="GET")
        async with self._upstreams.open(Component.TTS, _same(call), patient=False) as reply:
            found = (await reply.json()).get("data")
            if not isinstance(found, list):
                raise reply.broken("no list of voices")
            return found


def _count(reply: Reply, header: str) -> int | None:
    value = reply.headers.get(header, "")
    return int(value) if value.isdecimal() and len(value) < 10 else None


def spoken_text(text: str) -> str:
    """`text` without what looks like a marker: a voice cannot say it, and the TTS pod refuses it."""
    return MARKER.sub("", text)


def _same(call: Call) -> Prepare:
    """The same request for every endpoint."""

    async def prepare(_endpoint: Endpoint) -> Call:
        return call

    return prepare
