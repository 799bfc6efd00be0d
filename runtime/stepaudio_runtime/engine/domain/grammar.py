"""The English domain as a JSGF grammar: every sentence that a domain text can be, and some more.

A speech recogniser that knows the grammar, and nothing else, is a judge: it hears words, not whether the
speech is beautiful, and it was trained by others on people.
"""

from __future__ import annotations

from stepaudio_runtime.engine.domain import english
from stepaudio_runtime.engine.domain.topic import SLOT, Topic


def english_jsgf() -> str:
    """The grammar's text; its public rule is one sentence."""
    lines = ["#JSGF V1.0;", "grammar domain;"]
    lines += [f"<{name}> = {rule};" for name, rule in english.SHARED_RULES.items()]
    alternatives: list[str] = []
    for topic in english.TOPICS:
        lines += [f"<{topic.name}_{slot}> = {rule};" for slot, rule in topic.rules.items()]
        alternatives += [_expansion(topic, form) for form in (*topic.requests, topic.reply)]
    lines.append("public <sentence> = " + " | ".join(alternatives) + ";")
    return "\n".join(lines) + "\n"


def _expansion(topic: Topic, form: str) -> str:
    return SLOT.sub(lambda match: f"<{topic.name}_{match[1]}>", form)
