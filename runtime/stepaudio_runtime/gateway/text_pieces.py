"""Text that arrives in pieces, cut into what is spoken in one go: the first clause at once, then sentences.

A cut is made only where the text behind it cannot move it any more: whether a dot ends a sentence shows in
what follows. `pause` is for a writer who has stopped: then what ends like a sentence is one.
"""

from __future__ import annotations

from stepaudio_runtime.codec.controls import split_names
from stepaudio_runtime.tts.text import NARROW_CHARACTERS_PER_S, clauses, one_spaced, seconds, sentences

SHORTEST_S = 0.6
"""Of a first clause, in speech: a word alone would be over before the next one is made."""
LONGEST_S = 12.0
"""Of a piece, in speech; a longer sentence is cut behind a clause."""

_WINDOW = int(LONGEST_S * NARROW_CHARACTERS_PER_S) + 32
"""Characters that decide where the next piece ends, however much text there is: no piece has so many."""

_CLAUSE_ENDS = frozenset("，,、；;：:—。！？!?…\n")
_SENTENCE_ENDS = tuple("。！？!?….\n")


class TextCutter:
    """One text; every method gives the pieces that are complete, without outer spaces."""

    def __init__(self) -> None:
        self._rest = ""
        self._tags = ""  # that stood alone in front of the text
        self._begun = False

    @property
    def waiting(self) -> int:
        """Characters that no piece has yet."""
        return len(self._tags) + len(self._rest)

    def push(self, text: str) -> list[str]:
        """More text."""
        self._rest = one_spaced(self._rest + text)
        found: list[str] = []
        start = 0
        while end := self._next(self._rest[start : start + _WINDOW]):
            found += self._spoken([self._rest[start : start + end]])
            start += end
        self._rest = self._rest[start:]
        return found

    def pause(self) -> list[str]:
        """Nothing has come for a moment."""
        return self.finish() if self._rest.rstrip().endswith(_SENTENCE_ENDS) else []

    def finish(self) -> list[str]:
        """Nothing more will come."""
        found = list(clauses(self._rest, LONGEST_S))
        self._rest = ""
        return self._spoken(found)

    def _next(self, window: str) -> int:
        """Length of the next piece, spaces included; 0 where it is not complete."""
        end = _sentence(window)
        text = window[:end] if end else window
        if not self._begun and (clause := _first_clause(text, window)):
            return clause
        if seconds(text.strip()) > LONGEST_S:
            first = next(clauses(text.lstrip(), LONGEST_S))
            return text.index(first) + len(first)
        return end

    def _spoken(self, pieces: list[str]) -> list[str]:
        """Those that have something to say behind their tags; the first with the tags that came alone."""
        found: list[str] = []
        for piece in pieces:
            text = self._tags + piece.strip()
            tags, words = split_names(text)
            if any(char.isalnum() for char in words):
                found.append(text)
                self._tags, self._begun = "", True
            elif not self._begun:
                self._tags = tags
        return found


def _sentence(window: str) -> int:
    """Length of the first sentence, once another one has begun; 0 before."""
    cut = sentences(window)
    first, second = next(cut, ""), next(cut, "")
    return window.index(second, window.index(first) + len(first)) if second else 0


def _first_clause(text: str, window: str) -> int:
    """Length of the first clause of `text`, once it is long enough and `window` goes on behind it; else 0."""
    for at, char in enumerate(text):
        following = window[at + 1 : at + 2]
        if char not in _CLAUSE_ENDS or not following:
            continue
        in_number = text[at - 1 : at].isdigit() and following.isdigit()
        if not in_number and seconds(text[: at + 1].strip()) >= SHORTEST_S:
            return at + 1
    return 0
