"""The chat model's answer, read from its ids as they arrive: text, audio codes, and where it ends. No I/O.

- Text comes out as soon as it is certain: a character whose bytes are still incomplete waits, and so does a
  beginning of a stop string. What came out never changes.
- Bytes that are no UTF-8 come out as one U+FFFD each, as SentencePiece decodes them.
- Audio ids become codes and never text; other markers are silent.
- The answer ends with the end of turn or a stop string, neither of which is part of it.
"""

from collections.abc import Iterable
from dataclasses import dataclass

from stepaudio_runtime.chat.vocabulary import AudioPiece, TextPiece, Vocabulary
from stepaudio_runtime.codec.tools import overlap

REPLACEMENT = "\N{REPLACEMENT CHARACTER}"


@dataclass(frozen=True, slots=True)
class Delta:
    """What a few ids added to the answer."""

    text: str = ""
    codes: tuple[int, ...] = ()


class Detokeniser:
    """Ids of text in, text out, character by character."""

    def __init__(self, vocabulary: Vocabulary) -> None:
        self._vocabulary = vocabulary
        self._bytes = b""  # the beginning of a character
        self._at_start = True

    def feed(self, piece: TextPiece) -> str:
        """Text that `piece` completes."""
        if piece.is_byte:
            self._bytes += piece.raw
            return self._shown(self._take_characters())
        text = self.flush()  # a character is never continued by an ordinary piece
        added = piece.raw.decode()
        if self._at_start and self._vocabulary.strips_leading_space:
            added = added.lstrip(" ")
        return text + self._shown(added)

    def flush(self) -> str:
        """What is left of a character that was never completed."""
        broken, self._bytes = len(self._bytes), b""
        return self._shown(REPLACEMENT * broken)

    def _shown(self, text: str) -> str:
        if text:
            self._at_start = False
        return text

    def _take_characters(self) -> str:
        """Decode the front of the buffer for as long as it is certain."""
        text = ""
        while self._bytes:
            length = _length(self._bytes[0])
            head = self._bytes[:length]
            try:
                text += head.decode()
            except UnicodeDecodeError as fault:
                # "unexpected end" is a good beginning; anything else condemns the first byte.
                if length and len(head) < length and fault.reason == "unexpected end of data":
                    return text
                text += REPLACEMENT
                self._bytes = self._bytes[1:]
                continue
            self._bytes = self._bytes[length:]
        return text


def _length(lead: int) -> int:
    """Bytes of the character that begins with `lead`; 1 where none begins with it."""
    if 0xC2 <= lead < 0xE0:
        return 2
    if 0xE0 <= lead < 0xF0:
        return 3
    return 4 if 0xF0 <= lead < 0xF5 else 1


class StopScanner:
    """Cuts a text that arrives in pieces at the first stop string."""

    def __init__(self, stops: Iterable[str]) -> None:
        self._stops = tuple(stops)
        self._held = ""
        self.found = False

    def feed(self, text: str) -> str:
        """The part of the text so far that certainly stands before any stop string."""
        if self.found or not self._stops:
            return "" if self.found else text
        text = self._held + text
        hits = [at for stop in self._stops if (at := text.find(stop)) >= 0]
        if hits:
            self.found, self._held = True, ""
            return text[: min(hits)]
        keep = max(overlap(text, stop) for stop in self._stops)
        self._held = text[len(text) - keep :]
        return text[: len(text) - keep]

    def flush(self) -> str:
        """What was held back in vain."""
        held, self._held = self._held, ""
        return held


class AnswerReader:
    """Reads one answer. `ended` says that nothing more belongs to it; `tokens` counts its ids."""

    def __init__(self, vocabulary: Vocabulary, stops: Iterable[str] = ()) -> None:
        self._vocabulary = vocabulary
        self._detokeniser = Detokeniser(vocabulary)
        self._scanner = StopScanner(stops)
        self.ended = False
        self.tokens = 0

    def feed(self, ids: Iterable[int]) -> Delta:
        """What `ids` add."""
        text = ""
        codes: list[int] = []
        for id_ in ids:
            if self.ended:
                break
            self.tokens += 1
            if id_ in self._vocabulary.ends:
                self.ended = True
                break
            piece = self._vocabulary.piece(id_)
            if isinstance(piece, TextPiece):
                text += self._scanner.feed(self._detokeniser.feed(piece))
                self.ended = self._scanner.found
            elif isinstance(piece, AudioPiece):
                text += self._scanner.feed(self._detokeniser.flush())
                codes.append(piece.code)
        return Delta(text, tuple(codes))

    def finish(self) -> Delta:
        """What was held back, once no id follows."""
        text = self._scanner.feed(self._detokeniser.flush())
        if not self._scanner.found:
            text += self._scanner.flush()
        return Delta(text)
