"""From a request to its samples: voice, prompt, language model, and the parts that the scheduler decodes.

    text ─► groups ─► language model ─codes─► part ─► scheduler ─► samples
                          ▲        │
                          └─ loop ─┘   taken back as far as unspoken, continued with another seed

The language model runs ahead of the decoder by whole sentence groups, bounded by `utterance.AHEAD_S`.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import secrets
from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from stepaudio_runtime.codec.controls import music, split_tags
from stepaudio_runtime.codec.instructions import Instruction
from stepaudio_runtime.codec.layout import CODE_RATE, to_ids
from stepaudio_runtime.codec.tts_prompt import Encode, tts_prompt_ids
from stepaudio_runtime.contract import SPEECH_RATE
from stepaudio_runtime.errors import OutputError
from stepaudio_runtime.tts.decoder import SpeechDecoder
from stepaudio_runtime.tts.hops import HopPlan
from stepaudio_runtime.tts.loops import loop_start
from stepaudio_runtime.tts.metrics import SpeechMetrics
from stepaudio_runtime.tts.request import Speech
from stepaudio_runtime.tts.scheduler import Scheduler
from stepaudio_runtime.tts.shelf import Shelf
from stepaudio_runtime.tts.speech_lm import SpeechLm, speech_bound
from stepaudio_runtime.tts.text import clean, groups
from stepaudio_runtime.tts.utterance import Part, Utterance
from stepaudio_runtime.tts.voices import VoicePrompt

log = logging.getLogger(__name__)

CANARY_TEXT = "一二三。"
CANARY_CODES = 20
CANARY_SEED = 1
QUIETEST = 1e-5  # root mean square; below it a wave is silence
LOUDEST = 1.0  # a wave of full scale throughout
RETRIES = 2
"""Other seeds tried where the model repeats itself or says nothing."""


@dataclass(frozen=True, eq=False)
class _Task:
    """What one request asks for, looked up: `codes`, or where there are none, `text` with its `tags`."""

    text: str
    tags: str
    codes: tuple[int, ...]
    voice: VoicePrompt
    decoder: SpeechDecoder
    seed: int


def check_sound(wave: NDArray[np.float32], expected_s: float) -> None:
    """Raise OutputError unless `wave` (N,) is finite, can be heard, and lasts about `expected_s` seconds."""
    loudness = float(np.sqrt(np.mean(np.square(wave, dtype=np.float64)))) if len(wave) else 0.0
    if not QUIETEST <= loudness <= LOUDEST:  # also false for NaN
        raise OutputError(f"the speech decoder's canary has a loudness of {loudness:.2g}")
    seconds = len(wave) / SPEECH_RATE
    if not expected_s / 2 <= seconds <= expected_s * 2:
        raise OutputError(f"the speech decoder's canary lasts {seconds:.2f} s instead of {expected_s:.2f} s")


class Speaker:
    """Everything that speaks, loaded. `decoders` has the plain one under None, others by instruction.

    `plan` cuts a request's first part into hops, `next_plan` those that follow it without a pause. A part
    is of at most `sentences_at_once` sentences.
    """

    def __init__(  # noqa: PLR0917 - the parts in the order in which they work
        self,
        lm: SpeechLm,
        encode: Encode,
        voices: Shelf,
        decoders: Mapping[Instruction | None, SpeechDecoder],
        scheduler: Scheduler,
        metrics: SpeechMetrics,
        *,
        max_codes: int,
        plan: HopPlan,
        next_plan: HopPlan,
        sentences_at_once: int | None = None,
    ) -> None:
        self.voices = voices
        self.lm = lm
        self.scheduler = scheduler
        self._encode = encode
        self._decoders = decoders
        self._metrics = metrics
        self._max_codes = max_codes
        self._plan = plan
        self._next_plan = next_plan
        self._sentences_at_once = sentences_at_once

    async def voice(self, speech: Speech) -> VoicePrompt:
        """The voice that `speech` asks for. Raises InputError, or Unavailable where the store fails."""
        return await self.voices.get(speech.voice, music(speech.text))

    async def speak(
        self, speech: Speech, voice: VoicePrompt | None = None
    ) -> AsyncGenerator[NDArray[np.float32]]:
        """Samples (N,) at 22,050 Hz as they are made. Closing it frees every stage within one step.

        `voice` is the one that `speech` asks for, where it has been looked up already.

        Raises InputError for what cannot be spoken, Overloaded at the bound, OutputError where a model fails.
        """
        async with aclosing(self._say(self._task(speech, voice or await self.voice(speech)))) as waves:
            async for wave in waves:
                yield wave

    async def canary(self) -> tuple[int, ...]:
        """The codes of a known text; raises OutputError unless both halves answer, the second with sound."""
        voice = self.voices.built_in.get(None)
        prompt = self._prompt(CANARY_TEXT, voice)
        codes: list[int] = []
        async for some in self.lm.stream(prompt, max_codes=CANARY_CODES, seed=CANARY_SEED):
            codes += some
        for decoder in self._decoders.values():
            task = _Task("", "", voice.prompt.codes[:CANARY_CODES], voice, decoder, CANARY_SEED)
            wave = np.concatenate([piece async for piece in self._say(task)])
            check_sound(wave, float(len(task.codes or ()) / CODE_RATE))
        return tuple(codes)

    def _task(self, speech: Speech, voice: VoicePrompt) -> _Task:
        tags, text = split_tags(speech.text)
        if tags:
            text = clean(text)  # tags alone are nothing to speak
        instruction = music(speech.text)
        return _Task(
            text=text,
            tags=tags,
            codes=speech.codes,
            voice=voice,
            decoder=self._decoders.get(instruction) or self._decoders[None],
            seed=secrets.randbits(63) if speech.seed is None else speech.seed,
        )

    async def _say(self, task: _Task) -> AsyncGenerator[NDArray[np.float32]]:
        utterance = self.scheduler.open()
        writer = asyncio.create_task(self._write(utterance, task))
        try:
            while (wave := await utterance.read()) is not None:
                yield wave
        finally:
            self.scheduler.close(utterance)
            writer.cancel()
            await asyncio.gather(writer, return_exceptions=True)

    # --- the writer ---------------------------------------------------------------------------------

    async def _write(self, utterance: Utterance, task: _Task) -> None:
        """Fill `utterance` with codes, its own or the language model's."""
        try:
            if task.codes:
                part = self._begin(utterance, task, 0)
                part.add(task.codes)
                part.end()
            else:
                await self._write_text(utterance, task)
            utterance.end()
        except Exception as error:  # whatever it is, the reader must hear of it
            utterance.fail(error)

    async def _write_text(self, utterance: Utterance, task: _Task) -> None:
        # In a thread: the grammars take up to 50 ms for a group.
        pieces = groups(task.text, most=self._sentences_at_once)
        index = 0
        while (text := await asyncio.to_thread(next, pieces, None)) is not None:
            await utterance.room()
            part = self._begin(utterance, task, index)
            await self._write_group(part, task.tags + text, task.voice, _seed(task.seed, index))
            if part.codes:
                part.end()
            elif index:
                utterance.drop(part)
            else:
                raise OutputError(
                    "the speech model ended its turn without any audio; try another seed or text"
                )
            index += 1

    async def _write_group(self, part: Part, text: str, voice: VoicePrompt, seed: int) -> None:
        """The language model's codes for `text`; from where it turns in circles another seed goes on."""
        prompt = self._prompt(text, voice)
        bound = min(self._max_codes, speech_bound(text))
        for attempt in range(1 + RETRIES):
            so_far = [*prompt, *to_ids(part.codes, self.lm.audio_offset)]
            room = bound - len(part.codes)
            looped = await self._continue(part, so_far, room, _seed(seed, attempt))
            if part.codes and not looped:
                return
            last = attempt == RETRIES
            self._metrics.loops.labels("cut" if last else "retried").inc()
            log.warning("the speech model repeats itself or says nothing (attempt %d)", attempt + 1)

    async def _continue(self, part: Part, prompt: list[int], room: int, seed: int) -> bool:
        """Add the answer to `prompt`, at most `room` codes; true where it went in circles and was cut."""
        if room < 1:
            return False
        async with aclosing(self.lm.stream(prompt, max_codes=room, seed=seed)) as answer:
            async for codes in answer:
                part.add(codes)
                start = loop_start(part.codes)
                if start is not None:
                    part.take_back(start)
                    return True
        return False

    def _begin(self, utterance: Utterance, task: _Task, index: int) -> Part:
        plan = self._next_plan if index else self._plan
        return utterance.begin(
            task.decoder, task.decoder.open(task.voice.prompt, _seed(task.seed, index), plan)
        )

    def _prompt(self, text: str, voice: VoicePrompt) -> list[int]:
        return tts_prompt_ids(
            text,
            voice_text=voice.transcript,
            voice_codes=voice.prompt.codes,
            speaker=voice.name,
            encode=self._encode,
            audio_offset=self.lm.audio_offset,
            strict=True,
        )


def _seed(seed: int, index: int) -> int:
    """A seed for number `index` of something; number 0 has `seed` itself."""
    if not index:
        return seed
    digest = hashlib.blake2b(f"{seed}:{index}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 1
