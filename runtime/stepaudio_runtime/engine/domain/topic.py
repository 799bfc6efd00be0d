"""A topic: things to say, counted, each with the ways to ask for it, the answer, and the tool that acts.

Forms are words with `{slots}`. A topic's contents are numbered 0..size-1, so that a set of millions is drawn
from without being listed; `content(i)` fills the slots.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

SLOT = re.compile(r"\{(\w+)\}")

Slots = Mapping[str, str]
"""Slot name -> the words that fill it."""


@dataclass(frozen=True)
class ToolCall:
    """What an assistant does about a request, as in OpenAI's chat API, and what comes of it."""

    name: str
    arguments: Mapping[str, str | int]
    result: Mapping[str, Any] = field(default_factory=lambda: {"ok": True})


@dataclass(frozen=True)
class Content:
    """One thing to talk about. `key` is unique within its topic, and what the split is made of."""

    key: str
    slots: Slots
    tool: ToolCall | None = None


@dataclass(frozen=True)
class Topic:
    """Contents 0..size-1, forms of their requests, and the form of the reply.

    `rules` says, per slot, in JSGF what may fill it: the judge's side of `content`.
    """

    name: str
    weight: int  # how often it is drawn, against the other topics
    requests: tuple[str, ...]
    reply: str
    size: int = 1
    content: Callable[[int], Content] = field(default=lambda _: Content("", {}))
    rules: Mapping[str, str] = field(default_factory=dict)


def fill(form: str, slots: Slots) -> str:
    """`form` with its slots filled, e.g. "turn {state} the {thing}" -> "turn on the lamp"."""
    return SLOT.sub(lambda match: slots[match[1]], form)
