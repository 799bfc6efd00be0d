"""API keys: only their SHA-256 hashes are known here, read from a folder (a mounted Secret) and followed.

Every file of the folder holds lines `sha256:<64 hex digits>`; blank lines and `#` comments are skipped.
Several keys may be valid at a time, so keys can be rotated without a gap. A folder without keys admits
nobody.
"""

import asyncio
import hashlib
import hmac
import logging
import re
from pathlib import Path

from stepaudio_runtime.contract import API_KEY_PREFIX
from stepaudio_runtime.errors import ConfigError
from stepaudio_runtime.gateway.errors import ApiError

log = logging.getLogger(__name__)

POLL_S = 5.0
"""Seconds between looks at the folder; the kubelet itself takes up to a minute to bring a change."""

_LINE = re.compile(re.escape(API_KEY_PREFIX) + r"([0-9a-f]{64})", re.IGNORECASE)


def read_hashes(folder: Path) -> frozenset[bytes]:
    """Digests in all files of `folder`. Raises OSError; a line of another form is logged and skipped."""
    found = set()
    for file in sorted(folder.iterdir()):
        if file.name.startswith(".") or not file.is_file():  # a Secret's `..data` is a link to a folder
            continue
        for number, line in enumerate(file.read_text(encoding="utf-8", errors="replace").splitlines(), 1):
            text = line.strip()
            if not text or text.startswith("#"):
                continue
            match = _LINE.fullmatch(text)
            if match:
                found.add(bytes.fromhex(match[1]))
            else:
                log.warning("%s line %d is not `%s<64 hex digits>`; skipped", file, number, API_KEY_PREFIX)
    return frozenset(found)


class ApiKeys:
    """The valid keys; None as folder leaves the API open. Raises ConfigError for a folder not to be read."""

    def __init__(self, folder: Path | None) -> None:
        self._folder = folder
        self._hashes: frozenset[bytes] = frozenset()
        self._task: asyncio.Task[None] | None = None
        if folder is not None:
            try:
                self._hashes = read_hashes(folder)
            except OSError as fault:
                raise ConfigError(
                    what=f"API keys in {folder}: {fault}", cure="mount the Secret with the keys there"
                ) from fault

    def check(self, authorization: str | None) -> None:
        """Raise ApiError 401 unless the header carries a valid key."""
        if self._folder is None:
            return
        # The server read the header as Latin-1: these are the bytes that were sent, in whatever encoding.
        scheme, _, rest = (authorization or "").encode("latin-1").partition(b" ")
        key = rest.strip()
        if scheme.lower() != b"bearer" or not key:
            raise _unauthorized(
                "You didn't provide an API key. Send it as `Authorization: Bearer KEY`.", None
            )
        digest = hashlib.sha256(key).digest()
        # Every hash is compared, and each in constant time.
        if not any([hmac.compare_digest(digest, known) for known in self._hashes]):  # noqa: C419
            raise _unauthorized("Incorrect API key provided.", "invalid_api_key")

    def reload(self) -> None:
        """Read the folder again; what cannot be read leaves the keys as they were."""
        if self._folder is None:
            return
        try:
            hashes = read_hashes(self._folder)
        except OSError as fault:
            log.warning("API keys in %s cannot be read, keeping the last ones: %s", self._folder, fault)
            return
        if hashes != self._hashes:
            log.info("API keys changed: %d valid", len(hashes))
            self._hashes = hashes

    async def start(self) -> None:
        """Follow the folder."""
        if self._folder is not None:
            self._task = asyncio.create_task(self._follow(), name="api-keys")

    async def stop(self) -> None:
        """Follow it no more."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def _follow(self) -> None:
        while True:
            await asyncio.sleep(POLL_S)
            await asyncio.to_thread(self.reload)


def _unauthorized(message: str, code: str | None) -> ApiError:
    return ApiError(401, message, code=code, headers={"WWW-Authenticate": "Bearer"})
