"""What is said the same way every day, such as a greeting: in a corpus of different texts each of these is
one of thousands, and would never be learnt.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import TypeVar

from stepaudio_runtime.engine.domain.texts import Language, topics
from stepaudio_runtime.engine.domain.topic import SLOT

SHARE = 0.15
"""Of the examples that are drawn."""

Example = TypeVar("Example")


def everyday_texts() -> frozenset[str]:
    """The domains' requests and replies that have nothing to fill in."""
    said = (topic for language in Language for topic in topics(language))
    forms = (form for topic in said for form in (*topic.requests, topic.reply))
    return frozenset(form for form in forms if not SLOT.search(form))


def often_enough(
    examples: Sequence[Example], text: Callable[[Example], str], share: float = SHARE
) -> list[Example]:
    """`examples` with those of an everyday text repeated, whole, until they are `share` of all or more."""
    known = everyday_texts()
    everyday = [each for each in examples if text(each) in known]
    others = len(examples) - len(everyday)
    times = math.ceil(others * share / (1 - share) / len(everyday)) if everyday else 0
    return [*examples, *everyday * max(0, times - 1)]
