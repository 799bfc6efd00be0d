"""A language model's SentencePiece vocabulary with the audio codes in it: text to ids, and ids to what they
mean.

What a user writes is text, whatever it looks like: `<|EOT|>` or `<audio_7>` in a message, in full-width
letters too, is spelt out in plain pieces and never becomes the marker of that name. That is settled on the
ids, behind SentencePiece's own normalisation, so no way of writing gets around it.
"""

from dataclasses import dataclass
from functools import cached_property

from sentencepiece import SentencePieceProcessor

from stepaudio_runtime.contract import AUDIO_CODES, BOS_ID, BOT_ID, EOS_ID, EOT_ID, PAD_ID
from stepaudio_runtime.errors import StepAudioError

SPACE = "▁"
"""SentencePiece's visible space."""


class VocabularyError(StepAudioError):
    """A tokenizer file that SentencePiece does not read, or that does not fit the model."""

    reason = "VocabularyInvalid"


@dataclass(frozen=True, slots=True)
class TextPiece:
    """A token that is text; `raw` is UTF-8, and a part of a character where `is_byte`."""

    raw: bytes
    is_byte: bool


@dataclass(frozen=True, slots=True)
class AudioPiece:
    """A token that is audio: `code` is 0..5119."""

    code: int


@dataclass(frozen=True, slots=True)
class SilentPiece:
    """A marker, padding, or an id beyond the vocabulary: nothing is shown for it."""


Piece = TextPiece | AudioPiece | SilentPiece


class Vocabulary:
    """Ids of one language model. `audio_offset` is the id of `<audio_0>`.

    Raises VocabularyError if `model` (the bytes of a `tokenizer.model`) cannot be read.
    """

    def __init__(self, model: bytes, *, audio_offset: int, eot: int = EOT_ID, bot: int = BOT_ID) -> None:
        try:
            self._processor = SentencePieceProcessor(model_proto=model)
        except (RuntimeError, ValueError, TypeError) as fault:
            raise VocabularyError(f"not a SentencePiece model: {fault}") from fault
        self._size = self._processor.get_piece_size()
        if not self._size:
            raise VocabularyError("a SentencePiece model without pieces")
        self.audio_offset = audio_offset
        self.ends = frozenset({EOS_ID, eot})
        self._markers = frozenset({PAD_ID, BOS_ID, EOS_ID, eot, bot})
        self._pieces: dict[int, Piece] = {}

    def encode(self, text: str) -> list[int]:
        """Ids of `text` as plain text: no start id, no marker, no audio id."""
        ids: list[int] = []
        for id_ in self._processor.encode(text):
            if self._is_reserved(id_):
                ids += self._spelt(self._processor.id_to_piece(id_))
            else:
                ids.append(id_)
        return ids

    def piece(self, id_: int) -> Piece:
        """What the id means in an answer."""
        found = self._pieces.get(id_)
        if found is None:
            found = self._pieces[id_] = self._look_up(id_)
        return found

    @cached_property
    def strips_leading_space(self) -> bool:
        """Whether a text's first piece loses its space, as it does where a dummy prefix was added."""
        for id_ in range(self._size):
            name = self._processor.id_to_piece(id_)
            if name.startswith(SPACE) and len(name) > 1 and isinstance(self.piece(id_), TextPiece):
                return not self._processor.decode([id_]).startswith(" ")
        return True

    def _is_audio(self, id_: int) -> bool:
        return self.audio_offset <= id_ < self.audio_offset + AUDIO_CODES

    def _is_reserved(self, id_: int) -> bool:
        if self._processor.is_unknown(id_):  # nano's is 0, as padding
            return False
        if id_ in self._markers or self._is_audio(id_) or self._processor.is_control(id_):
            return True
        name = self._processor.id_to_piece(id_)
        return (
            name.startswith("<") and name.endswith(">") and len(name) > 2 and not self._processor.is_byte(id_)
        )

    def _spelt(self, name: str) -> list[int]:
        """Ids of a marker's name, letter by letter."""
        ids: list[int] = []
        unknown = self._processor.unk_id()
        for letter in name:
            single = self._processor.piece_to_id(letter)
            if single != unknown:
                ids.append(single)
                continue
            raw = [self._processor.piece_to_id(f"<0x{byte:02X}>") for byte in letter.encode()]
            ids += raw if unknown not in raw else [unknown]
        return ids

    def _look_up(self, id_: int) -> Piece:
        if self._is_audio(id_):
            return AudioPiece(id_ - self.audio_offset)
        if not 0 <= id_ < self._size or id_ in self._markers or self._processor.is_control(id_):
            return SilentPiece()
        name = self._processor.id_to_piece(id_)
        if self._processor.is_byte(id_):
            return TextPiece(bytes([int(name[3:5], 16)]), is_byte=True)
        if self._processor.is_unknown(id_):
            return TextPiece(self._processor.decode([id_]).encode(), is_byte=False)
        if self._is_reserved(id_):  # a marker that the text tokenizer knows and the chat does not use
            return SilentPiece()
        return TextPiece(name.replace(SPACE, " ").encode(), is_byte=False)
