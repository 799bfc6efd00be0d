"""The teacher's speech as the stages read it: a folder of waves with a manifest of what is said in them.

`manifest.jsonl`, an object a line:
`{"audio": file, "text": words, "voice": name, "tag": "", "split": "train"}`.
Waves are at 22,050 Hz, of more channels the mean is taken. The silence around the words is cut to what a
voice's prompt keeps, so that the tokenizers, the flow and the language model see the same stretch of sound.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from zlib import crc32

import numpy as np
from numpy.typing import NDArray

from stepaudio_runtime.audio.resample import resample
from stepaudio_runtime.contract import SPEECH_RATE
from stepaudio_runtime.errors import InputError
from stepaudio_runtime.pods.sound_file import read_mono

Samples = NDArray[np.float32]
MANIFEST = "manifest.jsonl"
TOKENIZER_RATE = 16_000  # Hz
BEFORE_S, AFTER_S = 0.05, 0.15  # silence that is left around the words
_SILENCE_S = 0.5  # the longest around a recording
_QUIET = 10 ** (-40 / 20)  # of the loudest sample: below it there is no speech


@dataclass(frozen=True)
class Utterance:
    """One line of the manifest. `tag` is a control tag such as 慢速1, or empty."""

    audio: Path
    text: str
    voice: str
    tag: str
    split: str


def read_corpus(folder: Path, split: str = "train") -> list[Utterance]:
    """The utterances of one split, in the manifest's order; what names no split is for training.

    Raises InputError.
    """
    manifest = folder / MANIFEST
    try:
        lines = [json.loads(line) for line in manifest.read_text(encoding="utf-8").splitlines()]
        found = [
            Utterance(
                folder / line["audio"],
                line["text"],
                line["voice"],
                line.get("tag", ""),
                line.get("split") or "train",
            )
            for line in lines
        ]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(f"{manifest} is no manifest of utterances: {error!r}", param="corpus") from error
    chosen = [utterance for utterance in found if utterance.split == split]
    if not chosen:
        raise InputError(f"{manifest} holds no utterance of the split {split!r}", param="corpus")
    return chosen


def voices(utterances: list[Utterance]) -> list[str]:
    """The voices' names, sorted: a voice's number is its place here."""
    return sorted({utterance.voice for utterance in utterances})


@lru_cache(maxsize=8192)
def speech(utterance: Utterance) -> NDArray[np.float32]:
    """The words' samples (N,) at 22,050 Hz, with a little silence around them.

    Raises InputError, AudioError where it cannot be read; both name the file.
    """
    wave, rate = read_mono(utterance.audio)
    if rate != SPEECH_RATE:
        raise InputError(f"{utterance.audio} is at {rate} Hz, not at {SPEECH_RATE} Hz", param="corpus")
    loud = np.flatnonzero(np.abs(wave) > _QUIET * max(float(np.abs(wave).max(initial=0.0)), 1e-4))
    if not len(loud):
        raise InputError(f"{utterance.audio} is silent", param="corpus")
    first, last = loud[0] - int(BEFORE_S * SPEECH_RATE), loud[-1] + int(AFTER_S * SPEECH_RATE)
    padded = np.pad(wave[max(0, first) : last], (max(0, -first), max(0, last - len(wave))))
    return np.asarray(padded, np.float32)


@lru_cache(maxsize=8192)
def speech_16k(utterance: Utterance) -> NDArray[np.float32]:
    """The same at 16 kHz with a peak of 0.999, as the tokenizers take it."""
    wave = resample(speech(utterance), SPEECH_RATE, TOKENIZER_RATE)
    return np.asarray(wave / np.abs(wave).max() * 0.999, np.float32)


def as_recorded(utterance: Utterance) -> Samples:
    """The same as people record it: with up to half a second of silence before and after."""
    wave = speech_16k(utterance)
    drawn = np.random.default_rng(crc32(utterance.audio.name.encode()))
    before, after = (drawn.random(2) * _SILENCE_S * TOKENIZER_RATE).astype(int)
    return np.pad(wave, (before, after))


LETTERS = "abcdefghijklmnopqrstuvwxyz'"
BLANK = 0


def letters(text: str) -> list[int]:
    """What CTC is to find: the letters as 1..27, doubled ones once, all else left out.

    Ids come at 16 2/3 a second; spaces and doubled letters would need more of them than fast speech has.
    """
    ids = [LETTERS.index(letter) + 1 for letter in text.lower() if letter in LETTERS]
    return [id_ for i, id_ in enumerate(ids) if i == 0 or id_ != ids[i - 1]]
