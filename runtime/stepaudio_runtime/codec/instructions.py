"""The instruction in front of a text to speak: `(高兴1)…`, `（RAP）…`, in ASCII or full-width brackets."""

from __future__ import annotations

from enum import StrEnum

_OPENING = "(（"
_CLOSING = ")）"


class Instruction(StrEnum):
    """The instructions that choose another prompt and another flow and vocoder."""

    RAP = "RAP"
    HUMMING = "哼唱"


def instruction_name(text: str, *, strict: bool = False) -> str:
    """Name between the brackets that `text` starts with, "" where there is none.

    As the reference reads it, the name runs to the ASCII closing bracket or, if there is none before the
    next ASCII opening bracket, to the last full-width one: `（RAP）文本（注）` has the name `RAP）文本（注`.
    With `strict` the name ends at the first closing bracket of either kind, holds no opening one, and is
    stripped of spaces.
    """
    if not text or text[0] not in _OPENING:
        return ""
    return _strict_name(text[1:]) if strict else _greedy_name(text[1:])


def _strict_name(rest: str) -> str:
    end = next((i for i, char in enumerate(rest) if char in _CLOSING), None)
    if end is None or any(char in _OPENING for char in rest[:end]):
        return ""
    return rest[:end].strip()


def _greedy_name(rest: str) -> str:
    run = next((i for i, char in enumerate(rest) if char in "()"), len(rest))
    if run < len(rest) and rest[run] == ")":
        end = run
    else:
        end = rest.rfind("）", 0, run)
        if end < 0:
            return ""
    return rest[:end].strip(_OPENING + _CLOSING)
