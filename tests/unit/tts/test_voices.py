"""Which voice answers to which name, and what a recording becomes for the models."""

import numpy as np
import pytest
import torch

from stepaudio_runtime.codec.instructions import Instruction
from stepaudio_runtime.errors import InputError
from stepaudio_runtime.tts.decoder import Prompt
from stepaudio_runtime.tts.speech_lm import speech_bound
from stepaudio_runtime.tts.voices import Recording, VoicePrompt, Voices, voice_prompt


def voices(*names: str) -> Voices:
    empty = Prompt((), torch.zeros(1, 0, 80), torch.zeros(1, 192))
    return Voices(VoicePrompt(name, "", empty) for name in names)


def test_singing_voices_are_found_by_their_speaker_and_not_listed():
    known = voices("Ting", "TingRAP", "Ting哼唱", "Bo")
    assert known.names == ["Ting", "Bo"]
    assert [
        known.get(name, instruction).name
        for name, instruction in [
            (None, None),
            ("Ting", Instruction.RAP),
            ("Ting", Instruction.HUMMING),
            ("Bo", Instruction.RAP),
        ]
    ] == ["Ting", "TingRAP", "Ting哼唱", "Bo"]


@pytest.mark.parametrize("name", ["alloy", "TingRAP", ""])
def test_an_unknown_voice_is_told_the_known_ones(name):
    with pytest.raises(InputError, match="known are Ting, Bo") as error:
        voices("Ting", "TingRAP", "Bo").get(name)
    assert (error.value.param, error.value.code) == ("voice", "unknown_voice")


def test_a_name_is_the_same_however_its_accents_are_written():
    for own, asked in (("José", "Jose\u0301"), ("Jose\u0301", "José")):
        found = voices("Treble", own)
        assert found.names == ["Treble", "José"]
        assert found.get(asked).name == own


def test_a_recording_becomes_codes_mel_and_embedding_at_their_own_rates():
    heard = {}

    def codes(wave, rate):
        heard["codes"] = (len(wave), rate)
        return [1, 2, 1030]

    def embed(wave):
        heard["embed"] = len(wave)
        return np.ones(192, np.float32)

    wave = np.sin(np.arange(44_100) / 20).astype(np.float32)
    voice = voice_prompt(Recording("Ting", "你好", wave, 44_100), codes, embed)
    assert heard == {"codes": (44_100, 44_100), "embed": 16_000}
    assert (voice.name, voice.transcript, voice.prompt.codes) == ("Ting", "你好", (1, 2, 1030))
    assert (voice.prompt.mel.shape, voice.prompt.embedding.shape) == ((1, 86, 80), (1, 192))


def test_the_bound_on_codes_grows_with_what_is_said():
    assert speech_bound("") == 84
    assert speech_bound("你好你好") == 167
    assert speech_bound("hello, world") == 167
