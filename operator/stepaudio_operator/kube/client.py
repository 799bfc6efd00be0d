"""The API server over `kubernetes.aio`: its connection and credentials, raw dicts instead of its models.

Every call that fails raises one of the `ClusterError` family (see `errors.py`); this is the edge where HTTP
statuses and socket errors become those. Nothing here retries: the queue does, with its backoff, and so a
retry always starts from a fresh observation.
"""

import json
import os
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlencode, urlsplit
from urllib.request import getproxies, proxy_bypass

import aiohttp
from kubernetes.aio.client.api_client import ApiClient
from kubernetes.aio.client.configuration import Configuration
from kubernetes.aio.config import (
    list_kube_config_contexts,
    load_incluster_config,
    load_kube_config,
)

from stepaudio_operator import names
from stepaudio_operator.errors import (
    ClusterError,
    Conflict,
    Expired,
    Forbidden,
    NotFound,
    Rejected,
    Throttled,
    Unavailable,
)
from stepaudio_operator.kube.resources import Resource

Raw = dict[str, Any]

CALL_TIMEOUT_S = 30.0
WATCH_LIMIT_S = 300
"""The server ends a watch after this long (s); the reflector continues it."""
WATCH_SILENCE_S = 100.0
"""A watch without any event or bookmark (the server sends one a minute) for this long is dead (s)."""
_NAMESPACE_FILE = Path("/var/run/secrets/kubernetes.io/serviceaccount/namespace")
_VERSION = Resource("", "", "version", "Version", frozenset())  # no resource of the API: a page
_APPLY = "application/apply-patch+yaml"  # JSON is YAML
_MERGE = "application/merge-patch+json"
# A server-side apply of what does not fit the schema is answered 500, though the fault is the object's.
_UNTYPED = "failed to create typed patch object"
_BY_STATUS: dict[int, type[ClusterError]] = {
    400: Rejected,
    401: Forbidden,
    403: Forbidden,
    404: NotFound,
    409: Conflict,
    410: Expired,
    422: Rejected,
    429: Throttled,
}


async def connect(kubeconfig: str | None = None) -> "Client":
    """A client from `kubeconfig`, else from the pod's service account, else from the user's kubeconfig.

    Raises `kubernetes.aio.config.ConfigException` where there is no usable configuration.
    """
    configuration = Configuration()
    configuration.retries = None
    configuration.connection_pool_maxsize = 64
    if kubeconfig is None and _in_cluster():
        load_incluster_config(client_configuration=configuration)
    else:
        path = kubeconfig or _kubeconfig()
        await load_kube_config(config_file=path, client_configuration=configuration, persist_config=False)
    # Else every single call looks for a proxy in the environment, and for a .netrc file in a thread: a good
    # part of the operator's processor time where it writes much.
    configuration.proxy = configuration.proxy or _proxy(configuration.host)
    configuration.client_session_kwargs = {"trust_env": False}
    return Client(ApiClient(configuration))


def _proxy(server: str) -> str | None:
    """The proxy that the environment names for `server`."""
    parts = urlsplit(server)
    if not parts.hostname or proxy_bypass(parts.netloc):
        return None
    return getproxies().get(parts.scheme)


def own_namespace() -> str:
    """The namespace that the user's kubeconfig or the pod's service account stands in, else `default`."""
    if _in_cluster():
        return _NAMESPACE_FILE.read_text().strip()
    _, current = list_kube_config_contexts(_kubeconfig())
    return str(current["context"].get("namespace") or "default")


def _in_cluster() -> bool:
    return "KUBERNETES_SERVICE_HOST" in os.environ and "KUBECONFIG" not in os.environ


def _kubeconfig() -> str:
    return os.environ.get("KUBECONFIG") or str(Path.home() / ".kube" / "config")


@dataclass(frozen=True, slots=True)
class Access:
    """How the API server is reached, for another client in this process."""

    server: str
    ca_file: str | None
    certificate_file: str | None
    key_file: str | None
    token: str | None
    verify: bool


class Client:
    """Calls on raw objects. `on_call(verb, resource, code)` is told of every answered call (code 0: none)."""

    def __init__(
        self,
        api: ApiClient,
        on_call: Callable[[str, Resource, int], None] = lambda verb, resource, code: None,
    ) -> None:
        self._api = api
        self._on_call = on_call
        api.user_agent = names.FIELD_MANAGER

    def report_to(self, on_call: Callable[[str, Resource, int], None]) -> None:
        """Sets who is told of every answered call."""
        self._on_call = on_call

    async def close(self) -> None:
        """Closes the connections."""
        await self._api.close()

    async def access(self) -> Access:
        """The server's address and the credentials as they are now (tokens are refreshed)."""
        configuration = self._api.configuration
        authorization = await configuration.get_api_key_with_prefix("BearerToken")
        return Access(
            server=configuration.host,
            ca_file=configuration.ssl_ca_cert,
            certificate_file=configuration.cert_file,
            key_file=configuration.key_file,
            token=authorization.split(" ", 1)[-1].strip() if authorization else None,
            verify=configuration.verify_ssl,
        )

    async def get(self, resource: Resource, namespace: str | None, name: str) -> Raw:
        """Reads one object. Raises `NotFound` where there is none."""
        return await self._call(_Call("get", resource, "GET", resource.path(namespace, name)))

    async def version(self) -> Raw:
        """What the server says of itself: `major`, `minor`, `gitVersion`."""
        return await self._call(_Call("get", _VERSION, "GET", "/version"))

    async def list_page(
        self,
        resource: Resource,
        namespace: str | None,
        *,
        selector: str = "",
        limit: int = 500,
        proceed: str = "",
        fresh: bool = True,
    ) -> Raw:
        """One page of a list. `proceed` is the previous page's `metadata.continue`.

        `fresh` asks for the newest state; else any state the server's cache holds will do.
        """
        query: dict[str, str] = {"limit": str(limit)}
        if selector:
            query["labelSelector"] = selector
        if proceed:
            query["continue"] = proceed
        elif not fresh:
            query["resourceVersion"] = "0"
        return await self._call(_Call("list", resource, "GET", resource.path(namespace), query))

    async def watch(
        self, resource: Resource, namespace: str | None, *, selector: str, since: str
    ) -> AsyncGenerator[Raw, None]:
        """Watch events (`{"type", "object"}`) after resource version `since`, until the server ends it.

        Raises `Expired` where `since` is too old, `Unavailable` where the stream breaks.
        """
        query = {
            "watch": "1",
            "allowWatchBookmarks": "true",
            "resourceVersion": since,
            "timeoutSeconds": str(WATCH_LIMIT_S),
        }
        if selector:
            query["labelSelector"] = selector
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=CALL_TIMEOUT_S, sock_read=WATCH_SILENCE_S)
        response = await self._send(_Call("watch", resource, "GET", resource.path(namespace), query), timeout)
        try:
            async with aclosing(_lines(response)) as lines:
                async for line in lines:
                    event: Raw = json.loads(line)
                    if event["type"] == "ERROR":
                        status = event["object"]
                        raise _error(int(status.get("code", 500)), status, None)
                    yield event
        except (aiohttp.ClientError, TimeoutError, OSError, ValueError) as broken:  # or it is no JSON
            raise Unavailable(f"watch of {resource.plural} broke: {broken!r}") from broken
        finally:
            response.close()

    async def create(self, resource: Resource, body: Raw) -> Raw:
        """Creates an object. Raises `Conflict` where the name is taken."""
        path = resource.path(body["metadata"].get("namespace"))
        query = {"fieldManager": names.FIELD_MANAGER, "fieldValidation": "Strict"}
        return await self._call(_Call("create", resource, "POST", path, query, body))

    async def apply(
        self, resource: Resource, body: Raw, *, force: bool, manager: str = names.FIELD_MANAGER
    ) -> Raw:
        """Server-side apply. `force` takes fields over from other managers.

        A `metadata.uid` or `resourceVersion` in `body` is a precondition (`Conflict`).
        """
        metadata = body["metadata"]
        query = {"fieldManager": manager, "fieldValidation": "Strict"}
        if force:
            query["force"] = "true"
        path = resource.path(metadata.get("namespace"), metadata["name"])
        return await self._call(_Call("apply", resource, "PATCH", path, query, body, _APPLY))

    async def merge_status(self, resource: Resource, namespace: str, name: str, body: Raw) -> Raw:
        """JSON merge patch of the status subresource. A `metadata.uid` in `body` is a precondition."""
        path = resource.path(namespace, name, "status")
        query = {"fieldManager": names.FIELD_MANAGER, "fieldValidation": "Strict"}
        return await self._call(_Call("patch_status", resource, "PATCH", path, query, body, _MERGE))

    async def replace(self, resource: Resource, body: Raw) -> Raw:
        """Replaces an object at the `resourceVersion` that `body` carries; `Conflict` where it moved on."""
        metadata = body["metadata"]
        path = resource.path(metadata.get("namespace"), metadata["name"])
        query = {"fieldManager": names.FIELD_MANAGER}
        return await self._call(_Call("update", resource, "PUT", path, query, body))

    async def delete(
        self,
        resource: Resource,
        namespace: str | None,
        name: str,
        *,
        uid: str,
        resource_version: str | None = None,
        grace_s: int | None = None,
    ) -> Raw:
        """Deletes the object with this `uid` (and version, where given); dependents follow in background."""
        preconditions = {"uid": uid}
        if resource_version is not None:
            preconditions["resourceVersion"] = resource_version
        body: Raw = {"preconditions": preconditions, "propagationPolicy": "Background"}
        if grace_s is not None:
            body["gracePeriodSeconds"] = grace_s
        path = resource.path(namespace, name)
        return await self._call(_Call("delete", resource, "DELETE", path, {}, body))

    async def _call(self, call: "_Call") -> Raw:
        response = await self._send(call, aiohttp.ClientTimeout(total=CALL_TIMEOUT_S))
        try:
            result: Raw = json.loads(await response.read())
        except (aiohttp.ClientError, TimeoutError, OSError, ValueError) as broken:  # or it is no JSON
            raise Unavailable(f"{call}: the answer broke off: {broken!r}") from broken
        return result

    async def _send(self, call: "_Call", limits: aiohttp.ClientTimeout) -> aiohttp.ClientResponse:
        headers = {"Accept": "application/json", "Content-Type": call.content, **self._api.default_headers}
        url = self._api.configuration.host.rstrip("/") + call.path
        if call.query:
            url += "?" + urlencode(call.query)
        try:
            token = (await self._api.configuration.auth_settings()).get("BearerToken")
            if token and token["value"]:
                headers["Authorization"] = token["value"]
            answer = await self._api.rest_client.request(
                call.method, url, headers=headers, body=call.body, _request_timeout=limits
            )
            response: aiohttp.ClientResponse = answer.response
            failure = None if response.status < 400 else await _failure(response)
        except (aiohttp.ClientError, TimeoutError, OSError) as broken:
            self._on_call(call.verb, call.resource, 0)
            raise Unavailable(f"{call}: no answer: {broken!r}") from broken
        self._on_call(call.verb, call.resource, response.status)
        if failure is not None:
            raise failure
        return response


@dataclass(frozen=True, slots=True)
class _Call:
    """One request: `verb` is our word for it, the rest is HTTP."""

    verb: str
    resource: Resource
    method: str
    path: str
    query: dict[str, str] = field(default_factory=dict)
    body: Raw | None = None
    content: str = "application/json"

    def __str__(self) -> str:
        return f"{self.verb} {self.path}"


async def _failure(response: aiohttp.ClientResponse) -> ClusterError:
    text = await response.text()
    try:
        status = json.loads(text)
    except ValueError:
        status = {"message": text[:500]}
    header = response.headers.get("Retry-After", "")
    return _error(response.status, status, float(header) if header.isdigit() else None)


def _error(code: int, status: Raw, retry_after_s: float | None) -> ClusterError:
    """The exception for a `Status` object of the API server."""
    details = status.get("details") or {}
    if retry_after_s is None and details.get("retryAfterSeconds"):
        retry_after_s = float(details["retryAfterSeconds"])
    kind = _BY_STATUS.get(code, Unavailable if code >= 500 else ClusterError)
    message, reason = str(status.get("message") or f"HTTP {code}"), str(status.get("reason") or "")
    if code == 500 and message.startswith(_UNTYPED):
        kind, reason = Rejected, "Invalid"
    return kind(message, status=code, reason=reason, retry_after_s=retry_after_s)


async def _lines(response: aiohttp.ClientResponse) -> AsyncGenerator[bytes, None]:
    """Complete lines of any length of a streamed body."""
    pending = bytearray()
    async for chunk in response.content.iter_any():
        pending += chunk
        start = 0
        while (end := pending.find(b"\n", start)) >= 0:
            if end > start:
                yield bytes(pending[start:end])
            start = end + 1
        del pending[:start]
