"""The nano preset's voices: recordings of a few seconds with a transcript; for random weights, vowels."""

from __future__ import annotations

import json
import wave
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from stepaudio_runtime.checkpoints import layout

RATE = 22050  # Hz
SECONDS = 2.4
# name: (pitch in Hz, transcript)
VOICES = {
    "Treble": (220.0, "hello, this is a test of my voice."),
    "Bass": (110.0, "good morning, please listen to this voice."),
}
_FORMANTS = ((730.0, 1090.0), (270.0, 2290.0), (300.0, 870.0))  # a, i, u; Hz
_SYLLABLES = 8


@dataclass(frozen=True, eq=False)
class NanoVoice:
    """A recording (N,) at 22,050 Hz within ±1, and what is said in it."""

    transcript: str
    wave: NDArray[np.float32]


def synthetic_voices() -> dict[str, NanoVoice]:
    """Vowels at two pitches, for models with random weights."""
    return {
        name: NanoVoice(transcript, _vowels(pitch).astype(np.float32))
        for name, (pitch, transcript) in VOICES.items()
    }


def write_voices(folder: Path, voices: Mapping[str, NanoVoice]) -> None:
    """Write the `speakers` folder of a TTS model: one wave a voice, and the table."""
    folder.mkdir(parents=True, exist_ok=True)
    table = {}
    for name, voice in voices.items():
        file = f"{name}_prompt.wav"
        with wave.open(str(folder / file), "wb") as out:
            out.setnchannels(1)
            out.setsampwidth(2)
            out.setframerate(RATE)
            out.writeframes((voice.wave * 32767).round().astype("<i2").tobytes())
        table[name] = {"wav": file, "transcript": voice.transcript}
    text = json.dumps(table, indent=2, ensure_ascii=False) + "\n"
    (folder / layout.SPEAKERS_TABLE).write_text(text, encoding="utf-8")


def _vowels(pitch: float) -> NDArray[np.float64]:
    """Syllables of changing vowels, peak 0.7: harmonics of a gliding pitch under two formants."""
    time = np.arange(int(SECONDS * RATE)) / RATE
    glide = pitch * (1 + 0.08 * np.sin(2 * np.pi * 0.7 * time))
    phase = 2 * np.pi * np.cumsum(glide) / RATE
    syllable = time / SECONDS * _SYLLABLES
    envelope = np.sin(np.pi * (syllable % 1)) ** 0.5
    vowels = np.array(_FORMANTS)[syllable.astype(int) % len(_FORMANTS)]
    wave_ = np.zeros_like(time)
    for harmonic in range(1, int(4000 / pitch)):
        frequency = harmonic * glide
        gain = sum(np.exp(-(((frequency - formant) / 180.0) ** 2)) for formant in vowels.T)
        wave_ += (gain + 0.05) / harmonic**0.5 * np.sin(harmonic * phase)
    wave_ *= envelope
    return 0.7 * wave_ / np.abs(wave_).max()
