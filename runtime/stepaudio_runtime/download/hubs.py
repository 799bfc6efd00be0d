"""The two model hubs, by their HTTP protocols. Both are read by ranges from `resolve`-like addresses.

Hugging Face   GET /api/models/REPO/revision/REV -> the commit; /api/models/REPO/tree/COMMIT (paged by Link)
               -> names, sizes, SHA-256 of large files, git's SHA-1 of the others; /REPO/resolve/COMMIT/PATH
ModelScope     GET /api/v1/models/REPO/repo/files?Revision=REV&Recursive=true -> names, sizes, SHA-256;
               /api/v1/models/REPO/repo?Revision=REV&FilePath=PATH
"""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from typing import Any
from urllib.parse import quote

import httpx

from stepaudio_runtime.contract import HEADER_RETRY_AFTER
from stepaudio_runtime.download.remote import Digest, Fault, FaultKind, RemoteFile, safe_path, wanted
from stepaudio_runtime.keys import bearer
from stepaudio_runtime.retry_after import retry_after_s

HUGGING_FACE = "https://huggingface.co"
MODEL_SCOPE = "https://www.modelscope.cn"
ORGANIZATION = "stepfun-ai"
_TIMEOUT = httpx.Timeout(30.0)  # between two bytes, not for a whole file
_LIST_BYTES = 64 << 20


class _Hub(ABC):
    """What both hubs share: the connections, and how their answers are understood."""

    default_revision = "main"

    def __init__(
        self,
        endpoint: str,
        organization: str,
        folders: Mapping[str, str | None],
        token: str,
    ) -> None:
        """`folders` are the repositories, each with its revision (None: the hub's default).

        `token` is as `keys.read_key` gives it, empty for none.
        """
        self.endpoint = endpoint.rstrip("/")
        self.name = f"{self.endpoint}/{organization}"
        self._organization = organization
        self._folders = folders
        # Ranges are of the file's own bytes; httpx sends the token to this host only.
        headers = {"Accept-Encoding": "identity", **bearer(token)}
        self._http = httpx.Client(headers=headers, timeout=_TIMEOUT, follow_redirects=True)

    def files(self) -> list[RemoteFile]:
        """Every file of every repository."""
        return [
            file
            for folder, revision in self._folders.items()
            for file in self._of(f"{self._organization}/{folder}", folder, revision or self.default_revision)
        ]

    @abstractmethod
    def _of(self, repository: str, folder: str, revision: str) -> Iterator[RemoteFile]:
        """The files of one repository."""

    def read(self, file: RemoteFile, start: int, stop: int) -> Iterator[bytes]:
        """The bytes from `start` up to `stop`."""
        try:
            headers = {"Range": f"bytes={start}-{stop - 1}"}
            with self._http.stream("GET", file.address, headers=headers) as response:
                _require_good(response)
                _require_range(response, start)
                left = stop - start
                for chunk in response.iter_raw():
                    yield chunk[:left]
                    left -= len(chunk)
                    if left <= 0:
                        return
        except httpx.HTTPError as error:
            raise _broken(file.address, error) from error

    def close(self) -> None:
        """Ends the connections."""
        self._http.close()

    def _json(self, url: str) -> tuple[Any, httpx.Response]:
        try:
            response = self._http.get(url)
            _require_good(response)
            return response.json(), response
        except httpx.HTTPError as error:
            raise _broken(url, error) from error
        except ValueError as error:
            raise Fault(FaultKind.BROKEN, f"{url} answers what is no JSON: {error}") from error


class HuggingFace(_Hub):
    """https://huggingface.co, or another server that speaks its protocol."""

    def _of(self, repository: str, folder: str, revision: str) -> Iterator[RemoteFile]:
        api = f"{self.endpoint}/api/models/{quote(repository)}"
        said, _ = self._json(f"{api}/revision/{quote(revision, safe='')}")
        with _understood(api):
            commit = str(said["sha"])
        url: str | None = f"{api}/tree/{quote(commit, safe='')}?recursive=true"
        while url is not None:
            entries, response = self._json(url)
            with _understood(url):
                for entry in entries:
                    if entry["type"] == "file" and wanted(entry["path"]):
                        large = entry.get("lfs")
                        digest = Digest("sha256", large["oid"]) if large else Digest("git", entry["oid"])
                        path = f"{quote(repository)}/resolve/{quote(commit, safe='')}/{quote(entry['path'])}"
                        yield RemoteFile(
                            safe_path(folder, entry["path"]),
                            int(entry["size"]),
                            digest,
                            f"{self.endpoint}/{path}",
                        )
            url = response.links.get("next", {}).get("url")


class ModelScope(_Hub):
    """https://www.modelscope.cn, or another server that speaks its protocol."""

    default_revision = "master"

    def _of(self, repository: str, folder: str, revision: str) -> Iterator[RemoteFile]:
        api = f"{self.endpoint}/api/v1/models/{quote(repository)}/repo"
        url = f"{api}/files?Revision={quote(revision, safe='')}&Recursive=true"
        said, _ = self._json(url)
        with _understood(url):
            for entry in said["Data"]["Files"]:
                if entry["Type"] == "blob" and wanted(entry["Path"]):
                    digest = Digest("sha256", entry["Sha256"]) if entry.get("Sha256") else None
                    place = f"Revision={quote(revision, safe='')}&FilePath={quote(entry['Path'], safe='')}"
                    yield RemoteFile(
                        safe_path(folder, entry["Path"]), int(entry["Size"]), digest, f"{api}?{place}"
                    )


class _understood:  # noqa: N801 - reads like a statement
    """Translates a list of another form into a Fault."""

    def __init__(self, url: str) -> None:
        self._url = url

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if isinstance(error, KeyError | TypeError | ValueError | AttributeError):
            raise Fault(FaultKind.BROKEN, f"{self._url} answers in another form: {error!r}") from error


def _require_good(response: httpx.Response) -> None:
    """Raises the Fault that an answer stands for."""
    code = response.status_code
    if response.is_success:
        return
    what = f"{response.url.copy_with(query=None)} answers {code} {response.reason_phrase}"
    if code in (401, 403):
        raise Fault(FaultKind.UNAUTHORIZED, what)
    if code in (404, 410):
        raise Fault(FaultKind.MISSING, what)
    asked = retry_after_s(response.headers.get(HEADER_RETRY_AFTER, ""), time.time())
    if code == 429 or (code == 503 and asked is not None):
        raise Fault(FaultKind.BUSY, what, asked)
    raise Fault(FaultKind.BROKEN, what)


def _require_range(response: httpx.Response, start: int) -> None:
    """A server that ignores ranges can only be read from the beginning."""
    if response.status_code == 206:
        if response.headers.get("Content-Range", "").startswith(f"bytes {start}-"):
            return
    elif start == 0:
        return
    what = f"{response.url.copy_with(query=None)} does not give the range that was asked for"
    raise Fault(FaultKind.BROKEN, what)


def _broken(url: str, error: httpx.HTTPError) -> Fault:
    return Fault(FaultKind.BROKEN, f"{url.partition('?')[0]}: {error or type(error).__name__}")
