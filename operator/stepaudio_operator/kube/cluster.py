"""All Kubernetes I/O of a reconcile: what exists (from memory), and the writes, only where something differs.

Every write's answer goes into the cache at once, so that the next look sees it, and every write can be
repeated: names are deterministic, deletes name the uid they mean, applies replace nothing they do not own.
"""

import asyncio
import logging
from base64 import b64decode
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime
from functools import partial
from typing import Any, Literal

from stepaudio_operator import names
from stepaudio_operator.belonging import check_owner, check_same
from stepaudio_operator.errors import ClusterError, Conflict, NotFound, Rejected
from stepaudio_operator.kube import resources
from stepaudio_operator.kube.cache import Cache, Held, Key, hold
from stepaudio_operator.kube.client import Client
from stepaudio_operator.kube.expected import Expected
from stepaudio_operator.kube.ownership import digest, merge_patch, wanted
from stepaudio_operator.kube.reflector import Reflector, Store, in_words
from stepaudio_operator.kube.resources import Resource
from stepaudio_operator.records import PodRecord, PoolRecord, RevisionRecord, WorkloadRecord, replicas

Raw = dict[str, Any]
logger = logging.getLogger(__name__)

_OWN = (resources.POOLS, resources.VOICES)  # reflected whole: a person may make one
# Reflected by label.
_LABELLED = (
    resources.PODS,
    resources.REVISIONS,
    resources.SERVICES,
    resources.CONFIG_MAPS,
    resources.APP_DEPLOYMENTS,
    resources.SERVICE_ACCOUNTS,
    resources.ROLES,
    resources.ROLE_BINDINGS,
    resources.DISRUPTION_BUDGETS,
    resources.CLAIMS,
    resources.JOBS,
    resources.GROUPS,
)
# What users write: kopf watches it, and tells of it by `see`.
WRITTEN = (resources.DEPLOYMENTS, resources.DATA_JOBS)
# Of an Event: bytes of its note, and characters of its name beside the time.
NOTE_LIMIT, EVENT_NAME_LIMIT = 1024, 230


class Cluster:
    """The cluster as the reconciles see and change it. `wake` is called as by `Cache`."""

    def __init__(
        self,
        client: Client,
        wake: Callable[[Key, bool], None],
        *,
        namespace: str | None,
        instance: str,
        wall: Callable[[], datetime],
        on_trouble: Callable[[Resource, ClusterError], None],
    ) -> None:
        self._client = client
        self._instance = instance
        self._wall = wall
        self.cache = Cache(wake)
        self._stores: dict[str, Store[Held]] = {
            resource.kind: Store(partial(hold, resource), self.cache.change)
            for resource in (*WRITTEN, *_OWN, *_LABELLED)
        }
        self.reflectors = [
            Reflector(
                client,
                resource,
                self._stores[resource.kind],
                namespace=namespace,
                selector="" if resource in _OWN else names.CHILD_SELECTOR,
                on_trouble=on_trouble,
            )
            for resource in (*_OWN, *_LABELLED)
        ]
        # kopf looks but once which kinds there are, and is not begun before these can be read.
        self._expected = Expected(client, WRITTEN, self.see, namespace=namespace, on_trouble=on_trouble)
        # Objects that the server stores in other words than applied: uid -> (wanted, what it came to).
        self._rewritten: dict[str, tuple[bytes, bytes]] = {}

    async def synced(self) -> None:
        """Returns once everything has been read."""
        await asyncio.gather(*(reader.synced.wait() for reader in self._readers()))

    async def read_written(self) -> None:
        """Returns once what users write can be read, however often that has to be tried."""
        await self._expected.read()

    async def told(self) -> None:
        """Returns once everything has been read, and what users write has come through `see` or is gone."""
        await self.synced()
        await self._expected.all_told()

    async def fill(self) -> None:
        """Reads everything once, without a watch."""
        await asyncio.gather(*(reflector.fill() for reflector in self.reflectors))

    def unread(self) -> Iterator[str]:
        """The kinds that could not be read yet, with what went wrong and the cure."""
        for reader in self._readers():
            if not reader.synced.is_set():
                said = f" ({in_words(reader.resource, reader.trouble)})" if reader.trouble else ""
                yield f"{reader.resource.kind}{said}"

    def _readers(self) -> Iterator[Reflector[Any]]:
        yield from self._expected.readers
        yield from self.reflectors

    def see(self, resource: Resource, event: str | None, raw: Raw) -> None:
        """Takes in a watch event of one of `WRITTEN` (`event` None: from a list)."""
        store = self._stores[resource.kind]
        if event == "DELETED":
            store.deleted(raw)
        else:
            store.put(raw, listed=event is None)
        self._expected.tick_off(resource, raw)

    async def still_exists(self, key: Key) -> bool:
        """Whether what users write is still there; the server is asked only where its children vanished."""
        if key not in self.cache.doubtful:
            return True
        store = self._stores[key.kind]
        held = store.get(key.namespace, key.name)
        try:
            live = await self._client.get(_BY_KIND[key.kind], key.namespace, key.name)
        except NotFound:
            live = None
        self.cache.doubtful.discard(key)
        if held is not None and (live is None or live["metadata"]["uid"] != held.uid):
            store.deleted({"metadata": {"namespace": key.namespace, "name": key.name, "uid": held.uid}})
        if live is not None:
            store.put(live)
        return live is not None

    def pods(self, namespace: str, pool: str) -> tuple[PodRecord, ...]:
        """The pods of a pool by name, those of a group as one."""
        groups = self.cache.of_pool(namespace, pool, resources.GROUPS.kind)
        return replicas(groups, self.cache.of_pool(namespace, pool, resources.PODS.kind))

    def every_pod(self, namespace: str, pool: str) -> list[PodRecord]:
        """The pods of a pool by name, each for itself."""
        return self.cache.of_pool(namespace, pool, resources.PODS.kind)

    def is_group(self, namespace: str, name: str, uid: str) -> bool:
        """Whether a replica is a group of pods."""
        held = self.cache.held(resources.GROUPS.kind, namespace, name)
        return held is not None and held.uid == uid

    def revisions(self, namespace: str, pool: str) -> tuple[RevisionRecord, ...]:
        """The revisions of a pool, by name."""
        return tuple(self.cache.of_pool(namespace, pool, resources.REVISIONS.kind))

    def revision(self, namespace: str, pool: str, hash8: str) -> RevisionRecord:
        """One revision of a pool. Raises `Conflict` where it vanished since it was planned with."""
        for record in self.revisions(namespace, pool):
            if record.hash8 == hash8:
                return record
        raise Conflict(f"revision {hash8} of {pool} is not there (any more)")

    def config_map(self, namespace: str, name: str) -> Raw | None:
        """A ConfigMap of ours."""
        held = self.cache.held(resources.CONFIG_MAPS.kind, namespace, name)
        return held.raw() if held else None

    async def binary_file(self, namespace: str, name: str, key: str) -> bytes | None:
        """A file in somebody's ConfigMap, read now; None where there is none of that name."""
        try:
            raw = await self._client.get(resources.CONFIG_MAPS, namespace, name)
            return b64decode(raw["binaryData"][key])
        except (NotFound, LookupError, TypeError, ValueError):
            return None

    async def live(self, resource: Resource, namespace: str, name: str) -> Raw | None:
        """The whole of an object of which only a record is held, read now; None where it is gone."""
        try:
            return await self._client.get(resource, namespace, name)
        except NotFound:
            return None

    async def all_live(self, resource: Resource, namespace: str) -> list[Raw]:
        """Every object of a kind in a namespace, read now."""
        found, proceed = list[Raw](), ""
        while True:
            page = await self._client.list_page(resource, namespace, proceed=proceed)
            found += page["items"]
            proceed = page["metadata"].get("continue") or ""
            if not proceed:
                return found

    def workload(self, namespace: str, pool: str) -> WorkloadRecord | None:
        """The Deployment of a gateway pool."""
        found = self.cache.of_pool(namespace, pool, resources.APP_DEPLOYMENTS.kind)
        return found[0] if found else None

    def pools(self, key: Key) -> Mapping[str, PoolRecord]:
        """The pools of a deployment by component."""
        return self.cache.pools(key.namespace, key.name)

    async def apply(self, desired: Raw, owner: Raw | None) -> bool:
        """Server-side apply of a child of `owner`, where what is ours of it differs. True where it wrote.

        Without an owner it is a volume, which outlives who asked for it.

        Fields of ours that others changed are taken back; a pool's only as long as it is as it was seen
        (`Conflict`), since somebody may have taken over its number of replicas meanwhile. Raises `Rejected`
        (reason `NameTaken`) where an object of that name belongs to somebody else: nothing of it is touched.
        """
        if await self.difference(desired, owner) is None:
            return False
        resource, want = _resource(desired), digest(wanted(desired))
        seen = self.cache.raw(Key(resource.kind, *_place(desired))) if resource is resources.POOLS else None
        if seen is not None:
            version = {"resourceVersion": seen["metadata"]["resourceVersion"]}
            desired = {**desired, "metadata": {**desired["metadata"], **version}}
        answer = await self._client.apply(resource, desired, force=True)
        self._stores[resource.kind].put(answer, own=True)
        stored = hold(resource, answer)
        if stored.ours != want:
            self._rewritten[stored.uid] = (want, stored.ours)
            logger.info("%s %s is stored in other words than applied", resource.kind, stored.name)
        return True

    async def difference(self, desired: Raw, owner: Raw | None) -> Literal["missing", "other"] | None:
        """What `apply` would write for: the object is not there, or other than desired. Raises as `apply`."""
        resource = _resource(desired)
        held = self.cache.held(resource.kind, *_place(desired))
        if held is None:
            live = await self._look_up(desired)
            if live is None:
                return "missing"
            held = hold(resource, live)
        check_owner(held, owner)
        return None if self._is(held, digest(wanted(desired))) else "other"

    def as_applied(self, desired: Raw) -> bool:
        """Whether `apply` would write nothing, as far as is known here."""
        held = self.cache.held(_resource(desired).kind, *_place(desired))
        return held is not None and self._is(held, digest(wanted(desired)))

    def _is(self, held: Held, want: bytes) -> bool:
        return held.ours == want or self._rewritten.get(held.uid) == (want, held.ours)

    async def give(self, partial_object: Raw, manager: str) -> None:
        """Server-side apply of a few fields under another field manager of ours."""
        resource = _resource(partial_object)
        answer = await self._client.apply(resource, partial_object, force=True, manager=manager)
        self._stores[resource.kind].put(answer, own=True)

    async def create(self, desired: Raw) -> None:
        """Creates an object whose name is taken only by itself: an earlier run, or a slower watch.

        Raises `Rejected` where it is somebody else's (`NameTaken`), has lost its labels (`LabelsLost`), or is
        of a kind that the cluster does not know (`KindUnknown`).
        """
        resource = _resource(desired)
        try:
            answer = await self._client.create(resource, desired)
        except NotFound as unknown:
            if not resource.optional:
                raise  # its namespace has gone
            raise _unknown(resource, unknown) from unknown
        except Conflict:
            live = await self._look_up(desired)
            if live is None:
                raise  # it went away meanwhile; observe again
            check_same(hold(resource, live), live, desired)
            return
        self._stores[resource.kind].put(answer, own=True)

    async def ensure(self, desired: Raw) -> None:
        """Creates an object of a kind that is not watched; one of its name is it, from an earlier run.

        Raises `Rejected` where the cluster does not know the kind.
        """
        resource = _resource(desired)
        try:
            await self._client.create(resource, desired)
        except Conflict:
            return
        except NotFound as unknown:
            raise _unknown(resource, unknown) from unknown

    async def delete(self, kind: str, namespace: str, name: str, uid: str) -> bool:
        """Deletes the object with this uid; one that is gone already is fine. True where that was news to the
        server: what is on its way out, and may be held by somebody's finalizer, is not deleted again.
        """
        held = self.cache.held(kind, namespace, name)
        if held is not None and held.uid == uid and held.deleting:
            return False
        resource = _BY_KIND[kind]
        try:
            answer = await self._client.delete(resource, namespace, name, uid=uid)
        except NotFound:
            answer = {"kind": "Status"}
        self._stores[kind].deleting(namespace, name, answer)
        return True

    async def write_status(self, key: Key, raw: Raw, status: Mapping[str, Any]) -> bool:
        """Writes the status of `raw` where it differs; one that is gone is fine. True where it wrote."""
        patch = merge_patch(raw.get("status") or {}, _without_none(status))
        if not patch:
            return False
        resource = _BY_KIND[key.kind]
        body = {"metadata": {"uid": raw["metadata"]["uid"]}, "status": patch}
        try:
            answer = await self._client.merge_status(resource, key.namespace, key.name, body)
        except NotFound:
            return False
        self._stores[key.kind].put(answer, own=True)
        return True

    async def event(self, raw: Raw, *, warning: bool, reason: str, action: str, note: str) -> None:
        """Records an Event about one of our resources; best effort."""
        now = self._wall().astimezone(UTC)
        metadata = raw["metadata"]
        about = metadata["name"][:EVENT_NAME_LIMIT].rstrip("-.")
        body = {
            "apiVersion": resources.EVENTS.api_version,
            "kind": "Event",
            "metadata": {
                "namespace": metadata["namespace"],
                "name": f"{about}.{int(now.timestamp() * 1_000_000):x}",
            },
            "eventTime": now.strftime("%Y-%m-%dT%H:%M:%S.%fZ"),
            "type": "Warning" if warning else "Normal",
            "reason": reason,
            "action": action,
            "note": note.encode()[:NOTE_LIMIT].decode(errors="ignore"),
            "reportingController": f"{names.GROUP}/{names.FIELD_MANAGER}",
            "reportingInstance": self._instance,
            "regarding": {
                "apiVersion": raw["apiVersion"],
                "kind": raw["kind"],
                "namespace": metadata["namespace"],
                "name": metadata["name"],
                "uid": metadata["uid"],
                "resourceVersion": metadata["resourceVersion"],
            },
        }
        try:
            await self._client.create(resources.EVENTS, body)
        except ClusterError as error:
            logger.warning("event %s of %s/%s: %s", reason, metadata["namespace"], metadata["name"], error)

    async def _look_up(self, desired: Raw) -> Raw | None:
        """Reads what the cache does not hold: new, not ours, or ahead of the watch."""
        resource = _resource(desired)
        try:
            live = await self._client.get(resource, *_place(desired))
        except NotFound:
            return None
        if (live["metadata"].get("labels") or {}).get(names.LABEL_MANAGED_BY) == names.MANAGED_BY:
            self._stores[resource.kind].put(live)
        return live


_BY_KIND = {resource.kind: resource for resource in resources.ALL}


def _resource(body: Raw) -> Resource:
    return _BY_KIND[body["kind"]]


def _place(body: Raw) -> tuple[str, str]:
    """Namespace and name."""
    return body["metadata"]["namespace"], body["metadata"]["name"]


def _unknown(resource: Resource, error: NotFound) -> Rejected:
    cure = ""
    if resource is resources.GROUPS:
        cure = "; a replica on several nodes needs LeaderWorkerSet: install it, or remove gpu.nodes"
    return Rejected(
        f"this cluster does not serve {resource.plural} of {resource.api_version}{cure}",
        status=error.status,
        reason="KindUnknown",
    )


def _without_none(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _without_none(item) for key, item in value.items() if item is not None}
    if isinstance(value, list | tuple):
        return [_without_none(item) for item in value]
    return value
