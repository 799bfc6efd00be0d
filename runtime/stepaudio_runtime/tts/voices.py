"""The voices of a TTS model: a recording and its transcript each, and what the models need of them.

A voice is a prompt for both models: the language model continues its transcript and codes, the flow its codes
and mel, coloured by its speaker embedding. A voice `NAMERAP` or `NAME哼唱` is the one that NAME raps or hums
with; it is not listed.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from stepaudio_runtime.audio.mel import prompt_mel
from stepaudio_runtime.audio.resample import resample
from stepaudio_runtime.codec.instructions import Instruction
from stepaudio_runtime.contract import SPEECH_RATE
from stepaudio_runtime.errors import InputError
from stepaudio_runtime.tts.decoder import Prompt
from stepaudio_runtime.voices.record import normal_name

EMBEDDING_RATE = 16_000  # Hz


@dataclass(frozen=True, eq=False)
class Recording:
    """A voice as it is stored: samples (N,), mono, at `rate` Hz, and what is said in them."""

    name: str
    transcript: str
    wave: NDArray[np.float32]
    rate: int


@dataclass(frozen=True, eq=False)
class VoicePrompt:
    """A voice as the models take it."""

    name: str
    transcript: str
    prompt: Prompt
    created: bool = False  # through the API, of somebody who agreed to it; else the model brought it


Codes = Callable[[NDArray[np.float32], int], list[int]]
"""Codes of a wave (N,) at a rate in Hz, silence trimmed."""
Embed = Callable[[NDArray[np.float32]], NDArray[np.float32]]
"""Speaker embedding (192,) of a wave (N,) at 16 kHz."""


def voice_prompt(recording: Recording, codes: Codes, embed: Embed) -> VoicePrompt:
    """What the models need of `recording`."""
    mel = prompt_mel(resample(recording.wave, recording.rate, SPEECH_RATE))
    embedding = embed(resample(recording.wave, recording.rate, EMBEDDING_RATE))
    return VoicePrompt(
        name=recording.name,
        transcript=recording.transcript,
        prompt=Prompt(
            codes=tuple(codes(recording.wave, recording.rate)),
            mel=torch.from_numpy(mel).T.unsqueeze(0).contiguous(),
            embedding=torch.from_numpy(embedding).unsqueeze(0),
        ),
    )


class Voices:
    """The voices of a model by name; the first is the default."""

    def __init__(self, voices: Iterable[VoicePrompt]) -> None:
        self._by_name: Mapping[str, VoicePrompt] = {normal_name(voice.name): voice for voice in voices}

    @property
    def names(self) -> list[str]:
        """Names that a caller may ask for."""
        singing = tuple(instruction.value for instruction in Instruction)
        return [name for name in self._by_name if not name.endswith(singing)]

    def get(self, name: str | None, instruction: Instruction | None = None) -> VoicePrompt:
        """The voice `name` (None: the default) for `instruction`; raises InputError for an unknown one."""
        known = self.names
        wanted = known[0] if name is None else normal_name(name)
        if wanted not in known:
            raise unknown_voice(wanted, known)
        singing = self._by_name.get(f"{wanted}{instruction.value}") if instruction else None
        return singing or self._by_name[wanted]


def unknown_voice(name: str, known: Iterable[str]) -> InputError:
    """The error for a voice that does not exist."""
    message = f"unknown voice {name[:80]!r}; known are {', '.join(known)}"
    return InputError(message, param="voice", code="unknown_voice")
