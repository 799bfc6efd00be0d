"""Text to what is spoken in one go: cleaned, cut into sentences, numbers written out, sentences grouped.

    text ──clean──► sentences ──clauses where one is too long──► written out ──► groups of some seconds

Groups are made one at a time, so that a long text costs no more memory or time ahead of its speech than a
short one. Nothing here knows of voices, tags or models.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator

from stepaudio_runtime.errors import InputError
from stepaudio_runtime.tts.written_out import Language, written_out

GROUP_S = 12.0
"""Seconds of speech in a group: enough for a sentence's melody, far from the 39 s where the model loops."""
WIDE_CHARACTERS_PER_S = 4.0  # a Chinese character is a syllable
NARROW_CHARACTERS_PER_S = 14.0
MOST_MARKS = 30
"""Combining marks on one letter that are kept."""

_ENDS = "。！？!?…‥．｡\n"
_MAYBE_ENDS = "."
_CLAUSE_ENDS = "，,、；;：:—–"
_CLOSING = "”’」』》）)]】\"'"
_ABBREVIATIONS = frozenset(
    (
        "mr",
        "mrs",
        "ms",
        "dr",
        "prof",
        "st",
        "vs",
        "jr",
        "sr",
        "no",
        "fig",
        "approx",
        "e.g",
        "i.e",
        "a.m",
        "p.m",
    )
)
_DAYS = frozenset(("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun"))
_LAST_WORD = re.compile(r"[^\W\d_](?:[\w.]*[^\W\d_])?$")
_PICTOGRAPHS = (
    (0x20E3, 0x20E3),
    (0x2190, 0x21FF),
    (0x2300, 0x27BF),
    (0x2900, 0x2BFF),
    (0xFE00, 0xFE0F),
    (0x1F000, 0x1FFFF),
)
_ENCLOSED = re.compile(r"[\u2460-\u24ff\u2776-\u2793]")
_SPACES = re.compile(r"[^\S\n]+")
_LINES = re.compile(r"\s*\n\s*")

_KANA = re.compile(r"[\u3040-\u30ff\uff66-\uff9f]")
_HAN = re.compile(r"[\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff]")


def clean(text: str) -> str:
    """`text` without what has no sound: control and format characters, broken surrogates, emoji.

    Raises InputError where no letter and no digit is left.
    """
    composed = _ENCLOSED.sub(_let_out, unicodedata.normalize("NFC", _few_marks(text)))
    kept = one_spaced("".join(map(_heard, composed))).strip()
    if not any(unicodedata.category(char)[0] in "LN" for char in kept):
        raise InputError(
            "input has no letter and no digit: there is nothing to speak", param="input", code="empty_input"
        )
    return kept


def one_spaced(text: str) -> str:
    """`text` with one space, or one line break, for every run of them."""
    return _LINES.sub("\n", _SPACES.sub(" ", text))


def _few_marks(text: str) -> str:
    """`text` with the first of many combining marks on a letter: their order takes the square of their number
    to normalise. Unicode's own bound (UAX 15, "stream-safe"); no script comes near it.
    """
    kept: list[str] = []
    marks = 0
    for char in text:
        marks = marks + 1 if unicodedata.combining(char) else 0
        if marks <= MOST_MARKS:
            kept.append(char)
    return "".join(kept)


def _let_out(found: re.Match[str]) -> str:
    """The number or letter in a circle, in brackets or with a dot; a number beside it stays apart."""
    plain = unicodedata.normalize("NFKC", found[0])
    if plain == found[0]:  # those in black or double circles have no plain form of their own
        plain = f"{unicodedata.numeric(plain):g}"
    start, end = found.span()
    before, after = found.string[max(0, start - 1) : start], found.string[end : end + 1]
    return f"{', ' if before.isnumeric() else ''}{plain}{', ' if after.isdecimal() else ''}"


def _heard(char: str) -> str:
    if char in "\n\r\t\u2028\u2029\x0b\x0c\x85":
        return "\n" if char in "\n\u2028\u2029\x85" else " "
    category = unicodedata.category(char)
    if category in {"Cc", "Cf", "Cs", "Co", "Cn"}:
        return " " if category == "Cc" else ""
    return " " if _is_pictograph(ord(char)) else char


def _is_pictograph(number: int) -> bool:
    """Emoji, dingbats, arrows and drawings, and what varies them; signs as ℃ and № stay."""
    return any(first <= number <= last for first, last in _PICTOGRAPHS)


def seconds(text: str) -> float:
    """About how long `text` is to speak."""
    wide = wide_characters(text)
    return _seconds(wide, len(text) - wide)


def wide_characters(text: str) -> int:
    """How many characters of `text` are written in full width: about a syllable each."""
    return sum(map(_is_wide, text))


def _seconds(wide: int, narrow: int) -> float:
    return wide / WIDE_CHARACTERS_PER_S + narrow / NARROW_CHARACTERS_PER_S


def _is_wide(char: str) -> bool:
    return unicodedata.east_asian_width(char) in "WF"


def sentences(text: str) -> Iterator[str]:
    """`text` cut behind the ends of its sentences; joined again they are the text, but for outer spaces."""
    start = 0
    at = 0
    while at < len(text):
        char = text[at]
        at += 1
        if char not in _ENDS and not (char in _MAYBE_ENDS and _is_full_stop(text, at - 1)):
            continue
        while at < len(text) and text[at] in _ENDS + _MAYBE_ENDS + _CLOSING:
            at += 1
        if piece := text[start:at].strip():
            yield piece
        start = at
    if piece := text[start:].strip():
        yield piece


def _is_full_stop(text: str, at: int) -> bool:
    """Whether the dot at `at` ends a sentence, and is no decimal point, initial or abbreviation's."""
    following = text[at + 1 :].lstrip(_CLOSING + _MAYBE_ENDS)[:2]
    if following and not following[0].isspace() and not _HAN.match(following):
        return False
    word = _LAST_WORD.search(text[max(0, at - 12) : at])
    if word is None:
        return True
    if word[0] in _DAYS and following.strip()[:1].isdigit():
        return False
    return not (word[0].lower() in _ABBREVIATIONS or (len(word[0]) == 1 and word[0].isupper()))


def clauses(sentence: str, longest_s: float) -> Iterator[str]:
    """`sentence` in pieces of at most `longest_s` seconds: cut behind clauses, else words, else anywhere."""
    rest = sentence
    while (fits := _fitting(rest, longest_s)) < len(rest):
        cut = max(
            (i + 1 for i in range(fits) if rest[i] in _CLAUSE_ENDS and not _in_number(rest, i)), default=0
        )
        if cut <= fits // 3:
            cut = rest.rfind(" ", 1, fits) + 1 or fits
        if piece := rest[:cut].strip():
            yield piece
        rest = rest[cut:]
    if piece := rest.strip():
        yield piece


def _in_number(text: str, at: int) -> bool:
    return text[at - 1 : at].isdigit() and text[at + 1 : at + 2].isdigit()


def _fitting(text: str, longest_s: float) -> int:
    """How many characters of `text` fit into so many seconds; at least one."""
    wide = 0
    for number, char in enumerate(text):
        wide += _is_wide(char)
        if _seconds(wide, number + 1 - wide) > longest_s:
            return max(1, number)
    return len(text)


def language(text: str, *, japanese: bool = False) -> Language | None:
    """The language whose numbers `text` has; `japanese` says that the whole it is of is Japanese."""
    if _KANA.search(text) or "円" in text:  # the yen as only Japanese writes it
        return "ja"
    if _HAN.search(text):
        return "ja" if japanese else "zh"
    if re.search(r"[A-Za-z]", text):
        return "en"
    return None


def groups(text: str, *, longest_s: float = GROUP_S, most: int | None = None) -> Iterator[str]:
    """Pieces of a cleaned `text` to be spoken one after the other, each of at most about `longest_s` seconds
    and of at most `most` sentences.

    Numbers and signs are written out in the language of their sentence, or of the text where it has no
    letters of its own.
    """
    japanese = _KANA.search(text) is not None
    default: Language = language(text, japanese=japanese) or "en"
    group, held = "", 0
    for sentence in sentences(text):
        if group and held == most:
            yield group
            group, held = "", 0
        held += 1
        for raw in clauses(sentence, longest_s):
            spelt = written_out(raw, language(raw, japanese=japanese) or default)
            for piece in clauses(spelt, longest_s):
                if group and seconds(group) + seconds(piece) > longest_s:
                    yield group
                    group, held = "", 1
                group = f"{group}{_gap(group, piece)}{piece}"
    if group:
        yield group


def _gap(before: str, after: str) -> str:
    """A space between two sentences, but not where one of them is written in full width."""
    if not before:
        return ""
    return "" if _is_wide(before[-1]) or _is_wide(after[0]) else " "
