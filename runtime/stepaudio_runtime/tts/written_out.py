"""Numbers, dates, units and signs written out as words, by wetext's grammars for zh, en and ja."""

from __future__ import annotations

import logging
import re
from functools import cache
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from wetext import Normalizer

log = logging.getLogger(__name__)

Language = Literal["zh", "en", "ja"]

_QUOTES = str.maketrans({'"': "'", "\\": " "})
"""The English grammar escapes these two and does not take the escapes back."""

_THOUSANDS = re.compile(r"(?<!\d)(?<!\d[,，])\d{1,3}(?:[,，]\d{3})+(?!\d|[,，]\d)")
_LISTED = re.compile(r"(?<=\d)[,，](?=\d)")
_NO = re.compile(r"\b[Nn][Oo]\.(\s*(?=\d))?")
_DAY = "(?:Mon|Tue|Wed|Thu|Fri|Sat|Sun)"
_TO = r"\s?(?:[-–/&,]|and|to)\s?"
_SAT_OR_SUN = re.compile(
    rf"(?P<before>\d(?:st|nd|rd|th)?,?\s+|\bon\s+|\b{_DAY}\.?{_TO})?"
    rf"\b(?:Sat|Sun)\b(?P<after>\.?,?\s*\d|\.?{_TO}{_DAY}\b)?"
)
_THOUSAND = re.compile(r"(?:(\w+) )?\bthousand\b")
_COUNTS = frozenset(
    (
        *("one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve"),
        *("thirteen", "fourteen", "fifteen", "sixteen", "seventeen", "eighteen", "nineteen", "twenty"),
        *("thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety", "hundred"),
    )
)


def written_out(text: str, language: Language) -> str:
    """`text` as it is said. What the grammar does not know stays as it is.

    Blocking: about 2 ms for a sentence, 20 ms for 200 characters.
    """
    if all(char.isalpha() or char.isspace() or char in "，。！？、,!?" for char in text):
        return text  # the grammars would take the longest over what has nothing to change
    try:
        plain = _english(text) if language == "en" else _without_separators(text, language)
        said: str = _grammar(language).normalize(plain.translate(_QUOTES))
    except Exception as error:  # no path through the grammar: it fails in many ways, on "0=" by an assertion
        log.warning("a text of %d characters stays as written: %r", len(text), error)
        return text
    if language == "en":
        said = _counted(said, text)
    return said or text


def _without_separators(text: str, language: Language) -> str:
    """`1,200` as `1200`: the grammars take such commas for a number's beside few words only. In a Chinese
    list they take those for a number's that are none, so `3,4,5` becomes `3、4、5`.
    """
    text = _THOUSANDS.sub(lambda found: re.sub("[,，]", "", found[0]), text)
    return _LISTED.sub("、", text) if language == "zh" else text


def _english(text: str) -> str:
    """`text` without the words that the grammar takes for abbreviations: it spares small letters.

    Saturday and Sunday stand beside a number or another day, or behind `on`.
    """
    text = _NO.sub(lambda found: "no." if found[1] is None else "number ", text)
    return _SAT_OR_SUN.sub(
        lambda found: found[0] if found["before"] or found["after"] else found[0].lower(), text
    )


def _counted(said: str, text: str) -> str:
    """`said` with the `one` that the grammar leaves out before `thousand`, unless `text` itself did."""
    spared = _COUNTS.union(_THOUSAND.findall(text))

    def whole(found: re.Match[str]) -> str:
        before = found[1] or ""
        return found[0] if before in spared else f"{before} one thousand".lstrip()

    return _THOUSAND.sub(whole, said)


@cache
def _grammar(language: Language) -> Normalizer:
    from wetext import Normalizer

    return Normalizer(lang=language, operator="tn")
