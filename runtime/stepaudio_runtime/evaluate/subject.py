"""Who is measured: something that says a text in a voice, and how long it took to."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from stepaudio_runtime.audio.wave import Wave
from stepaudio_runtime.engine.speech import SpeechRequest, Teacher


@dataclass(frozen=True, eq=False)
class Spoken:
    """A wave, the seconds until its first sample was there (None: it came whole) and until its last one."""

    wave: Wave
    seconds: float
    first_audio_s: float | None = None


class Subject(Protocol):
    """Speaks, and is timed. Blocking."""

    def say(self, request: SpeechRequest) -> Spoken:
        """The wave of `request`; raises InputError or OutputError where it has none."""


class TimedTeacher:
    """A teacher as the one who is measured."""

    def __init__(self, teacher: Teacher, clock: Callable[[], float] = time.perf_counter) -> None:
        self._teacher = teacher
        self._clock = clock

    def say(self, request: SpeechRequest) -> Spoken:
        """The teacher's wave."""
        began = self._clock()
        wave = self._teacher.speak(request)
        return Spoken(wave, self._clock() - began)
