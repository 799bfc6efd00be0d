"""Numbers, dates, units and signs written out as words, by wetext's grammars for zh, en and ja."""

from __future__ import annotations

import logging
from functools import cache
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from wetext import Normalizer

log = logging.getLogger(__name__)

Language = Literal["zh", "en", "ja"]

_QUOTES = str.maketrans({'"': "'", "\\": " "})
"""The English grammar escapes these two and does not take the escapes back."""


def written_out(text: str, language: Language) -> str:
    """`text` as it is said. What the grammar does not know stays as it is.

    Blocking: about 2 ms for a sentence, 20 ms for 200 characters.
    """
    if all(char.isalpha() or char.isspace() or char in "，。！？、,!?" for char in text):
        return text  # the grammars would take the longest over what has nothing to change
    try:
        said: str = _grammar(language).normalize(text.translate(_QUOTES))
    except Exception as error:  # no path through the grammar: it fails in many ways, on "0=" by an assertion
        log.warning("a text of %d characters stays as written: %r", len(text), error)
        return text
    return said or text


@cache
def _grammar(language: Language) -> Normalizer:
    from wetext import Normalizer

    return Normalizer(lang=language, operator="tn")
