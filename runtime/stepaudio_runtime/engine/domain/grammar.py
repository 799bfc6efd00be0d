"""A domain as a JSGF grammar: every sentence that a domain text can be, and some more.

A speech recogniser that knows the grammar, and nothing else, is a judge: it hears words, not whether the
speech is beautiful, and it was trained by others on people.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from stepaudio_runtime.engine.domain import chinese, english
from stepaudio_runtime.engine.domain.pinyin import READINGS
from stepaudio_runtime.engine.domain.topic import SLOT, Topic

_CHARACTER = re.compile("[" + "".join(READINGS) + "]")


def english_jsgf() -> str:
    """The grammar's text; its public rule is one sentence."""
    return _jsgf(english.SHARED_RULES, english.TOPICS)


def chinese_jsgf() -> str:
    """The same of Chinese; its words are syllables of pinyin without tones."""
    written = _jsgf(chinese.SHARED_RULES, chinese.TOPICS)
    return _CHARACTER.sub(lambda match: f" {READINGS[match[0]]} ", written)


def _jsgf(shared: Mapping[str, str], topics: Sequence[Topic]) -> str:
    lines = ["#JSGF V1.0;", "grammar domain;"]
    lines += [f"<{name}> = {rule};" for name, rule in shared.items()]
    alternatives: list[str] = []
    for topic in topics:
        lines += [f"<{topic.name}_{slot}> = {rule};" for slot, rule in topic.rules.items()]
        alternatives += [_expansion(topic, form) for form in (*topic.requests, topic.reply)]
    lines.append("public <sentence> = " + " | ".join(alternatives) + ";")
    return "\n".join(lines) + "\n"


def _expansion(topic: Topic, form: str) -> str:
    return SLOT.sub(lambda match: f"<{topic.name}_{match[1]}>", form)
