"""The store of created voices: a folder on a volume, or a bucket that speaks S3.

    {digest of the name}/voice.json                the record; the voice is there when it is
    {digest of the name}/{version}.flac            its wave
    {digest of the name}/{version}.consent         the recording of the consent, as it was sent
    {digest of the name}/{version}.{revision}.npz  what a model of that revision needs of it

The record is written last and only where there is none, and deleted last, so whatever breaks off in between
can be done again. Nothing but parsed records is remembered: every pod sees at once what another one did.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from urllib.parse import urlsplit

import obstore
from obstore.exceptions import AlreadyExistsError, BaseError
from obstore.store import LocalStore, ObjectStore, S3Store
from pydantic import ValidationError

from stepaudio_runtime.errors import ConfigError, Unavailable
from stepaudio_runtime.voices.record import VoiceRecord, folder_of

log = logging.getLogger(__name__)

RECORD = "voice.json"
AT_ONCE = 16  # reads of records by one listing
FORGOTTEN = timedelta(hours=1)  # what is older and belongs to no record was left by a pod that died
KEPT_RECORDS = 4096


class VoiceStore:
    """Voices in `objects`. Every method raises Unavailable where the store fails."""

    def __init__(self, objects: ObjectStore) -> None:
        self._objects = objects
        self._parsed: dict[tuple[str, str], VoiceRecord] = {}  # by path and entity tag

    async def create(self, record: VoiceRecord, wave: bytes, consent: bytes | None) -> bool:
        """Keep a voice; false where there is one of its name already."""
        await self._put(f"{record.folder}/{record.version}.flac", wave)
        if consent is not None:
            await self._put(f"{record.folder}/{record.version}.consent", consent)
        try:
            async with _faults():
                await obstore.put_async(
                    self._objects,
                    f"{record.folder}/{RECORD}",
                    record.model_dump_json().encode(),
                    mode="create",
                )
        except AlreadyExistsError:
            await self._remove_parts(record)
            return False
        return True

    async def replace(
        self, before: VoiceRecord, record: VoiceRecord, wave: bytes, consent: bytes | None
    ) -> None:
        """Put a voice in the place of another one of its name, at once for all who read it.

        Who replaces it at the same time leaves files that no record names, which `sweep` takes away.
        """
        await self._put(f"{record.folder}/{record.version}.flac", wave)
        if consent is not None:
            await self._put(f"{record.folder}/{record.version}.consent", consent)
        await self._put(f"{record.folder}/{RECORD}", record.model_dump_json().encode())
        await self._remove_parts(before)

    async def get(self, name: str) -> VoiceRecord | None:
        """The voice of this name."""
        raw = await self._get(f"{folder_of(name)}/{RECORD}")
        return None if raw is None else _parse(raw)

    async def all(self) -> list[VoiceRecord]:
        """Every voice, by name."""
        found = [(path, tag) for path, tag, _ in await self._list("") if path.endswith(f"/{RECORD}")]
        bound = asyncio.Semaphore(AT_ONCE)

        async def read(path: str, tag: str) -> VoiceRecord | None:
            if (known := self._parsed.get((path, tag))) is not None:
                return known
            async with bound:
                raw = await self._get(path)
            record = None if raw is None else _parse(raw)
            if record is not None and len(self._parsed) < KEPT_RECORDS:
                self._parsed[path, tag] = record
            return record

        records = await asyncio.gather(*(read(path, tag) for path, tag in found))
        current = set(found)
        self._parsed = {key: record for key, record in self._parsed.items() if key in current}
        return sorted((record for record in records if record is not None), key=lambda r: r.name)

    async def wave(self, record: VoiceRecord) -> bytes | None:
        """The file of its wave; None where the voice has just been deleted."""
        return await self._get(f"{record.folder}/{record.version}.flac")

    async def features(self, record: VoiceRecord, revision: str) -> bytes | None:
        """What was kept by `keep_features`."""
        return await self._get(f"{record.folder}/{record.version}.{revision}.npz")

    async def keep_features(self, record: VoiceRecord, revision: str, features: bytes) -> None:
        """Keep what models of `revision` need of a voice."""
        await self._put(f"{record.folder}/{record.version}.{revision}.npz", features)

    async def delete(self, name: str) -> bool:
        """Remove all of a voice; false where there is none."""
        record = await self.get(name)
        if record is None:
            return False
        await self._remove_parts(record)
        await self._remove([f"{record.folder}/{RECORD}"])
        await self._remove_parts(record)  # a TTS pod may have kept features meanwhile
        return True

    async def sweep(self, now: datetime) -> int:
        """Remove what belongs to no voice and is older than an hour; how many files that were."""
        records = await self.all()
        owned = {f"{record.folder}/{record.version}" for record in records}
        lost = [
            path
            for path, _, written in await self._list("")
            if not path.endswith(f"/{RECORD}")
            and path.split(".", 1)[0] not in owned
            and now - written > FORGOTTEN
        ]
        await self._remove(lost)
        return len(lost)

    async def _remove_parts(self, record: VoiceRecord) -> None:
        """Remove everything of a voice but its record."""
        parts = f"{record.folder}/{record.version}."
        listed = await self._list(record.folder)
        await self._remove([path for path, _, _ in listed if path.startswith(parts)])

    # --- objects ------------------------------------------------------------------------------------

    async def _put(self, path: str, data: bytes) -> None:
        async with _faults():
            await obstore.put_async(self._objects, path, data)

    async def _get(self, path: str) -> bytes | None:
        try:
            async with _faults():
                return bytes(await (await obstore.get_async(self._objects, path)).bytes_async())
        except FileNotFoundError:
            return None

    async def _list(self, folder: str) -> list[tuple[str, str, datetime]]:
        """Path, entity tag and time of writing of every object under `folder`."""
        found: list[tuple[str, str, datetime]] = []
        async with _faults():
            async for batch in obstore.list(self._objects, folder or None):
                found += [(meta["path"], meta["e_tag"] or "", meta["last_modified"]) for meta in batch]
        return found

    async def _remove(self, paths: list[str]) -> None:
        for path in paths:
            try:
                async with _faults():
                    await obstore.delete_async(self._objects, path)
            except FileNotFoundError:
                pass


def open_store(url: str) -> VoiceStore:
    """The store at `file:///folder` or `s3://bucket/prefix`; S3's endpoint, region and keys come from the AWS
    variables of the environment. Raises ConfigError.
    """
    parts = urlsplit(url)
    try:
        if parts.scheme == "file" and parts.path and not parts.netloc:
            return VoiceStore(LocalStore(Path(parts.path), automatic_cleanup=True, mkdir=True))
        if parts.scheme == "s3" and parts.netloc:
            prefix = parts.path.strip("/") or None
            return VoiceStore(
                S3Store(
                    parts.netloc,
                    prefix=prefix,
                    config={"disable_bulk_delete": True},  # which not every S3 server has
                    # Whoever gives an endpoint without TLS wants it so; the default one has it.
                    client_options={"timeout": "10s", "connect_timeout": "3s", "allow_http": True},
                    retry_config={"max_retries": 2, "retry_timeout": timedelta(seconds=10)},
                )
            )
    except (BaseError, OSError) as error:
        raise ConfigError(what=f"the voice store {url}: {_first_line(error)}", cure="correct it") from error
    raise ConfigError(what=f"{url!r} is no voice store", cure="use file:///folder or s3://bucket/prefix")


@asynccontextmanager
async def _faults() -> AsyncIterator[None]:
    """What fails in the store itself becomes Unavailable."""
    try:
        yield
    except (AlreadyExistsError, FileNotFoundError):
        raise
    except (BaseError, OSError) as error:
        log.error("the voice store failed: %s", _first_line(error))
        raise Unavailable("the voice store does not answer") from error


def _first_line(error: Exception) -> str:
    return str(error).partition("\n")[0]


def _parse(raw: bytes) -> VoiceRecord | None:
    try:
        return VoiceRecord.model_validate_json(raw)
    except ValidationError as error:
        log.error("a voice's record is not readable and is passed over: %s", _first_line(error))
        return None


def utc_now() -> datetime:
    """The time, as the store writes it."""
    return datetime.now(UTC)
