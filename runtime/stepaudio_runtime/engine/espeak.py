"""espeak-ng as a teacher: the library that comes inside the package `espeakng-loader`, called by ctypes.

It needs no root and no program. The library keeps state between utterances (phases of its oscillators,
the random numbers of its breath), so it is loaded afresh for each one: 6 ms that make the wave of a request
the same, bit for bit, in every process and every order.

espeak-ng is licensed under GPL-3.0-or-later; it is an optional dependency, and what it says is not covered.
"""

from __future__ import annotations

import _ctypes
import ctypes
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from stepaudio_runtime.audio.wave import Wave
from stepaudio_runtime.engine.speech import FASTEST_WPM, SLOWEST_WPM, SpeechRequest, Style
from stepaudio_runtime.errors import ConfigError, InputError, OutputError

MAX_CHARACTERS = 2_000
"""Of one text: about two minutes of speech."""
_OWN = Path(__file__).parent / "voices"
OWN_VOICES = ("deep",)
"""Voices of this package, as files in espeak-ng's format: most of its own are hard to understand for a
recogniser that learnt from people; those with boosted consonants and some breath are not."""
_MAX_SAMPLES = 22_050 * 300

# Of espeak-ng/speak_lib.h, 1.52.
_OUTPUT_SYNCHRONOUS = 2
_DONT_EXIT = 0x8000
_CHARS_UTF8 = 1
_POS_CHARACTER = 1
_PARAMETER = {"rate": 1, "pitch": 3, "range": 4}

_Callback = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.POINTER(ctypes.c_short), ctypes.c_int, ctypes.c_void_p)


class Espeak:
    """Voices are espeak-ng's (a language and maybe a variant: `en-us`, `en-us+f2`, `cmn`) and OWN_VOICES."""

    def speak(self, request: SpeechRequest) -> Wave:
        """The wave of `request`, mono at 22,050 Hz, without silence before or after.

        Raises InputError for an empty or too long text, an unknown voice and a rate outside 80..400 words a
        minute; OutputError where the library gives no sound.
        """
        _check(request)
        parts: list[NDArray[np.int16]] = []
        samples = 0

        # espeak-ng's answers: 0 goes on, 1 stops.
        @_Callback
        def take(wave: ctypes._Pointer[ctypes.c_short], count: int, _events: int) -> int:
            nonlocal samples
            if wave and count > 0:
                samples += count
                parts.append(np.ctypeslib.as_array(wave, (count,)).copy())
            return int(samples > _MAX_SAMPLES)

        with _library() as (library, rate):
            library.espeak_SetSynthCallback(take)
            _choose(library, request.voice)
            # After the voice: choosing one sets them back.
            _set(library, request.style)
            library.espeak_ng_SetRandSeed(ctypes.c_long(request.seed & 0x7FFFFFFF))
            text = request.text.encode()
            answer = library.espeak_Synth(
                text, ctypes.c_size_t(len(text) + 1), 0, _POS_CHARACTER, 0, _CHARS_UTF8, None, None
            )
        pcm = np.concatenate([np.zeros(0, np.int16), *parts])
        wave = _without_silence(pcm)
        if answer != 0 or not len(wave):
            raise OutputError(f"espeak-ng gave no sound for {request.text[:40]!r} (its answer: {answer})")
        return Wave(wave, rate)


def version() -> str:
    """The library's version, for provenance."""
    with _library() as (library, _):
        library.espeak_Info.restype = ctypes.c_char_p
        return str(library.espeak_Info(None).decode())


def _check(request: SpeechRequest) -> None:
    text = request.text.strip()
    if not text or len(text) > MAX_CHARACTERS or "\0" in text:
        message = f"a text to speak has 1 to {MAX_CHARACTERS} characters, not {len(text)}"
        raise InputError(message, param="text", code="invalid_text")
    if "\0" in request.voice or not request.voice:
        raise InputError("the voice is empty", param="voice", code="unknown_voice")
    if not SLOWEST_WPM <= request.style.wpm <= FASTEST_WPM:
        message = f"{request.style.wpm} words a minute are outside {SLOWEST_WPM} to {FASTEST_WPM}"
        raise InputError(message, param="wpm", code="invalid_rate")


def _choose(library: ctypes.CDLL, voice: str) -> None:
    if voice in OWN_VOICES:
        # By its descriptor: the library cuts paths to 59 characters.
        with (_OWN / voice).open("rb") as file:
            answer = library.espeak_ng_SetVoiceByFile(f"/proc/self/fd/{file.fileno()}".encode())
    else:
        answer = library.espeak_SetVoiceByName(voice.encode())
    if answer != 0:
        own = ", ".join(OWN_VOICES)
        message = f"espeak-ng has no voice {voice!r}; voices are like en-us or en-us+f2, and {own}"
        raise InputError(message, param="voice", code="unknown_voice")


def _set(library: ctypes.CDLL, style: Style) -> None:
    for name, value in (("rate", style.wpm), ("pitch", style.pitch), ("range", style.range)):
        library.espeak_SetParameter(_PARAMETER[name], value, 0)


@cache
def _paths() -> tuple[str, str]:
    try:
        import espeakng_loader
    except ImportError:
        raise ConfigError(
            what="the package espeakng-loader, which holds the synthesiser espeak-ng, is not installed",
            cure="pip install 'stepaudio-runtime[engine]'",
        ) from None
    return espeakng_loader.get_library_path(), espeakng_loader.get_data_path()


@contextmanager
def _library() -> Iterator[tuple[ctypes.CDLL, int]]:
    """A fresh copy of the library, started, and its sampling rate."""
    path, data = _paths()
    library = ctypes.CDLL(path)
    try:
        rate = library.espeak_Initialize(_OUTPUT_SYNCHRONOUS, 0, data.encode(), _DONT_EXIT)
        if rate <= 0:
            raise ConfigError(what=f"espeak-ng does not start on {data}", cure="install espeakng-loader anew")
        yield library, rate
        library.espeak_Terminate()
    finally:
        _ctypes.dlclose(library._handle)


def _without_silence(pcm: NDArray[np.int16]) -> NDArray[np.float32]:
    heard = np.flatnonzero(np.abs(pcm.astype(np.int32)) > 32)  # -60 dB
    if not len(heard):
        return np.zeros(0, np.float32)
    return (pcm[heard[0] : heard[-1] + 1] / np.float32(1 << 15)).astype(np.float32)
