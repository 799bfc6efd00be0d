"""Copy synthesis: the teacher's wave to codes, and back by flow and vocoder.

No language model can speak better than this. The voice's own recording is the prompt, as for text.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np

from stepaudio_runtime.audio.wave import Wave
from stepaudio_runtime.contract import SPEECH_RATE, Component
from stepaudio_runtime.engine.speech import SpeechRequest, Teacher
from stepaudio_runtime.errors import InputError
from stepaudio_runtime.evaluate.subject import Spoken
from stepaudio_runtime.health.state import PodState
from stepaudio_runtime.pods.loading import load_tokenizer, load_voice_box
from stepaudio_runtime.settings import EngineSettings, PodSettings
from stepaudio_runtime.train.corpus import AFTER_S, BEFORE_S
from stepaudio_runtime.tts.hops import HopPlan


class CopySynthesis:
    """The models of a folder between the teacher's mouth and the listener; `plan` cuts codes into hops.

    `teachers` says, by the voice of the models, which of the teacher's voices it is copied from.
    """

    def __init__(
        self,
        models: Path,
        teacher: Teacher,
        teachers: Mapping[str, str],
        *,
        plan: HopPlan,
        threads: int = 1,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        """Loads tokenizers, flow and vocoder; raises ModelFileError."""
        settings = PodSettings(Component.TTS, models, threads=threads)
        self._tokenizer = load_tokenizer(settings, EngineSettings(), PodState(Component.TTS.value))
        self._box = load_voice_box(settings, EngineSettings())
        self._teacher, self._teachers = teacher, teachers
        self._plan = plan
        self._clock = clock

    def say(self, request: SpeechRequest) -> Spoken:
        """The teacher's wave after both ways; the time is that of the decoding alone."""
        if request.voice not in self._teachers:
            raise InputError(f"which of the teacher's voices is {request.voice!r}?", param="voices")
        own = SpeechRequest(request.text, self._teachers[request.voice], request.style, request.seed)
        wave = with_silence(self._teacher.speak(own))
        codes = self._tokenizer.encode(wave.samples, wave.rate).codes
        decoder = self._box.decoders[None]
        began = self._clock()
        stream = decoder.open(self._box.voices.get(request.voice).prompt, request.seed, self._plan)
        stream.push(codes, last=True)
        pieces, first = [], None
        while not stream.done:
            pieces += decoder.advance([stream])
            if first is None and len(pieces[-1]):
                first = self._clock() - began
        return Spoken(Wave(np.concatenate(pieces), SPEECH_RATE), self._clock() - began, first)


def with_silence(wave: Wave) -> Wave:
    """`wave` with the silence around the words that the corpus has."""
    before, after = (np.zeros(int(seconds * wave.rate), np.float32) for seconds in (BEFORE_S, AFTER_S))
    return Wave(np.concatenate([before, wave.samples, after]), wave.rate)
