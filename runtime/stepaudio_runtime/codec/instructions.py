"""The instruction in front of a text to speak: `(高兴1)…`, `（RAP）…`, in ASCII or full-width brackets."""

from __future__ import annotations

from enum import StrEnum

_OPENING = "(（"
_CLOSING = ")）"


class Instruction(StrEnum):
    """The instructions that choose another prompt and another flow and vocoder."""

    RAP = "RAP"
    HUMMING = "哼唱"


def instruction_name(text: str) -> str:
    """Name between the brackets that `text` starts with, "" where there is none, as the reference reads it.

    It runs to the ASCII closing bracket or, if there is none before the next ASCII opening bracket, to the
    last full-width one: `（RAP）文本（注）` has the name `RAP）文本（注`. `controls.music` reads it better.
    """
    if not text or text[0] not in _OPENING:
        return ""
    rest = text[1:]
    run = next((i for i, char in enumerate(rest) if char in "()"), len(rest))
    if run < len(rest) and rest[run] == ")":
        end = run
    else:
        end = rest.rfind("）", 0, run)
        if end < 0:
            return ""
    return rest[:end].strip(_OPENING + _CLOSING)
