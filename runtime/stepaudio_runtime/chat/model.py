"""The chat model as a client of it knows it: its ids and limits, fetched from a chat pod once a revision."""

import asyncio
import hashlib
import logging
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import cast

from stepaudio_runtime.bodies import ModelInfo
from stepaudio_runtime.chat.vocabulary import Vocabulary, VocabularyError
from stepaudio_runtime.codec.chat_template import Turn, chat_ids
from stepaudio_runtime.contract import AUDIO_CODES

log = logging.getLogger(__name__)

KEPT = 4
"""Revisions whose vocabulary is kept: the active one, a canary, and what is on its way out."""


@dataclass(frozen=True)
class ChatModel:
    """One revision's model. `sha256` is the digest of its `tokenizer.model`."""

    info: ModelInfo
    vocabulary: Vocabulary
    sha256: str

    def prompt(self, turns: Sequence[Turn]) -> list[int]:
        """The conversation as ids, ending with an open turn of the assistant. Slow for long text."""
        return chat_ids(turns, encode=self.vocabulary.encode, audio_offset=self.info["audio_offset"])


def build_model(info: object, tokenizer: bytes, etag: str | None) -> ChatModel:
    """The model from a chat pod's two answers.

    Raises VocabularyError where they are not what the contract says, or the file is not the one that the pod
    announced.
    """
    sha256 = hashlib.sha256(tokenizer).hexdigest()
    if etag is not None and etag != f'"{sha256}"':
        raise VocabularyError(f"tokenizer.model has the sha256 {sha256}, the pod announced {etag}")
    wanted = ("audio_offset", "vocab_size", "bos", "eot", "bot", "max_model_len")
    if not isinstance(info, dict) or not isinstance(info.get("model"), str):
        raise VocabularyError("the chat pod does not describe its model")
    if bad := [name for name in wanted if not isinstance(info.get(name), int)]:
        raise VocabularyError(f"the chat pod's description of its model lacks {', '.join(bad)}")
    checked = cast("ModelInfo", info)
    if checked["audio_offset"] + AUDIO_CODES > checked["vocab_size"]:
        raise VocabularyError("the audio ids go beyond the vocabulary of the chat model")
    vocabulary = Vocabulary(
        tokenizer, audio_offset=checked["audio_offset"], eot=checked["eot"], bot=checked["bot"]
    )
    return ChatModel(checked, vocabulary, sha256)


class ModelCache:
    """Models by revision; fetched once, however many requests ask at the same time."""

    def __init__(self) -> None:
        self._found: dict[str, ChatModel] = {}
        self._locks: dict[str, asyncio.Lock] = {}

    async def get(self, revision: str, fetch: Callable[[], Awaitable[ChatModel]]) -> ChatModel:
        """The model of `revision`, by `fetch` if it is not known yet; a failed fetch is not remembered."""
        found = self._found.get(revision)
        if found is not None:
            return found
        async with self._locks.setdefault(revision, asyncio.Lock()):
            if revision not in self._found:
                model = await fetch()
                log.info("chat revision %s: tokenizer.model sha256 %s", revision, model.sha256)
                while len(self._found) >= KEPT:
                    oldest = next(iter(self._found))
                    del self._found[oldest]
                    self._locks.pop(oldest, None)
                self._found[revision] = model
            return self._found[revision]

    @property
    def latest(self) -> ChatModel | None:
        """The model fetched last, if any."""
        return next(reversed(self._found.values()), None)
