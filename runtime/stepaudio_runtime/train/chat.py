"""Stage `chat`: the language model that hears audio codes: it writes down, answers, and calls tools.

Every row is a prompt as the gateway makes it (`codec.chat_template`): a system turn that all rows of a batch
share, maybe an earlier exchange, then what the user says, in codes or in letters. What is to be learnt are
the assistant's turns behind that.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from stepaudio_runtime.codec.chat_template import TRANSCRIPTION_PROMPT, Part, Turn, chat_ids
from stepaudio_runtime.codec.tools import ToolCall, system_with_tools, written
from stepaudio_runtime.codec.tts_prompt import Encode
from stepaudio_runtime.contract import BOT_ID, EOT_ID
from stepaudio_runtime.engine.domain.english import ARITHMETIC
from stepaudio_runtime.engine.domain.texts import Exchange
from stepaudio_runtime.engine.domain.tools import FUNCTIONS
from stepaudio_runtime.engine.domain.topic import ToolCall as DomainCall
from stepaudio_runtime.models.step1 import Step1, Step1Config
from stepaudio_runtime.train.answers import Answers, Row
from stepaudio_runtime.train.everyday import often_enough
from stepaudio_runtime.train.loop import Losses, Plan, step_random
from stepaudio_runtime.train.speech_lm import as_written

BATCH = 16  # conversations
TYPED = 20_000  # exchanges drawn from the domain, to be read
TYPED_BATCH = 48  # of those whose questions are typed, which are shorter
PLAN = Plan(steps=4000, rate=2e-3, warmup=100, weight_decay=0.05, bfloat16=True)
SYSTEMS = ("", "You are a helpful assistant.", "You are a helpful voice assistant. Answer in one sentence.")
WITHOUT_TOOL = "sorry please say that again"
"""What is answered where only a tool would know: a model that invents the time is worse than none."""
_TRANSCRIBE, _TYPED = 0.2, 0.5  # of the batches; the rest answers what it hears
_SUMS = 0.6  # of the typed batches: sums alone, whose results are known by heart or not at all
_TOOLS = 0.5  # of the batches with answers: tools are offered
_EARLIER = 0.15  # of the batches: an exchange before this one
_LANGUAGE = 0.3  # of the transcriptions: the language is named


@dataclass(frozen=True)
class Heard:
    """An utterance as codes, with what was said."""

    text: str
    codes: tuple[int, ...]


Question = tuple[Part, Exchange]
"""What the user's turn holds, codes or letters, and what is done about it."""


class ChatStage:
    """The model and batches of conversations.

    `answers` says by its text what is done about a request that is heard, `typed` are requests to read.
    """

    def __init__(  # noqa: PLR0917 - what it learns from, in order
        self,
        config: Step1Config,
        heard: Sequence[Heard],
        answers: Mapping[str, Exchange],
        typed: Sequence[Exchange],
        encode: Encode,
        audio_offset: int,
        seed: int,
    ) -> None:
        torch.manual_seed(seed)
        self.module = Step1(config)
        self._seed, self._encode, self._offset = seed, encode, audio_offset
        self._exchanges = {**{each.request: each for each in typed}, **answers}
        self._typed = typed
        self._sums = [each for each in typed if each.topic == ARITHMETIC.name]
        self._heard = sorted(heard, key=_length)
        questions = [each for each in self._heard if each.text in answers]
        self._questions = sorted(often_enough(questions, lambda each: each.text), key=_length)
        self.answers = Answers(self.module, self._wanted())

    def loss(self, step: int, part: int) -> Losses:
        """One batch: conversations of like length under one system prompt."""
        random = step_random(self._seed, step, part)
        kind = random.random()
        if kind < _TRANSCRIBE:
            prompt = TRANSCRIPTION_PROMPT + ("\nlanguage: en" if random.random() < _LANGUAGE else "")
            rows = [self._transcript(each) for each in _window(self._heard, random)]
            return self.answers.loss(self._beginning(prompt), rows)
        typed = kind < _TRANSCRIBE + _TYPED
        questions = self._some_typed(random) if typed else self._some_heard(random)
        offered = _some_tools(random) if random.random() < _TOOLS else ()
        earlier = questions if random.random() < _EARLIER else []
        system = SYSTEMS[int(random.integers(len(SYSTEMS)))]
        prompt = system_with_tools(system, [FUNCTIONS[name] for name in offered])
        rows = [self._conversation(each, offered, earlier, random) for each in questions]
        return self.answers.loss(self._beginning(prompt), rows)

    def exported(self) -> dict[str, torch.Tensor]:
        """The state dict to serve."""
        systems = [TRANSCRIPTION_PROMPT + "\nlanguage: en", *SYSTEMS]
        systems += [system_with_tools(system, list(FUNCTIONS.values())) for system in SYSTEMS]
        read = {id_ for system in systems for id_ in self._beginning(system)}
        roles = "human", "assistant", "tool"
        results = (json.dumps(e.tool.result) for e in self._exchanges.values() if e.tool)
        texts = {each.text for each in self._heard} | {e.reply for e in self._exchanges.values()}
        spelt = [*(f"{role}\n" for role in roles), *results, *texts, *(as_written(text) for text in texts)]
        spelt += [f"{role}\n{text[:24]}" for role in roles for text in spelt]
        read |= {id_ for text in spelt for id_ in self._encode(text)}
        read |= {self._offset + code for each in self._heard for code in each.codes}
        return self.answers.exported(read)

    def _wanted(self) -> set[int]:
        texts = {each.text for each in self._heard} | {as_written(WITHOUT_TOOL)}
        for exchange in self._exchanges.values():
            texts.add(as_written(exchange.reply))
            if exchange.tool:
                texts.add(_call(exchange.tool))
        return {EOT_ID} | {id_ for text in texts for id_ in self._encode(text)}

    def _some_heard(self, random: np.random.Generator) -> list[Question]:
        return [(each.codes, self._exchanges[each.text]) for each in _window(self._questions, random)]

    def _some_typed(self, random: np.random.Generator) -> list[Question]:
        asked = self._sums if self._sums and random.random() < _SUMS else self._typed
        drawn = [asked[i] for i in random.integers(len(asked), size=TYPED_BATCH)]
        as_people_write = random.random(TYPED_BATCH) < 0.5
        return [
            (as_written(each.request) if people else each.request, each)
            for each, people in zip(drawn, as_people_write, strict=True)
        ]

    def _beginning(self, system: str) -> list[int]:
        """The system turn and the mark of the turn behind it."""
        turns = [Turn("system", (system,))] if system else []
        ids = self._ids([*turns, Turn("assistant", None)])
        return ids[: -len(self._encode("assistant\n"))]

    def _transcript(self, each: Heard) -> Row:
        return Row.of((self._asked((each.codes,)), ([*self._encode(each.text), EOT_ID], True)))

    def _conversation(
        self,
        question: Question,
        offered: Sequence[str],
        earlier: Sequence[Question],
        random: np.random.Generator,
    ) -> Row:
        parts: list[tuple[Sequence[int], bool]] = []
        if earlier:
            parts += self._exchange(earlier[int(random.integers(len(earlier)))], offered)
            parts.append(([BOT_ID], False))
        return Row.of((*parts, *self._exchange(question, offered)))

    def _exchange(self, question: Question, offered: Sequence[str]) -> list[tuple[Sequence[int], bool]]:
        said, exchange = question
        parts = [self._asked((said,))]
        reply, tool = exchange.reply, exchange.tool
        if tool is not None and tool.name in offered:
            parts.append(([*self._encode(_call(tool)), EOT_ID], True))
            result = Turn("tool", (json.dumps(tool.result),))
            parts.append((self._ids([result, Turn("assistant", None)]), False))
        elif tool is not None and tool.name == "time":
            reply = WITHOUT_TOOL
        return [*parts, ([*self._encode(as_written(reply)), EOT_ID], True)]

    def _asked(self, content: tuple[Part, ...]) -> tuple[list[int], bool]:
        """The user's turn and the opening of the answer, without the mark that stands before it."""
        return self._ids([Turn("user", content), Turn("assistant", None)])[1:], False

    def _ids(self, turns: Sequence[Turn]) -> list[int]:
        return chat_ids(turns, encode=self._encode, audio_offset=self._offset)


def _length(each: Heard) -> int:
    return len(each.codes)


def _window(held: Sequence[Heard], random: np.random.Generator) -> Sequence[Heard]:
    first = int(random.integers(max(1, len(held) - BATCH)))
    return held[first : first + BATCH]


def _call(tool: DomainCall) -> str:
    return written(ToolCall(tool.name, json.dumps(tool.arguments)))


def _some_tools(random: np.random.Generator) -> tuple[str, ...]:
    """At least one of the tools, in any order; mostly all of them."""
    names = list(FUNCTIONS)
    random.shuffle(names)
    return tuple(names if random.random() < 0.6 else names[: int(random.integers(1, len(names)))])
