"""Texts of a domain: drawn at random but always the same, split into training and unseen by construction.

The split is of contents, not of texts: one content in ten is held out, by a hash of its key, with all its
forms. So "turn on the office fan" is unseen only if no wording of it, question or answer, is ever trained on.
A form without a slot has no content and is always for training.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from enum import StrEnum
from hashlib import blake2b
from itertools import islice

from stepaudio_runtime.engine.domain import chinese, english
from stepaudio_runtime.engine.domain.topic import SLOT, Content, ToolCall, Topic, fill
from stepaudio_runtime.errors import InputError

HELD_OUT = 10
"""One content in so many is unseen."""
_MAX_DRAWS_WITHOUT_NEWS = 5_000


class Language(StrEnum):
    """Languages that have a domain."""

    ENGLISH = "en"
    CHINESE = "zh"


class Split(StrEnum):
    """Which contents: those trained on, or those held out."""

    TRAIN = "train"
    UNSEEN = "unseen"


class Role(StrEnum):
    """Who says it."""

    REQUEST = "request"
    REPLY = "reply"


@dataclass(frozen=True)
class Sentence:
    """A text to speak or to hear; words of lower case separated by one space (Chinese: characters)."""

    text: str
    topic: str
    role: Role


@dataclass(frozen=True)
class Exchange:
    """A request, what is done about it, and the reply."""

    topic: str
    request: str
    tool: ToolCall | None
    reply: str


_TOPICS: dict[Language, tuple[Topic, ...]] = {
    Language.ENGLISH: english.TOPICS,
    Language.CHINESE: chinese.TOPICS,
}


def topics(language: Language) -> tuple[Topic, ...]:
    """The topics of `language`."""
    return _TOPICS[language]


def split_of(topic: Topic, content: Content) -> Split:
    """The split that `content` belongs to, whatever words it is put in."""
    if topic.size == 1:
        return Split.TRAIN
    return Split.UNSEEN if _hash(topic.name, content.key) % HELD_OUT == 0 else Split.TRAIN


def sentences(language: Language, split: Split, count: int, seed: int = 0) -> list[Sentence]:
    """`count` different sentences, the same for the same `seed`, the first n of them for a smaller count.

    Raises InputError where the split has fewer than `count` of them.
    """
    found = list(islice(_different(_sentences(language, split, seed)), count))
    if len(found) < count:
        message = f"the {language.value} domain gave {len(found)} {split.value} sentences, not {count}"
        raise InputError(f"{message}; ask for fewer", param="count", code="too_few_texts")
    return found


def exchanges(language: Language, split: Split, count: int, seed: int = 0) -> list[Exchange]:
    """`count` exchanges, the same for the same `seed`; they may repeat where a topic is small."""
    return list(islice(_exchanges(language, split, seed), count))


def asked(language: Language, split: Split, count: int, seed: int = 0) -> dict[str, Exchange]:
    """By its text, what is done about each request among the first `count` sentences, and the reply."""
    found: dict[str, Exchange] = {}
    seen: set[str] = set()
    for topic, form, role, content in _drawn(language, split, seed):
        text = fill(form, content.slots)
        if text in seen:
            continue
        seen.add(text)
        if role is Role.REQUEST:
            found[text] = Exchange(topic.name, text, content.tool, fill(topic.reply, content.slots))
        if len(seen) == count:
            return found
    raise AssertionError("the draws are endless")  # pragma: no cover


def _sentences(language: Language, split: Split, seed: int) -> Iterator[Sentence]:
    for topic, form, role, content in _drawn(language, split, seed):
        yield Sentence(fill(form, content.slots), topic.name, role)


def _exchanges(language: Language, split: Split, seed: int) -> Iterator[Exchange]:
    for number, (topic, _, _, content) in enumerate(_drawn(language, split, seed)):
        if topic.requests:
            request = topic.requests[_hash(seed, number, "request") % len(topic.requests)]
            request, reply = fill(request, content.slots), fill(topic.reply, content.slots)
            yield Exchange(topic.name, request, content.tool, reply)


def _drawn(language: Language, split: Split, seed: int) -> Iterator[tuple[Topic, str, Role, Content]]:
    """Endless draws of a topic, one of its forms, and a content of `split`."""
    # Unseen sentences need a content: courtesies have none.
    usable = [topic for topic in topics(language) if split is Split.TRAIN or topic.size > 1]
    wheel = [topic for topic in usable for _ in range(topic.weight)]
    draw = 0
    while True:
        draw += 1
        topic = wheel[_hash(seed, draw, "topic") % len(wheel)]
        content = topic.content(_hash(seed, draw, "content") % topic.size)
        forms = [(form, Role.REQUEST) for form in topic.requests] + [(topic.reply, Role.REPLY)]
        form, role = forms[_hash(seed, draw, "form") % len(forms)]
        plain = not SLOT.search(form)
        if split_of(topic, content) is split and not (plain and split is Split.UNSEEN):
            yield topic, form, role, content


def _different(found: Iterable[Sentence]) -> Iterator[Sentence]:
    """Sentences of new texts, until there is no news for long."""
    seen: set[str] = set()
    stale = 0
    for sentence in found:
        if sentence.text not in seen:
            seen.add(sentence.text)
            stale = 0
            yield sentence
        elif (stale := stale + 1) >= _MAX_DRAWS_WITHOUT_NEWS:
            return


def _hash(*key: object) -> int:
    # Not `random`: its draws differ between versions of Python, and a hash needs no state to be resumed.
    return int.from_bytes(blake2b(json.dumps(key).encode(), digest_size=8).digest(), "big")
