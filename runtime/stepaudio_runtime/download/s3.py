"""A bucket with the folders of a download, by obstore: any store that speaks S3.

A file `SHA256SUMS` at the top of the prefix (lines of `HEX  PATH`, as sha256sum writes them) gives the
checksums; without it only sizes are checked, for S3 itself knows no sum of a large object's content.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import timedelta
from typing import TYPE_CHECKING

import obstore
from obstore import exceptions
from obstore.store import S3Store

from stepaudio_runtime.download.remote import Digest, Fault, FaultKind, RemoteFile, safe_path, wanted

if TYPE_CHECKING:
    from obstore.store import S3Config

SUMS = "SHA256SUMS"
_UNAUTHORIZED = (exceptions.UnauthenticatedError, exceptions.PermissionDeniedError, PermissionError)
_MISSING = (exceptions.NotFoundError, FileNotFoundError)
# Listing has one class of error for everything: S3's own code stands in its text.
_UNAUTHORIZED_WORDS = ("AccessDenied", "InvalidAccessKeyId", "SignatureDoesNotMatch", "ExpiredToken")
_BUSY_WORDS = ("SlowDown", "TooManyRequests")
_LONGEST_REQUEST = timedelta(hours=1)


class S3:
    """One prefix of one bucket. Keys come from AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, if there."""

    def __init__(
        self,
        bucket: str,
        prefix: str,
        folders: Sequence[str],
        *,
        endpoint: str | None,
        region: str | None,
        anonymous: bool,
    ) -> None:
        self.name = f"s3://{bucket}/{prefix}".rstrip("/")
        self._prefix = f"{prefix.strip('/')}/" if prefix.strip("/") else ""
        self._folders = folders
        config: S3Config = {"region": region or "us-east-1", "skip_signature": anonymous}
        if endpoint is not None:
            config["endpoint"] = endpoint
            config["virtual_hosted_style_request"] = False
        self._store = S3Store(
            bucket,
            config=config,
            client_options={
                "allow_http": (endpoint or "").startswith("http://"),
                "timeout": _LONGEST_REQUEST,  # of a whole piece
                "connect_timeout": timedelta(seconds=30),
            },
            # Tries are counted, and waits made, by `fetch`.
            retry_config={"max_retries": 0, "retry_timeout": timedelta(seconds=1)},
        )

    def files(self) -> list[RemoteFile]:
        """Every object below the folders."""
        try:
            sums = self._sums()
            found = []
            for folder in self._folders:
                at = f"{self._prefix}{folder}/"
                for page in obstore.list(self._store, prefix=at):
                    for item in page:
                        path = item["path"].removeprefix(at)
                        if wanted(path):
                            place = safe_path(folder, path)
                            found.append(RemoteFile(place, item["size"], sums.get(place), item["path"]))
            return found
        except (exceptions.BaseError, OSError) as error:
            raise self._fault(error) from error

    def _sums(self) -> dict[str, Digest]:
        try:
            text = bytes(obstore.get(self._store, f"{self._prefix}{SUMS}").bytes()).decode()
        except (exceptions.NotFoundError, FileNotFoundError):
            return {}
        except UnicodeDecodeError as error:
            raise Fault(FaultKind.BROKEN, f"{self.name}/{SUMS} is no text: {error}") from error
        lines = (line.split(maxsplit=1) for line in text.splitlines() if line.strip())
        return {
            parts[1].lstrip("*").strip(): Digest("sha256", parts[0].lower())
            for parts in lines
            if len(parts) == 2
        }

    def read(self, file: RemoteFile, start: int, stop: int) -> Iterator[bytes]:
        """The bytes from `start` up to `stop`."""
        try:
            answer = obstore.get(self._store, file.address, options={"range": (start, stop)})
            for chunk in answer.stream(min_chunk_size=1 << 20):
                yield bytes(chunk)
        except (exceptions.BaseError, OSError) as error:
            raise self._fault(error) from error

    def close(self) -> None:
        """The store keeps nothing open that matters."""

    def _fault(self, error: Exception) -> Fault:
        text = f"{self.name}: {' '.join(str(error).split())}"
        if isinstance(error, _UNAUTHORIZED) or any(word in text for word in _UNAUTHORIZED_WORDS):
            return Fault(FaultKind.UNAUTHORIZED, text)
        if isinstance(error, _MISSING) or "NoSuchBucket" in text:
            return Fault(FaultKind.MISSING, text)
        if any(word in text for word in _BUSY_WORDS):
            return Fault(FaultKind.BUSY, text)
        return Fault(FaultKind.BROKEN, text)
