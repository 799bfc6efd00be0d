"""How a text is to be spoken: emotion, language or dialect, rate, style, as typed fields, tags or words.

The model obeys tags in front of its text, `(四川话)(高兴1)你好`, in ASCII or full-width brackets. A caller
may write them itself, fill in fields, or describe them (`instructions`, see `instruction_grammar.py`); what
was asked for in one way wins over the next: field, tag, words. Strictly read, an unknown tag or a
contradiction is an error; compatibly, a text that begins with other brackets is read aloud without them.
The model gets the reference's own tags, music first, because that one chooses the prompt and the decoder.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from enum import StrEnum

from stepaudio_runtime.codec.instruction_grammar import Wish, understand
from stepaudio_runtime.codec.instructions import Instruction
from stepaudio_runtime.codec.tags import TAGS, Group
from stepaudio_runtime.errors import InputError

LONGEST_TAG = 24
"""Characters between brackets beyond which they hold a remark, not a tag."""

NAMES: Mapping[Group, Mapping[str, str]] = {
    Group.STYLE: {"rap": "RAP", "humming": "哼唱"},
    Group.LANGUAGE: {
        "chinese": "中文",
        "english": "英文",
        "korean": "韩语",
        "japanese": "日语",
        "sichuanese": "四川话",
        "cantonese": "粤语",
    },
    Group.EMOTION: {
        "happy": "高兴1",
        "very_happy": "高兴2",
        "angry": "生气1",
        "very_angry": "生气2",
        "sad": "悲伤1",
        "coquettish": "撒娇1",
    },
    Group.RATE: {"slow": "慢速1", "very_slow": "慢速2", "fast": "快速1", "very_fast": "快速2"},
}
"""The model's tag by the name that callers may use for it, beside the tag itself."""

_MORE = {"humming (哼唱)": "哼唱", "zh": "中文", "en": "英文", "ko": "韩语", "ja": "日语", "yue": "粤语"}


def _plain(name: str) -> str:
    """A name for comparison: one width of letters, small, without spaces and what stands for them."""
    return re.sub(r"[\s_-]+", "", unicodedata.normalize("NFKC", name).casefold())


_TAG_BY_NAME = {
    _plain(name): tag
    for names in ({tag: tag for tags in TAGS.values() for tag in tags}, *NAMES.values(), _MORE)
    for name, tag in names.items()
}
_GROUP = {tag: group for group, tags in TAGS.items() for tag in tags}
_OPENING, _CLOSING = "(（", ")）"


class Reading(StrEnum):
    """How tags and words that mean nothing are taken."""

    STRICT = "strict"
    COMPATIBLE = "compatible"


@dataclass(frozen=True)
class Controls:
    """The model's own tag of each group, or None."""

    style: str | None = None
    language: str | None = None
    emotion: str | None = None
    rate: str | None = None

    @property
    def tags(self) -> str:
        """What stands in front of the text, as the reference writes it."""
        return "".join(f"({tag})" for field in fields(self) if (tag := getattr(self, field.name)))


@dataclass(frozen=True)
class Directed:
    """A text, how to speak it, and a note on everything that was asked for in vain."""

    text: str
    controls: Controls
    notes: tuple[str, ...] = ()

    @property
    def wire(self) -> str:
        """Tags and text as the TTS pod takes them."""
        return self.controls.tags + self.text


def known_tags(group: Group | None = None) -> str:
    """The tags and names that may be asked for, in words."""
    groups = [group] if group else list(TAGS)
    return "; ".join(f"{each}: {', '.join([*NAMES[each], *TAGS[each]])}" for each in groups)


def split_tags(text: str) -> tuple[str, str]:
    """The model's own tags that `text` begins with, as they are written, and the rest; together the text."""
    names, end = _model_tags(text)
    return (text[:end], text[end:]) if names else ("", text)


def split_names(text: str) -> tuple[str, str]:
    """The tags that a caller's `text` begins with, by any of their names, and the rest; together the text."""
    _, rest = _named_tags(text)
    return text[: len(text) - len(rest)], rest


def music(text: str) -> Instruction | None:
    """What among the tags in front of `text` asks for the music decoder; words of the text never do."""
    names, _ = _model_tags(text)
    return next((Instruction(name) for name in names if name in TAGS[Group.STYLE]), None)


def _model_tags(text: str) -> tuple[list[str], int]:
    """The model's tags that `text` begins with, and where they end."""
    names: list[str] = []
    end = 0
    while (found := _bracket(text[end : end + LONGEST_TAG + 2])) is not None and found.name in _GROUP:
        names.append(found.name)
        end += found.length
    return names, end


def direct(
    text: str,
    *,
    typed: Mapping[Group, str] | None = None,
    instructions: str = "",
    reading: Reading = Reading.COMPATIBLE,
) -> Directed:
    """What to say and how, from a text with its tags, the typed fields and the instructions in words.

    Raises InputError for an unknown value of a field, for a text without a word beside its tags, and, read
    strictly, for an unknown tag, words that are not understood, and contradictions.
    """
    strict = reading is Reading.STRICT
    notes: list[str] = []
    asked = [(group, _field(group, value), group.value) for group, value in (typed or {}).items()]
    tags, rest = _read_tags(text, strict=strict)
    asked += [(_GROUP[tag], tag, "input") for tag in tags]
    wishes = _understood(instructions, notes, strict=strict)
    asked += [(wish.group, wish.tag, "instructions") for wish in wishes]
    controls = Controls()
    for group, tag, param in asked:
        before = getattr(controls, group.value)
        if before is None:
            controls = replace(controls, **{group.value: tag})
        elif before != tag:
            message = f"{param} asks for {tag} and {group.value} is {before} already"
            if strict:
                raise InputError(f"{message}; ask for one of them", param=param, code="conflicting_controls")
            notes.append(f"{message}: ignored")
    if not rest.strip():
        raise InputError("there is nothing to say beside the tags", param="input", code="empty_input")
    return Directed(rest, controls, tuple(notes))


def _field(group: Group, value: str) -> str:
    tag = _TAG_BY_NAME.get(_plain(value))
    if tag is None or _GROUP[tag] is not group:
        raise InputError(
            f"{group.value} {value[:40]!r} is unknown; known are {known_tags(group)}",
            param=group.value,
            code="unknown_control",
        )
    return tag


def _understood(instructions: str, notes: list[str], *, strict: bool) -> tuple[Wish, ...]:
    wishes, unknown = understand(instructions)
    if unknown:
        said = ", ".join(repr(part[:60]) for part in unknown[:5])
        if strict:
            raise InputError(
                f"not understood: {said}; known are {known_tags()}",
                param="instructions",
                code="unknown_instruction",
            )
        notes.append(f"instructions not understood: {said}")
    return wishes


def _read_tags(text: str, *, strict: bool) -> tuple[list[str], str]:
    """The model's tags by what the text begins with, and the text without them."""
    tags, rest = _named_tags(text)
    found = _bracket(rest)
    if found is None:
        return tags, rest
    if strict:
        raise InputError(
            f"the text begins with the unknown tag {found.name[:40]!r}; known are {known_tags()}",
            param="input",
            code="unknown_tag",
        )
    return tags, _aloud(rest)


def _named_tags(text: str) -> tuple[list[str], str]:
    """The model's tags by what the text begins with, up to a bracket that names none, and the rest."""
    tags: list[str] = []
    rest = text.lstrip()
    while (found := _bracket(rest)) is not None and (tag := _TAG_BY_NAME.get(_plain(found.name))) is not None:
        tags.append(tag)
        rest = rest[found.length :].lstrip()
    return tags, rest


def _aloud(text: str) -> str:
    """`text` with the brackets that it begins with taken off: a remark to read, not a tag to obey."""
    said = ""
    while (found := _bracket(text)) is not None:
        name = "".join(char for char in found.name if char not in _OPENING + _CLOSING).strip()
        said += f"{name}, " if name else ""
        text = text[found.length :].lstrip()
    return said + text


@dataclass(frozen=True)
class _Bracket:
    """What a text begins with: the words between brackets, and the length of all of it."""

    name: str
    length: int


def _bracket(text: str) -> _Bracket | None:
    """A closed bracket, which may hold others, with at most LONGEST_TAG characters in one line."""
    if not text or text[0] not in _OPENING:
        return None
    depth = 0
    for position, char in enumerate(text[: LONGEST_TAG + 2]):
        depth += (char in _OPENING) - (char in _CLOSING)
        if char == "\n":
            return None
        if depth == 0:
            return _Bracket(text[1:position].strip(), position + 1)
    return None
