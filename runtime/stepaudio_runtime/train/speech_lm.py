"""Stage `tts`: the language model on the TTS prompt, next token, the loss on the answer alone.

What every example of a voice has in common (system prompt, the voice's transcript and codes) is most of the
prompt and says least. So most of the training shows only its end, and the last part all of it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from stepaudio_runtime.codec.tts_prompt import Encode, after_break, tts_prompt_ids
from stepaudio_runtime.contract import BOT_ID, EOT_ID
from stepaudio_runtime.models.step1 import Step1, Step1Config
from stepaudio_runtime.train.answers import Answers, Row
from stepaudio_runtime.train.everyday import often_enough
from stepaudio_runtime.train.loop import Losses, Plan, step_random
from stepaudio_runtime.tts.text import wide_characters

BATCH, WHOLE_BATCH = 32, 16  # answers
PLAN = Plan(steps=2400, rate=2.5e-3, warmup=100, weight_decay=0.05, bfloat16=True)
WHOLE_FROM = 0.8  # of the steps: from there on the whole prompt
SHORT_END = (8, 48)  # tokens of the prompt's beginning that are shown until then
WRITTEN = 0.4  # of the texts: with a capital and a mark at the end, as people write
COMMA = 0.3  # of those: one comma somewhere
ENDS = (".", "?", "!")
WIDE_ENDS = ("。", "？", "！")  # where the text is Chinese


@dataclass(frozen=True)
class Example:
    """A text to speak in a voice and the codes to answer with."""

    text: str
    voice: str
    codes: tuple[int, ...]


@dataclass(frozen=True)
class VoiceStart:
    """A voice of the prompt: transcript and codes of its recording."""

    transcript: str
    codes: tuple[int, ...]


class SpeechLmStage:
    """The model, the voices' beginnings, and batches of answers of like length."""

    def __init__(  # noqa: PLR0917 - what it learns from, in order
        self,
        config: Step1Config,
        examples: Sequence[Example],
        starts: Mapping[str, VoiceStart],
        encode: Encode,
        audio_offset: int,
        seed: int,
        steps: int = PLAN.steps,
    ) -> None:
        torch.manual_seed(seed)
        self.module = Step1(config)
        self._seed, self._steps, self._encode, self._offset = seed, steps, encode, audio_offset
        self._assistant = encode("assistant\n")
        self.beginnings = {name: self._beginning(name, start) for name, start in starts.items()}
        wanted = {EOT_ID, *(audio_offset + code for example in examples for code in example.codes)}
        self.answers = Answers(self.module, wanted)
        drawn = often_enough(examples, lambda each: each.text.rpartition(")")[2])  # without its tag
        self._by_voice = {
            name: sorted((e for e in drawn if e.voice == name), key=lambda e: len(e.codes)) for name in starts
        }

    def loss(self, step: int, part: int) -> Losses:
        """One batch: answers of one voice."""
        random = step_random(self._seed, step, part)
        names = sorted(self._by_voice)
        name = names[int(random.integers(len(names)))]
        held = self._by_voice[name]
        whole = step >= WHOLE_FROM * self._steps
        batch = WHOLE_BATCH if whole else BATCH
        first = int(random.integers(max(1, len(held) - batch)))
        rows = [self._row(example, random) for example in held[first : first + batch]]
        beginning = self.beginnings[name]
        if not whole:
            beginning = beginning[-int(random.integers(*SHORT_END)) :]
        return self.answers.loss(beginning, rows)

    def exported(self) -> dict[str, Tensor]:
        """The state dict to serve."""
        texts = {example.text for held in self._by_voice.values() for example in held}
        asked = (self._asked(each) for text in texts for each in (text, *as_anybody_writes(text)))
        return self.answers.exported(id_ for ids in (*self.beginnings.values(), *asked) for id_ in ids)

    def _row(self, example: Example, random: np.random.Generator) -> Row:
        text = _as_somebody_writes(example.text, random) if random.random() < WRITTEN else example.text
        codes = [self._offset + code for code in example.codes]
        return Row.of(((self._asked(text), False), ([*codes, EOT_ID], True)))

    def _asked(self, text: str) -> list[int]:
        return [*after_break(text, self._encode), EOT_ID, BOT_ID, *self._assistant]

    def _beginning(self, name: str, start: VoiceStart) -> list[int]:
        prompt = tts_prompt_ids(
            "",
            voice_text=start.transcript,
            voice_codes=start.codes,
            speaker=name,
            encode=self._encode,
            audio_offset=self._offset,
            strict=True,
        )
        return prompt[: -len([EOT_ID, BOT_ID, *self._assistant])]


def as_written(text: str) -> str:
    """The words as a sentence."""
    return text[:1].upper() + text[1:] + "."


def _as_somebody_writes(text: str, random: np.random.Generator) -> str:
    """The words with marks that the speech is none the wiser for."""
    words = text.split(" ")
    if len(words) > 1 and random.random() < COMMA:
        words[int(random.integers(len(words) - 1))] += ","
    ends = _ends(text)
    return as_written(" ".join(words))[:-1] + ends[int(random.integers(len(ends)))]


def as_anybody_writes(text: str) -> list[str]:
    """Texts that hold every id of what `_as_somebody_writes` gives."""
    ends = _ends(text)
    return [f"{as_written(marked)[:-1]}{end}" for marked in (text, text.replace(" ", ", ")) for end in ends]


def _ends(text: str) -> tuple[str, ...]:
    return WIDE_ENDS if wide_characters(text) else ENDS
