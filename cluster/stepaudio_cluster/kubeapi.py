"""The few calls that setting up a cluster makes to its API server, over the standard library."""

import json
import ssl
from dataclasses import dataclass, field
from http.client import HTTPException, HTTPSConnection
from pathlib import Path
from typing import Any

from stepaudio_cluster.certs import Pair
from stepaudio_cluster.errors import ClusterError

FIELD_MANAGER = "stepaudio-cluster"
TIMEOUT_S = 10


@dataclass(frozen=True)
class Api:
    """An API server as its administrator sees it. Bodies are dicts; an error answer raises ClusterError."""

    host: str
    port: int
    authority: Path
    client: Pair
    _tls: ssl.SSLContext = field(init=False, repr=False)

    def __post_init__(self) -> None:
        tls = ssl.create_default_context(cafile=str(self.authority))
        tls.load_cert_chain(self.client.certificate, self.client.key)
        object.__setattr__(self, "_tls", tls)

    def ready(self) -> bool:
        """Whether the server has finished starting."""
        try:
            return self._call("GET", "/readyz", None, "")[0] == 200
        except (OSError, HTTPException):
            return False

    def get(self, path: str) -> dict[str, Any] | None:
        """The object at `path`, None where there is none."""
        status, body = self._call("GET", path, None, "")
        if status == 404:
            return None
        return self._checked(status, body, f"GET {path}")

    def apply(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        """Server-side apply: makes the object at `path` or changes what differs."""
        query = f"{path}?fieldManager={FIELD_MANAGER}&force=true"
        return self._checked(
            *self._call("PATCH", query, body, "application/apply-patch+yaml"), f"apply {path}"
        )

    def merge(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        """Merge patch of the object at `path`."""
        query = f"{path}?fieldManager={FIELD_MANAGER}"
        return self._checked(
            *self._call("PATCH", query, body, "application/merge-patch+json"), f"patch {path}"
        )

    def _call(self, method: str, path: str, body: dict[str, Any] | None, content: str) -> tuple[int, bytes]:
        connection = HTTPSConnection(self.host, self.port, context=self._tls, timeout=TIMEOUT_S)
        try:
            headers = {"Content-Type": content} if body is not None else {}
            connection.request(method, path, json.dumps(body) if body is not None else None, headers)
            response = connection.getresponse()
            return response.status, response.read()
        finally:
            connection.close()

    def _checked(self, status: int, body: bytes, what: str) -> dict[str, Any]:
        if status >= 400:
            raise ClusterError(f"{what}: {status} {body.decode(errors='replace')[:500]}")
        answer: dict[str, Any] = json.loads(body)
        return answer
