"""The voices of the nano models: a recording each, taken from the corpus, as the prompt of flow and LM."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import torch

from stepaudio_runtime.audio.loudness import trim
from stepaudio_runtime.checkpoints import nano_trained as stored
from stepaudio_runtime.contract import SPEECH_RATE
from stepaudio_runtime.engine.domain.texts import Language
from stepaudio_runtime.errors import InputError
from stepaudio_runtime.tokenizer.dual import RATE, preprocess
from stepaudio_runtime.train.codes import Coder
from stepaudio_runtime.train.corpus import Utterance, speech
from stepaudio_runtime.train.speech_lm import VoiceStart
from stepaudio_runtime.train.weights import save_weights

NAMES = {
    Language.ENGLISH: {"en-us+f2": "Treble", "en-us+f5": "Alto"},
    Language.CHINESE: {"cmn+f2": "Treble", "cmn+f5": "Alto"},
}
"""The teacher's voices that are spoken with, by language, and what they are called; the first is the default.

A name is one timbre: the variant of a voice that the teacher speaks every language with."""
SHORTEST_S, LONGEST_S = 1.7, 2.2


def name_of(teacher: str) -> str | None:
    """What the teacher's voice is called, whatever language it speaks; or None."""
    return next((names[teacher] for names in NAMES.values() if teacher in names), None)


def choose_prompts(utterances: list[Utterance]) -> dict[str, Utterance]:
    """By name, the first plain English utterance of each voice that is neither short nor long."""
    english = NAMES[Language.ENGLISH]
    chosen: dict[str, Utterance] = {}
    for utterance in utterances:
        name = english.get(utterance.voice)
        if not name or name in chosen or utterance.tag:
            continue
        if SHORTEST_S <= len(speech(utterance)) / SPEECH_RATE <= LONGEST_S:
            chosen[name] = utterance
    if not chosen:
        message = (
            f"no utterance of {' or '.join(english)} of {SHORTEST_S} to {LONGEST_S} s to take as a prompt"
        )
        raise InputError(message, param="corpus")
    return {name: chosen[name] for name in english.values() if name in chosen}


def save_prompts(prompts: dict[str, Utterance], path: Path) -> None:
    """Recordings as 16 bit, transcripts beside them.

    The wave is cut as the tokenizers will cut it, so that codes and mel of a prompt are of one stretch.
    """
    tensors = {}
    for name, utterance in prompts.items():
        wave = speech(utterance)
        cut = trim(preprocess(wave, SPEECH_RATE, trim_silence=False))
        wave = wave[: min(len(wave), round(len(cut) * SPEECH_RATE / RATE))]
        tensors[name] = torch.from_numpy(np.round(wave * 32767).astype(np.int16))
    transcripts = json.dumps({name: utterance.text for name, utterance in prompts.items()})
    save_weights(path, tensors, {"transcripts": transcripts})


def prompt_codes(weights: Path) -> dict[str, VoiceStart]:
    """The prompts as the language model sees them, by the trained tokenizers."""
    coder = Coder.from_weights(weights)
    return {
        name: VoiceStart(
            voice.transcript, tuple(coder(preprocess(voice.wave, SPEECH_RATE, trim_silence=True)).codes)
        )
        for name, voice in stored.trained_voices(weights).items()
    }
