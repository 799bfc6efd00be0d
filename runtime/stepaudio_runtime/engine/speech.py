"""What a teacher is asked for, what every teacher is (text in, a wave out), and what hears it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from stepaudio_runtime.audio.wave import Wave

NORMAL_WPM = 160
"""Words a minute of plain speech."""
SLOWEST_WPM, FASTEST_WPM = 80, 400


@dataclass(frozen=True)
class Style:
    """How something is said, in espeak-ng's scales: 0..99, of which 50 is the voice's own."""

    name: str
    wpm: int = NORMAL_WPM
    pitch: int = 50
    range: int = 50  # of the pitch, between its peaks and valleys


STYLES = {
    style.name: style
    for style in (
        Style(""),
        Style("慢速1", wpm=130),
        Style("慢速2", wpm=110),
        Style("快速1", wpm=190),
        Style("快速2", wpm=220),
        Style("高兴1", wpm=175, pitch=65, range=85),
        Style("悲伤1", wpm=130, pitch=38, range=15),
    )
}
"""Control tags of the TTS model that a synthesiser by rule can follow; the empty one is plain speech.

Rates are followed exactly. The two emotions are a caricature: higher and livelier, lower and flatter.
"""


@dataclass(frozen=True)
class SpeechRequest:
    """One text in one voice. The same request gives the same wave from a deterministic teacher."""

    text: str
    voice: str
    style: Style = STYLES[""]
    seed: int = 1


class Teacher(Protocol):
    """Speaks. Blocking; one instance belongs to one thread."""

    def speak(self, request: SpeechRequest) -> Wave:
        """The wave of `request`; raises InputError for a voice or text that it cannot speak."""


Tokenise = Callable[[Wave], list[int]]
"""Codes 0..5119 of a wave, silence at its ends kept; blocking."""
