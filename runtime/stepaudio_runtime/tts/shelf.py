"""Every voice that can be asked for: the model's own, and those that were created, from the store.

What the models need of a created voice is computed once for all pods and kept beside it, under the revision
of the models that made it. A few voices stay in memory; that one was deleted or made anew is seen by its
record, which is read for every request.
"""

from __future__ import annotations

import asyncio
import logging
from collections import OrderedDict
from collections.abc import Awaitable, Callable

from stepaudio_runtime.audio.files import decode
from stepaudio_runtime.codec.instructions import Instruction
from stepaudio_runtime.errors import AudioError, Unavailable
from stepaudio_runtime.tts import features
from stepaudio_runtime.tts.voices import Recording, VoicePrompt, Voices, unknown_voice
from stepaudio_runtime.voices.record import VoiceRecord, normal_name
from stepaudio_runtime.voices.store import VoiceStore

log = logging.getLogger(__name__)

KEPT = 64  # voices in memory, about 1 MB each
MAX_WAVE_S = 60.0  # beyond what any gateway stores

Prepare = Callable[[Recording], Awaitable[VoicePrompt]]
"""Computes what the models need of a recording."""


class Shelf:
    """Voices by name. `store` is None where none can be created; `revision` is that of the models."""

    def __init__(
        self,
        built_in: Voices,
        store: VoiceStore | None = None,
        prepare: Prepare | None = None,
        revision: str = "",
    ) -> None:
        self.built_in = built_in
        self._store = store
        self._prepare = prepare
        self._revision = revision
        self._kept: OrderedDict[str, VoicePrompt] = OrderedDict()  # by version, the last used at the end
        self._making: dict[str, asyncio.Task[VoicePrompt]] = {}

    async def get(self, name: str | None, instruction: Instruction | None = None) -> VoicePrompt:
        """The voice `name` (None: the default) for `instruction`.

        Raises InputError for an unknown one, Unavailable where the store fails.
        """
        name = None if name is None else normal_name(name)
        if name is None or name in self.built_in.names or self._store is None:
            return self.built_in.get(name, instruction)
        record = await self._store.get(name)
        if record is None:
            raise unknown_voice(name, self.built_in.names)
        kept = self._kept.get(record.version)
        if kept is None:
            kept = await self._once(record, self._store)
        self._kept[record.version] = kept
        self._kept.move_to_end(record.version)
        while len(self._kept) > KEPT:
            self._kept.popitem(last=False)
        return kept

    async def _once(self, record: VoiceRecord, store: VoiceStore) -> VoicePrompt:
        """One computation for all who wait; it goes on where one of them leaves."""
        making = self._making.get(record.version)
        if making is None:
            making = self._making[record.version] = asyncio.create_task(self._load(record, store))
            making.add_done_callback(lambda _: self._making.pop(record.version, None))
        return await asyncio.shield(making)

    async def _load(self, record: VoiceRecord, store: VoiceStore) -> VoicePrompt:
        stored = await store.features(record, self._revision)
        if stored is not None:
            try:
                return VoicePrompt(record.name, record.transcript, features.parse(stored), created=True)
            except ValueError as error:
                log.warning("features of a voice are made again: %s", error)
        wave = await store.wave(record)
        if wave is None or self._prepare is None:
            raise unknown_voice(record.name, self.built_in.names)
        try:
            decoded = await asyncio.to_thread(decode, wave, max_seconds=MAX_WAVE_S)
        except AudioError as error:
            log.error("the stored wave of voice %r cannot be read: %s", record.name, error)
            raise Unavailable("the voice's stored wave cannot be read; delete and create it again") from error
        made = await self._prepare(Recording(record.name, record.transcript, decoded.samples, decoded.rate))
        try:
            await store.keep_features(record, self._revision, features.dump(made.prompt))
        except Unavailable:
            log.warning("the features of voice %r could not be kept", record.name)
        return VoicePrompt(made.name, made.transcript, made.prompt, created=True)
