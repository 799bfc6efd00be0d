"""Text that arrives in pieces, cut into what is spoken in one go: the first clause at once, then sentences.

A cut is made only where the text behind it cannot move it any more: whether a dot ends a sentence shows in
what follows. `pause` is for a writer who has stopped: then what ends like a sentence is one.
"""

from __future__ import annotations

from stepaudio_runtime.tts.text import clauses, seconds, sentences

SHORTEST_S = 0.6
"""Of a first clause, in speech: a word alone would be over before the next one is made."""
LONGEST_S = 12.0
"""Of a piece, in speech; a longer sentence is cut behind a clause."""

_CLAUSE_ENDS = frozenset("，,、；;：:—。！？!?…\n")
_SENTENCE_ENDS = tuple("。！？!?….\n")


class TextCutter:
    """One text; every method gives the pieces that are complete, without outer spaces."""

    def __init__(self) -> None:
        self._rest = ""
        self._begun = False

    @property
    def waiting(self) -> int:
        """Characters that no piece has yet."""
        return len(self._rest)

    def push(self, text: str) -> list[str]:
        """More text."""
        self._rest += text
        found: list[str] = []
        while end := self._next():
            found += self._spoken([self._rest[:end]])
            self._rest = self._rest[end:]
        return found

    def pause(self) -> list[str]:
        """Nothing has come for a moment."""
        return self.finish() if self._rest.rstrip().endswith(_SENTENCE_ENDS) else []

    def finish(self) -> list[str]:
        """Nothing more will come."""
        found = list(clauses(self._rest, LONGEST_S))
        self._rest = ""
        return self._spoken(found)

    def _next(self) -> int:
        """Length of the next piece, spaces included; 0 where it is not complete."""
        end = self._sentence()
        text = self._rest[:end] if end else self._rest
        if not self._begun and (clause := self._first_clause(text)):
            return clause
        if seconds(text.strip()) > LONGEST_S:
            first = next(clauses(text.lstrip(), LONGEST_S))
            return text.index(first) + len(first)
        return end

    def _sentence(self) -> int:
        """Length of the first sentence, once another one has begun; 0 before."""
        cut = sentences(self._rest)
        first, second = next(cut, ""), next(cut, "")
        return self._rest.index(second, self._rest.index(first) + len(first)) if second else 0

    def _first_clause(self, text: str) -> int:
        """Length of the first clause of `text`, once it is long enough and something follows it; 0 before."""
        for at, char in enumerate(text):
            following = self._rest[at + 1 : at + 2]
            in_number = text[at - 1 : at].isdigit() and following.isdigit()
            long_enough = seconds(text[: at + 1].strip()) >= SHORTEST_S
            if char in _CLAUSE_ENDS and following and not in_number and long_enough:
                return at + 1
        return 0

    def _spoken(self, pieces: list[str]) -> list[str]:
        """Those that have something to say."""
        found = [piece.strip() for piece in pieces if any(char.isalnum() for char in piece)]
        self._begun |= bool(found)
        return found
