"""One utterance from text or codes to a wave: voice, prompt, language model, flow, vocoder."""

import asyncio
import secrets
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from stepaudio_runtime.codec.controls import music
from stepaudio_runtime.codec.instructions import Instruction
from stepaudio_runtime.codec.tts_prompt import Encode, tts_prompt_ids
from stepaudio_runtime.errors import OutputError
from stepaudio_runtime.service.worker import Worker
from stepaudio_runtime.tts.decoder import SpeechDecoder
from stepaudio_runtime.tts.request import Speech
from stepaudio_runtime.tts.speech_lm import SpeechLm, speech_bound
from stepaudio_runtime.tts.voices import VoicePrompt, Voices

CANARY_TEXT = "一二三。"
CANARY_CODES = 20
CANARY_SEED = 1
QUIETEST = 1e-5  # root mean square; below it a wave is silence


class Cancelled(Exception):  # noqa: N818 - not a fault
    """Raised in the worker's thread when the caller has gone."""


@dataclass(frozen=True, eq=False)
class Spoken:
    """An utterance: samples (N,) at 22,050 Hz and the number of codes that it was made of."""

    wave: NDArray[np.float32]
    codes: int


class Speaker:
    """Everything that speaks, loaded. `decoders` has the plain one under None, others by instruction."""

    def __init__(
        self,
        lm: SpeechLm,
        encode: Encode,
        voices: Voices,
        decoders: Mapping[Instruction | None, SpeechDecoder],
        worker: Worker,
        *,
        max_codes: int,
        on_progress: Callable[[], None] = lambda: None,
    ) -> None:
        self.voices = voices
        self.lm = lm
        self._encode = encode
        self._decoders = decoders
        self._worker = worker
        self._max_codes = max_codes
        self._on_progress = on_progress

    async def speak(self, speech: Speech) -> Spoken:
        """Say it. Cancelling stops the language model's request and the solver between two steps."""
        seed = secrets.randbits(63) if speech.seed is None else speech.seed
        instruction = music(speech.text)
        voice = self.voices.get(speech.voice, instruction)
        codes: Sequence[int] = speech.codes
        if not codes:
            codes = await self.codes(speech.text, voice, seed)
        return Spoken(await self._decode(codes, voice, seed, instruction), len(codes))

    async def codes(self, text: str, voice: VoicePrompt, seed: int) -> list[int]:
        """Codes of `text` in `voice`; raises OutputError where the model ends its turn without a code."""
        prompt = tts_prompt_ids(
            text,
            voice_text=voice.transcript,
            voice_codes=voice.prompt.codes,
            speaker=voice.name,
            encode=self._encode,
            audio_offset=self.lm.audio_offset,
            strict=True,
        )
        bound = min(self._max_codes, speech_bound(text))
        codes = await self.lm.codes(prompt, max_codes=bound, seed=seed, on_token=self._on_progress)
        if not codes:
            raise OutputError("the speech model ended its turn without any audio; try another seed or text")
        return codes

    async def canary(self) -> None:
        """Prove that both halves answer with sound; raises OutputError."""
        voice = self.voices.get(None)
        prompt = tts_prompt_ids(
            CANARY_TEXT,
            voice_text=voice.transcript,
            voice_codes=voice.prompt.codes,
            speaker=voice.name,
            encode=self._encode,
            audio_offset=self.lm.audio_offset,
        )
        await self.lm.codes(prompt, max_codes=CANARY_CODES, seed=CANARY_SEED)
        for instruction in self._decoders:
            wave = await self._decode(voice.prompt.codes[:CANARY_CODES], voice, CANARY_SEED, instruction)
            loudness = float(np.sqrt(np.mean(np.square(wave, dtype=np.float64)))) if wave.size else 0.0
            if loudness < QUIETEST:
                raise OutputError("the speech decoder's canary is silent")

    async def _decode(
        self, codes: Sequence[int], voice: VoicePrompt, seed: int, instruction: Instruction | None
    ) -> NDArray[np.float32]:
        decoder = self._decoders.get(instruction) or self._decoders[None]
        cancelled = threading.Event()

        def on_step() -> None:
            if cancelled.is_set():
                raise Cancelled
            self._on_progress()

        try:
            return await self._worker.run(lambda: decoder.decode(codes, voice.prompt, seed, on_step))
        except asyncio.CancelledError:
            cancelled.set()
            raise
