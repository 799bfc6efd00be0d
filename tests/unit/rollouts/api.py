"""An API server in memory, behind the methods of the operator's client: no socket, no wait, no own clock.

What the operator relies on is as in the real one: names and uids, generations, resource versions,
preconditions, server-side apply with field owners, the status subresource, deletion with a grace period,
watch events in order. Schemas, defaults and access rights are not here; tests/integration/operator has the
real server.

After `cut_after` more calls it raises `Cut`, having done what the last of them asked for: the process has
ended and never saw the answer.
"""

from collections import defaultdict
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta
from typing import Any

from stepaudio_operator import names
from stepaudio_operator.errors import ClusterError, Conflict, NotFound
from stepaudio_operator.kube import resources
from stepaudio_operator.kube.resources import Resource

Raw = dict[str, Any]
Place = tuple[str, str, str]
"""Kind, namespace and name."""
Path = tuple[str, ...]

_IDENTITY = frozenset({"name", "namespace", "uid", "resourceVersion", "managedFields", "generation"})


class Cut(BaseException):
    """The operator's process ends here; nothing of it runs on."""


class Api:
    """Objects by place, never changed in place. `events` is what a watch of each kind would show, `calls`
    what was asked to change.
    """

    def __init__(self, now: Callable[[], datetime]) -> None:
        self.objects: dict[Place, Raw] = {}
        self.events: dict[str, list[tuple[str, Raw]]] = defaultdict(list)
        self.calls: list[str] = []
        self.cut_after: int | None = None
        self.unserved: set[str] = set()
        """Kinds that this server does not know."""
        self.before_delete: Callable[[Raw], None] = lambda raw: None
        self.refuse: Callable[[Raw], ClusterError | None] = lambda body: None
        self._now = now
        self._managed: dict[Place, dict[str, set[Path]]] = {}
        self._version = 100

    # --- as the operator's client -------------------------------------------------------------------

    async def get(self, resource: Resource, namespace: str | None, name: str) -> Raw:
        return self._live((resource.kind, namespace or "", name))

    async def list_page(self, resource: Resource, namespace: str | None, **_: Any) -> Raw:
        found = [raw for raw in self.of(resource.kind) if raw["metadata"]["namespace"] == namespace]
        return {"items": found, "metadata": {"resourceVersion": str(self._version)}}

    async def create(self, resource: Resource, body: Raw) -> Raw:
        place = _place(resource.kind, body)
        if resource.kind in self.unserved:
            raise NotFound("the server could not find the requested resource", status=404, reason="NotFound")
        if place in self.objects:
            raise Conflict(f"{place} exists", status=409, reason="AlreadyExists")
        if (refusal := self.refuse(body)) is not None:
            raise refusal
        if resource is not resources.EVENTS:
            self.store(resource.kind, body)
        answer = self.objects.get(place, body)
        self._done(f"create {resource.kind} {place[2]}")
        return answer

    async def apply(
        self, resource: Resource, body: Raw, *, force: bool, manager: str = names.FIELD_MANAGER
    ) -> Raw:
        assert force
        place = _place(resource.kind, body)
        version = body["metadata"].get("resourceVersion")
        live = self.objects.get(place)
        if version and live is not None and version != live["metadata"]["resourceVersion"]:
            raise Conflict(f"{place} has been modified", status=409, reason="Conflict")
        fields = dict(_leaves(_applied(body)))
        mine = self._managed.setdefault(place, {}).get(manager, set())
        others = {m: paths for m, paths in self._managed[place].items() if m != manager}
        raw = _copy(live or body)
        for path in mine - set(fields):
            if not any(path in paths for paths in others.values()):
                _remove(raw, path)
        for path, value in fields.items():
            if _read(raw, path) != value:
                for paths in others.values():
                    paths.discard(path)
            _write(raw, path, value)
        self._managed[place][manager] = set(fields)
        self._put(place, raw)
        answer = self.objects[place]
        self._done(f"apply {resource.kind} {place[2]}")
        return answer

    async def merge_status(self, resource: Resource, namespace: str, name: str, body: Raw) -> Raw:
        place = (resource.kind, namespace, name)
        raw = _copy(self._live(place))
        if body["metadata"]["uid"] != raw["metadata"]["uid"]:
            raise Conflict("the uid is another", status=409)
        raw["status"] = _merged(raw.get("status") or {}, body["status"])
        self._put(place, raw)
        answer = self.objects[place]
        self._done(f"status {resource.kind} {name}")
        return answer

    async def delete(self, resource: Resource, namespace: str | None, name: str, *, uid: str) -> Raw:
        place = (resource.kind, namespace or "", name)
        raw = self._live(place)
        if raw["metadata"]["uid"] != uid:
            raise Conflict("the uid is another", status=409)
        self.before_delete(raw)
        grace = raw["spec"].get("terminationGracePeriodSeconds") if resource is resources.PODS else None
        stays = grace if grace and raw["spec"].get("nodeName") else 0
        if stays or raw["metadata"].get("finalizers"):
            leaving = _copy(raw)
            if "deletionTimestamp" not in leaving["metadata"]:
                leaving["metadata"]["deletionTimestamp"] = _stamp(self._now() + timedelta(seconds=stays))
                leaving["metadata"]["deletionGracePeriodSeconds"] = stays
            self._put(place, leaving)
            answer = self.objects[place]
        else:
            self.remove(place)
            answer = {"kind": "Status"}
        self._done(f"delete {resource.kind} {name}")
        return answer

    # --- as everybody else ----------------------------------------------------------------------------

    def store(self, kind: str, body: Raw) -> Raw:
        """Creates an object as somebody else would."""
        place = _place(kind, body)
        self._put(place, _copy(body))
        return self.objects[place]

    def change(self, place: Place, edit: Callable[[Raw], None]) -> None:
        """Changes an object as somebody else would: what is changed is no longer anybody's by apply."""
        raw = _copy(self._live(place))
        before = dict(_leaves(_applied(raw)))
        edit(raw)
        after = dict(_leaves(_applied(raw)))
        for paths in self._managed.get(place, {}).values():
            paths -= {path for path in paths if before.get(path) != after.get(path)}
        self._put(place, raw)

    def remove(self, place: Place) -> None:
        """The object is gone."""
        raw = self.objects.pop(place)
        self._managed.pop(place, None)
        self._version += 1
        meta = {**raw["metadata"], "resourceVersion": str(self._version)}
        self.events[place[0]].append(("DELETED", {**raw, "metadata": meta}))

    def take_over(self, other: "Api") -> None:
        """Begins with the objects of another one."""
        self.objects = dict(other.objects)
        self._managed = {
            place: {manager: set(paths) for manager, paths in held.items()}
            for place, held in other._managed.items()
        }
        self._version = other._version
        self.events.clear()

    def of(self, kind: str) -> Iterator[Raw]:
        """All objects of a kind, by name."""
        return iter([self.objects[place] for place in sorted(self.objects) if place[0] == kind])

    # --- inside ---------------------------------------------------------------------------------------

    def _live(self, place: Place) -> Raw:
        if place not in self.objects:
            raise NotFound(f"{place} is not there", status=404, reason="NotFound")
        return self.objects[place]

    def _put(self, place: Place, raw: Raw) -> None:
        old = self.objects.get(place)
        meta = raw["metadata"]
        meta["managedFields"] = [
            {"manager": manager, "operation": "Apply", "fieldsV1": _tree(paths)}
            for manager, paths in sorted(self._managed.get(place, {}).items())
        ]
        if old is not None and old == raw:
            return  # the server stores nothing anew
        self._version += 1
        meta["resourceVersion"] = str(self._version)
        meta.setdefault("uid", f"uid-{self._version}")
        meta.setdefault("creationTimestamp", _stamp(self._now()))
        if old is None:
            meta["generation"] = 1
        elif old.get("spec") != raw.get("spec"):
            meta["generation"] = old["metadata"]["generation"] + 1
        self.objects[place] = raw
        self.events[place[0]].append(("ADDED" if old is None else "MODIFIED", raw))

    def _done(self, what: str) -> None:
        self.calls.append(what)
        if self.cut_after is not None:
            self.cut_after -= 1
            if self.cut_after <= 0:
                self.cut_after = None
                raise Cut(what)


def _copy(value: Any) -> Any:
    """Of what JSON can say, and so without the care of `copy.deepcopy`, which took a fifth of these tests."""
    if isinstance(value, dict):
        return {key: _copy(item) for key, item in value.items()}
    return [_copy(item) for item in value] if isinstance(value, list) else value


def _place(kind: str, body: Raw) -> Place:
    return kind, body["metadata"].get("namespace", ""), body["metadata"]["name"]


def _applied(body: Raw) -> Raw:
    fields = {k: v for k, v in body.items() if k not in ("apiVersion", "kind", "metadata", "status")}
    metadata = {k: v for k, v in body["metadata"].items() if k not in _IDENTITY}
    return {**fields, "metadata": metadata} if metadata else fields


def _leaves(value: Any, path: Path = ()) -> Iterator[tuple[Path, Any]]:
    if isinstance(value, dict) and value:
        for key, item in value.items():
            yield from _leaves(item, (*path, key))
    elif path:
        yield path, value


def _read(raw: Raw, path: Path) -> Any:
    for key in path:
        raw = raw.get(key) if isinstance(raw, dict) else None  # type: ignore[assignment]
    return raw


def _write(raw: Raw, path: Path, value: Any) -> None:
    for key in path[:-1]:
        raw = raw.setdefault(key, {})
    raw[path[-1]] = _copy(value)


def _remove(raw: Raw, path: Path) -> None:
    *way, last = path
    parents = [raw]
    for key in way:
        if not isinstance(parents[-1].get(key), dict):
            return
        parents.append(parents[-1][key])
    parents[-1].pop(last, None)
    for parent, key in zip(reversed(parents[:-1]), reversed(way), strict=True):
        if parent[key] == {}:
            del parent[key]


def _tree(paths: set[Path]) -> Raw:
    tree: Raw = {}
    for path in sorted(paths):
        node = tree
        for key in path:
            node = node.setdefault(f"f:{key}", {})
    return tree


def _merged(old: Any, patch: Raw) -> Raw:
    result = dict(old) if isinstance(old, dict) else {}
    for key, value in patch.items():
        if value is None:
            result.pop(key, None)
        elif isinstance(value, dict):
            result[key] = _merged(result.get(key), value)
        else:
            result[key] = _copy(value)
    return result


def _stamp(time: datetime) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ")
