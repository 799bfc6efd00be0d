"""The layout of audio codes: which number means what, and how many there are a second.

A code is 0..5119: linguistic ids as they are, semantic ids after them. A language model's id is the code
plus its audio offset (65536 in the published models, smaller in the nano preset's vocabulary), and in text a
code N is `<audio_N>`. Two linguistic codes are followed by three semantic ones.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from fractions import Fraction

from stepaudio_runtime.contract import (
    AUDIO_CODES,
    AUDIO_OFFSET,
    LINGUISTIC_CODES,
    SEMANTIC_CODES,
    SPEECH_RATE,
    audio_text,
)
from stepaudio_runtime.errors import InputError

LINGUISTIC_RUN = 2
SEMANTIC_RUN = 3
RUN = LINGUISTIC_RUN + SEMANTIC_RUN
"""Codes of one round: 120 ms of audio."""

SEMANTIC_RATE = Fraction(25)
"""Semantic ids a second."""
LINGUISTIC_RATE = SEMANTIC_RATE * LINGUISTIC_RUN / SEMANTIC_RUN  # 16 2/3
CODE_RATE = LINGUISTIC_RATE + SEMANTIC_RATE  # 41 2/3
"""Interleaved codes a second."""

MEL_RATE = SPEECH_RATE  # Hz, of the mel's wave
MEL_HOP = 256  # samples a frame

_AUDIO_TOKEN = re.compile(r"<audio_([0-9]{1,9})>")
_AUDIO_RUN = re.compile(r"(?:<audio_[0-9]{1,9}>)+")


def interleave(linguistic: Sequence[int], semantic: Sequence[int]) -> list[int]:
    """Codes of ids: 2 linguistic, 3 semantic + 1024, and so on for as long as both last.

    Raises InputError for an id outside its code book.
    """
    _check(linguistic, LINGUISTIC_CODES, "linguistic")
    _check(semantic, SEMANTIC_CODES, "semantic")
    rounds = min(len(linguistic) // LINGUISTIC_RUN, len(semantic) // SEMANTIC_RUN)
    codes: list[int] = []
    for i in range(rounds):
        codes += linguistic[i * LINGUISTIC_RUN : (i + 1) * LINGUISTIC_RUN]
        codes += [LINGUISTIC_CODES + id_ for id_ in semantic[i * SEMANTIC_RUN : (i + 1) * SEMANTIC_RUN]]
    return codes


def deinterleave(codes: Iterable[int]) -> tuple[list[int], list[int]]:
    """Linguistic and semantic ids of codes, told apart by their range, in order.

    Raises InputError for a code outside 0..5119.
    """
    linguistic: list[int] = []
    semantic: list[int] = []
    for code in checked_codes(codes):
        if code < LINGUISTIC_CODES:
            linguistic.append(code)
        else:
            semantic.append(code - LINGUISTIC_CODES)
    return linguistic, semantic


def checked_codes(codes: Iterable[int]) -> list[int]:
    """`codes` as a list; raises InputError for one outside 0..5119."""
    found = list(codes)
    _check(found, AUDIO_CODES, "audio code")
    return found


def to_ids(codes: Iterable[int], audio_offset: int = AUDIO_OFFSET) -> list[int]:
    """Ids of `codes` in a language model whose `<audio_0>` is `audio_offset`."""
    return [audio_offset + code for code in codes]


def from_ids(ids: Iterable[int], audio_offset: int = AUDIO_OFFSET) -> list[int]:
    """Codes of language model ids. Raises InputError for an id that is not an audio id."""
    return checked_codes(id_ - audio_offset for id_ in ids)


def to_text(codes: Iterable[int]) -> str:
    """`codes` as `<audio_N>` text."""
    return "".join(map(audio_text, codes))


def from_text(text: str) -> list[int]:
    """Codes of a text made of `<audio_N>` only. Raises InputError for anything else in it."""
    if rest := _AUDIO_TOKEN.sub("", text).strip():
        raise InputError(f"not audio tokens: {rest[:40]!r}", code="invalid_audio_tokens")
    return checked_codes(int(number) for number in _AUDIO_TOKEN.findall(text))


def split_text(text: str) -> list[str | list[int]]:
    """`text` cut into plain pieces and runs of codes, in order; joined again they are the text.

    Raises InputError for an `<audio_N>` beyond 5119.
    """
    pieces: list[str | list[int]] = []
    at = 0
    for run in _AUDIO_RUN.finditer(text):
        pieces += [text[at : run.start()], from_text(run[0])]
        at = run.end()
    pieces.append(text[at:])
    return [piece for piece in pieces if piece]


def mel_frames(codes: int, rate: float) -> int:
    """Mel frames that the flow makes of `codes` codes at `rate` codes a second.

    In doubles and in this order: another order gives another number now and then.
    """
    return int(codes / rate * MEL_RATE / MEL_HOP)


def _check(ids: Sequence[int], size: int, what: str) -> None:
    for id_ in ids:
        if not 0 <= id_ < size:
            raise InputError(f"{what} {id_} is outside 0..{size - 1}", code="invalid_audio_tokens")
