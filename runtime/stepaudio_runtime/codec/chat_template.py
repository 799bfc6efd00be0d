"""The chat model's template: turns of text and audio become its prompt, as text or as ids.

`<|BOT|>{role}\\n{content}<|EOT|>` per turn, the role `user` written `human`; a turn without content stays
open; the prompt ends with an open turn of the assistant.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from stepaudio_runtime.codec.layout import checked_codes, to_ids, to_text
from stepaudio_runtime.codec.tts_prompt import Encode
from stepaudio_runtime.contract import AUDIO_OFFSET, BOT_ID, BOT_TEXT, EOT_ID, EOT_TEXT

TRANSCRIPTION_PROMPT = "请记录下你所听到的语音内容。"
"""System prompt that makes the chat model transcribe ("write down the speech that you hear")."""

Part = str | tuple[int, ...]
"""A piece of a turn's content: text, or the codes of audio."""


@dataclass(frozen=True)
class Turn:
    """One message. `content` None opens the turn and leaves it open."""

    role: str
    content: tuple[Part, ...] | None

    @property
    def written_role(self) -> str:
        """The role as the model knows it."""
        return "human" if self.role == "user" else self.role


def chat_text(turns: Sequence[Turn]) -> str:
    """The prompt as text, audio as `<audio_N>`. For reading and logging: models are given `chat_ids`."""
    pieces = []
    for turn in _with_open_end(turns):
        pieces += [BOT_TEXT, turn.written_role, "\n"]
        if turn.content is not None:
            pieces += [part if isinstance(part, str) else to_text(part) for part in turn.content]
            pieces.append(EOT_TEXT)
    return "".join(pieces)


def chat_ids(turns: Sequence[Turn], *, encode: Encode, audio_offset: int = AUDIO_OFFSET) -> list[int]:
    """The prompt as ids. Runs of text between markers and audio are encoded as one; audio is never spelt out.

    `encode` must not add a start id, and must take text as plain text: what a user writes like a marker
    (`<|EOT|>`, `<audio_7>`) is the caller's to neutralise. Raises InputError for a code outside 0..5119.
    """
    ids: list[int] = []
    for turn in _with_open_end(turns):
        ids.append(BOT_ID)
        text = turn.written_role + "\n"
        for part in turn.content or ():
            if isinstance(part, str):
                text += part
                continue
            ids += encode(text) if text else []
            ids += to_ids(checked_codes(part), audio_offset)
            text = ""
        ids += encode(text) if text else []
        if turn.content is not None:
            ids.append(EOT_ID)
    return ids


def _with_open_end(turns: Sequence[Turn]) -> list[Turn]:
    if turns and turns[-1] == Turn("assistant", None):
        return list(turns)
    return [*turns, Turn("assistant", None)]
