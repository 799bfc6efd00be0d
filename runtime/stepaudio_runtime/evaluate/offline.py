"""A model folder as the one who is measured: text to speech in this process, the language model in vLLM's."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping
from contextlib import AsyncExitStack
from types import TracebackType
from typing import Self

import numpy as np

from stepaudio_runtime.audio.wave import Wave
from stepaudio_runtime.contract import SPEECH_RATE
from stepaudio_runtime.engine.speech import SpeechRequest
from stepaudio_runtime.evaluate.subject import Spoken
from stepaudio_runtime.pods.offline import open_speaker
from stepaudio_runtime.tts.hops import HopPlan
from stepaudio_runtime.tts.request import Speech
from stepaudio_runtime.tts.speaker import Speaker
from stepaudio_runtime.tts.text import clean


class OfflineModels:
    """Opened by `with`: starts vLLM, and ends it. `env` is a TTS pod's, `plan` cuts speech into hops."""

    def __init__(
        self, env: Mapping[str, str], plan: HopPlan, clock: Callable[[], float] = time.perf_counter
    ) -> None:
        self._env, self._plan, self._clock = env, plan, clock
        self._loop = asyncio.Runner()
        self._opened = AsyncExitStack()

    def __enter__(self) -> Self:
        """Raises ModelFileError, ConfigError, EngineFailed."""
        self._speaker: Speaker = self._loop.run(self._open())
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._loop.run(self._opened.aclose())
        self._loop.close()

    def say(self, request: SpeechRequest) -> Spoken:
        """The models' wave and when its first samples were there."""
        return self._loop.run(self._say(request))

    async def _open(self) -> Speaker:
        return await self._opened.enter_async_context(open_speaker(self._env, self._plan))

    async def _say(self, request: SpeechRequest) -> Spoken:
        text = clean(f"({request.style.name}){request.text}" if request.style.name else request.text)
        began, first, pieces = self._clock(), None, []
        async for piece in self._speaker.speak(Speech(text, (), request.voice, request.seed)):
            pieces.append(piece)
            if first is None and len(piece):
                first = self._clock() - began
        return Spoken(Wave(np.concatenate(pieces), SPEECH_RATE), self._clock() - began, first)
