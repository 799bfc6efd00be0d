"""Tools in the chat model's words: how they are offered, called and answered. No I/O.

Step-Audio's published models say nothing about a format for tools, so this project takes the most widespread
one: the tools stand in the system prompt as JSON, a line each; a call is JSON between `<tool_call>` and
`</tool_call>`; what came of it is a turn of the role `tool`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pydantic_core import from_json

CALL_BEGIN, CALL_END = "<tool_call>", "</tool_call>"
MAX_CALL_CHARACTERS = 32_768
"""Of one call: beyond it the model is not calling but rambling."""


@dataclass(frozen=True)
class ToolCall:
    """A call of the function `name`; `arguments` is a JSON object as text."""

    name: str
    arguments: str


@dataclass(frozen=True)
class Spoken:
    """What an answer's new text adds: words for the user, and calls that are complete."""

    text: str = ""
    calls: tuple[ToolCall, ...] = ()


def offer(functions: Sequence[Mapping[str, Any]]) -> str:
    """The end of a system prompt that offers `functions` (`name`, `description`, `parameters`)."""
    lines = "".join(f"{_json(function)}\n" for function in functions)
    return f"# Tools\n{lines}{CALL_BEGIN}{_json({'name': '', 'arguments': {}})}{CALL_END}"


def system_with_tools(system: str, functions: Sequence[Mapping[str, Any]]) -> str:
    """A whole system prompt: the caller's own words first."""
    return "\n\n".join(part for part in (system, offer(functions) if functions else "") if part)


def written(call: ToolCall) -> str:
    """A call as the model writes it; its arguments in the shortest form where they are JSON."""
    try:
        arguments = _json(_read(call.arguments))
    except ValueError:
        arguments = call.arguments
    return f'{CALL_BEGIN}{{"name":{_json(call.name)},"arguments":{arguments}}}{CALL_END}'


class ToolCallReader:
    """Reads an answer that arrives in pieces: words come out at once, calls when they are whole.

    Words that could be the beginning of a call are held back until they are, or are not. A call that is no
    JSON object with a known name, or that never ends, comes out as the words that it is: nothing is lost.
    """

    def __init__(self, names: frozenset[str]) -> None:
        self._names = names
        self._held = ""

    def feed(self, text: str) -> Spoken:
        """What `text` adds."""
        self._held += text
        said, calls = "", list[ToolCall]()
        while True:
            begin = self._held.find(CALL_BEGIN)
            if begin < 0:
                keep = overlap(self._held, CALL_BEGIN)
                said += self._held[: len(self._held) - keep]
                self._held = self._held[len(self._held) - keep :]
                break
            said += self._held[:begin]
            self._held = self._held[begin:]
            end = self._held.find(CALL_END)
            if end < 0:
                if len(self._held) > MAX_CALL_CHARACTERS:
                    said, self._held = said + self._held, ""
                break
            whole, self._held = self._held[: end + len(CALL_END)], self._held[end + len(CALL_END) :]
            call = self._parsed(whole)
            if call is None:
                said += whole
            else:
                calls.append(call)
        return Spoken(said, tuple(calls))

    def finish(self) -> Spoken:
        """What was held back, once nothing follows: words, or a call whose end is all that lacks."""
        held, self._held = self._held, ""
        call = self._parsed(held + CALL_END) if held.startswith(CALL_BEGIN) else None
        return Spoken(calls=(call,)) if call else Spoken(held)

    def _parsed(self, whole: str) -> ToolCall | None:
        try:
            call = _read(whole[len(CALL_BEGIN) : -len(CALL_END)])
        except ValueError:
            return None
        if not isinstance(call, dict):
            return None
        name, arguments = call.get("name"), call.get("arguments", {})
        if not isinstance(name, str) or name not in self._names or not isinstance(arguments, dict):
            return None
        return ToolCall(name, _json(arguments))


def overlap(text: str, mark: str) -> int:
    """Length of the longest end of `text` that begins `mark`, and is not all of it."""
    longest = min(len(mark) - 1, len(text))
    return next((n for n in range(longest, 0, -1) if text.endswith(mark[:n])), 0)


def _read(text: str) -> Any:
    """JSON of a stranger. Raises ValueError, also for what is nested without end or is half a character."""
    return from_json(text, allow_inf_nan=False)


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))
