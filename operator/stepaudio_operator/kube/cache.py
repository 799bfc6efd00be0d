"""What the operator knows of the cluster, in memory: one slim entry an object, and whom a change wakes.

A raw object is projected as it arrives: a record where planning reads it (`records.py`), a digest of the
fields that are ours where only drift matters, its JSON as bytes where a reconcile needs the whole of it (our
own resources). Parsed dictionaries of a thousand deployments would take several times the memory.
"""

import json
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

from stepaudio_operator import names
from stepaudio_operator.kube import resources
from stepaudio_operator.kube.ownership import digest, owned
from stepaudio_operator.kube.resources import Resource
from stepaudio_operator.records import (
    ClaimRecord,
    DeploymentRecord,
    GroupRecord,
    JobRecord,
    PodRecord,
    PoolRecord,
    RevisionRecord,
    VoiceRecord,
    WorkloadRecord,
)

Raw = dict[str, Any]
Place = tuple[str, str]
"""Namespace and name."""


class Key(NamedTuple):
    """What one reconcile is about."""

    kind: str
    """`StepAudioDeployment`, `StepAudioPool`, `StepAudioVoice` or `StepAudioDataJob`; a volume of models that
    is to go is a matter of its own, for nobody may want it any more.
    """
    namespace: str
    name: str

    def __str__(self) -> str:
        return f"{self.kind} {self.namespace}/{self.name}"


@dataclass(frozen=True, slots=True)
class Held:
    """One object as held in memory."""

    kind: str
    namespace: str
    name: str
    uid: str
    deployment: str
    """Name of the StepAudioDeployment it belongs to."""
    pool: str
    """Name of the pool it belongs to, "" for a child of the deployment itself; of a pod of a Job, the Job's
    name.
    """
    models: str
    """Name of the volume of models that it is or belongs to, "" where that is none of its business."""
    data_job: str
    """Name of the StepAudioDataJob it belongs to."""
    owner_uid: str
    """uid of the controlling owner, "" where there is none."""
    deleting: bool
    """Whether it is on its way out: somebody may hold it with a finalizer."""
    ours: bytes
    """Digest of the fields that our field manager holds."""
    intent: bytes
    """Digest of what somebody asks for: generation, labels, annotations, deletion."""
    record: Any
    """Its projection for planning; None where nothing is read from it."""
    body: bytes
    """The whole object as JSON, without managed fields; empty where it is not kept."""

    @property
    def belongs(self) -> tuple[str, str, str, str]:
        """To whom, as its labels say."""
        return self.deployment, self.pool, self.models, self.data_job

    def raw(self) -> Raw:
        """The whole object."""
        return json.loads(self.body)


class LazyObject(Mapping[str, Any]):
    """A JSON object that is parsed when it is read: a template is read once, and kept for months."""

    __slots__ = ("_text",)

    def __init__(self, value: Mapping[str, Any]) -> None:
        self._text = _dump(value)

    def __getitem__(self, key: str) -> Any:
        return json.loads(self._text)[key]

    def __iter__(self) -> Iterator[str]:
        return iter(json.loads(self._text))

    def __len__(self) -> int:
        return len(json.loads(self._text))

    def __deepcopy__(self, memo: object) -> dict[str, Any]:
        return json.loads(self._text)


def hold(resource: Resource, raw: Raw) -> Held:
    """Projects a raw object of `resource`."""
    metadata = raw["metadata"]
    labels = metadata.get("labels") or {}
    models, data_job = labels.get(names.LABEL_MODELS, ""), labels.get(names.LABEL_DATA_JOB, "")
    of_job = names.data(data_job) if data_job else labels.get(names.LABEL_COPY, models)
    project = _RECORDS.get(resource.kind)
    record = project(raw) if project else None
    ours = digest(owned(raw, names.FIELD_MANAGER))
    body = b""
    if resource.kind in _WHOLE:
        slim = {key: value for key, value in metadata.items() if key != "managedFields"}
        body = _dump({**raw, "apiVersion": resource.api_version, "kind": resource.kind, "metadata": slim})
    intent = [metadata.get(key) or 0 for key in ("generation", "labels", "annotations", "deletionTimestamp")]
    return Held(
        kind=resource.kind,
        namespace=metadata.get("namespace", ""),
        name=metadata["name"],
        uid=metadata["uid"],
        deployment=labels.get(names.LABEL_DEPLOYMENT, ""),
        pool=_pool_of(labels) or of_job if resource.kind in _OF_POOL else "",
        models=models,
        data_job=data_job,
        owner_uid=next((o["uid"] for o in metadata.get("ownerReferences") or () if o.get("controller")), ""),
        deleting=metadata.get("deletionTimestamp") is not None,
        ours=ours,
        intent=digest({"intent": intent}),
        record=record,
        body=body,
    )


def _pool_of(labels: Mapping[str, str]) -> str:
    return labels.get(names.LABEL_POOL) or labels.get(names.LABEL_WORKER_OF, "")


def _revision(raw: Raw) -> RevisionRecord:
    record = RevisionRecord.from_raw(raw)
    return replace(record, data=LazyObject(record.data))


_RECORDS: dict[str, Callable[[Raw], Any]] = {
    resources.DEPLOYMENTS.kind: DeploymentRecord.from_raw,
    resources.PODS.kind: PodRecord.from_raw,
    resources.GROUPS.kind: GroupRecord.from_raw,
    resources.POOLS.kind: PoolRecord.from_raw,
    resources.REVISIONS.kind: _revision,
    resources.APP_DEPLOYMENTS.kind: WorkloadRecord.from_raw,
    resources.CLAIMS.kind: ClaimRecord.from_raw,
    resources.JOBS.kind: JobRecord.from_raw,
    resources.VOICES.kind: VoiceRecord.from_raw,
}
_WHOLE = frozenset(
    {
        resources.DEPLOYMENTS.kind,
        resources.POOLS.kind,
        resources.DATA_JOBS.kind,
        resources.CONFIG_MAPS.kind,
        resources.VOICES.kind,
    }
)
_WRITTEN = frozenset({resources.DEPLOYMENTS.kind, resources.DATA_JOBS.kind})
"""What users write and kopf watches."""
_OF_POOL = frozenset(
    {
        resources.PODS.kind,
        resources.GROUPS.kind,
        resources.REVISIONS.kind,
        resources.APP_DEPLOYMENTS.kind,
        resources.DISRUPTION_BUDGETS.kind,
    }
)


class Cache:
    """Entries by kind, name, pool and deployment.

    `wake(key, fresh)` is called with every key that a change concerns; `fresh` where what is asked of that
    very object has changed.
    """

    def __init__(self, wake: Callable[[Key, bool], None]) -> None:
        self._wake = wake
        self._by_kind: dict[str, dict[Place, Held]] = defaultdict(dict)
        self._of_pool: dict[Place, dict[tuple[str, str], Held]] = defaultdict(dict)
        self._of_deployment: dict[Place, dict[tuple[str, str], Held]] = defaultdict(dict)
        self.doubtful: set[Key] = set()
        """Deployments and data jobs whose children vanished: they may be gone themselves, ask before making
        new ones.
        """

    def change(self, old: Held | None, new: Held | None, own: bool) -> None:
        """Takes in a change of one object; None stands for absent, `own` for our own write."""
        held = new or old
        if held is None:
            return
        if old is not None and new is not None and old.belongs != new.belongs:
            self.change(old, None, own)  # somebody has changed its labels: who had it has to know too
            self.change(None, new, own)
            return
        if old is not None:
            self._index(old, remove=True)
        if new is not None:
            self._index(new)
        if _concerns(old, new, own):
            asked = old is None or new is None or old.intent != new.intent
            for key in self._keys(old, new, own):
                self._wake(key, asked and (key.kind, key.name) == (held.kind, held.name))
        if new is None and held.kind not in (*_WRITTEN, *_OF_POOL):
            for kind, name in (
                (resources.DEPLOYMENTS.kind, held.deployment),
                (resources.DATA_JOBS.kind, held.data_job),
            ):
                if (held.namespace, name) in self._by_kind[kind]:
                    self.doubtful.add(Key(kind, held.namespace, name))

    def held(self, kind: str, namespace: str, name: str) -> Held | None:
        """One object."""
        return self._by_kind[kind].get((namespace, name))

    def raw(self, key: Key) -> Raw | None:
        """The whole of one of our own resources."""
        held = self.held(key.kind, key.namespace, key.name)
        return held.raw() if held else None

    def count(self, kind: str) -> int:
        """How many objects of `kind` are held."""
        return len(self._by_kind[kind])

    def keys(self) -> list[Key]:
        """Every object of our own resources."""
        return [
            Key(kind, namespace, name)
            for kind in (*_WRITTEN, resources.POOLS.kind, resources.VOICES.kind)
            for namespace, name in self._by_kind[kind]
        ]

    def of_namespace(self, kind: str, namespace: str) -> list[Held]:
        """Every object of `kind` in a namespace."""
        return [held for (where, _), held in self._by_kind[kind].items() if where == namespace]

    def every_pool(self) -> list[PoolRecord]:
        """The pools of all deployments."""
        return [held.record for held in self._by_kind[resources.POOLS.kind].values()]

    def voices_of(self, namespace: str, deployment: str) -> list[VoiceRecord]:
        """The voices that name a deployment, whether or not it is there."""
        found = self.of_namespace(resources.VOICES.kind, namespace)
        return [held.record for held in found if held.record.deployment == deployment]

    def users_of(self, namespace: str, volume: str) -> list[tuple[str, str]]:
        """Name and uid of the deployments whose status names a volume of models."""
        found = self.of_namespace(resources.DEPLOYMENTS.kind, namespace)
        return [(held.name, held.uid) for held in found if held.record.models == volume]

    def children(self, namespace: str, deployment: str) -> list[Held]:
        """The direct children of a deployment."""
        return list(self._of_deployment.get((namespace, deployment), {}).values())

    def pools(self, namespace: str, deployment: str) -> dict[str, PoolRecord]:
        """The pools of a deployment by component."""
        return {
            held.record.component: held.record
            for held in self.children(namespace, deployment)
            if held.kind == resources.POOLS.kind
        }

    def of_pool(self, namespace: str, pool: str, kind: str) -> list[Any]:
        """The records of `kind` that belong to a pool, by name."""
        members = self._of_pool.get((namespace, pool), {})
        return [held.record for (of, _), held in sorted(members.items(), key=_by_name) if of == kind]

    def _index(self, held: Held, remove: bool = False) -> None:
        tables: list[tuple[dict[Any, Any], Any]] = [(self._by_kind[held.kind], (held.namespace, held.name))]
        member = (held.kind, held.name)
        if held.kind in _OF_POOL:
            place = (held.namespace, held.pool)
            tables.append((self._of_pool[place], member))
        elif held.kind not in _WRITTEN and held.deployment:
            place = (held.namespace, held.deployment)
            tables.append((self._of_deployment[place], member))
        for table, key in tables:
            if remove:
                table.pop(key, None)
            else:
                table[key] = held
        if remove and len(tables) > 1 and not tables[1][0]:
            (self._of_pool if held.kind in _OF_POOL else self._of_deployment).pop(place, None)

    def _keys(self, old: Held | None, new: Held | None, own: bool) -> Iterator[Key]:
        held = new or old
        assert held is not None  # noqa: S101 - `change` has checked
        if held.kind == resources.DATA_JOBS.kind or held.data_job:
            yield Key(resources.DATA_JOBS.kind, held.namespace, held.data_job or held.name)
            return
        if held.models:
            for name, _ in self.users_of(held.namespace, held.models):
                yield Key(resources.DEPLOYMENTS.kind, held.namespace, name)
            if held.kind == resources.CLAIMS.kind and new is not None and new.record.deleting:
                yield Key(held.kind, held.namespace, held.name)
            job = held.pool if held.kind == resources.PODS.kind else held.name
            if held.kind != resources.CLAIMS.kind and job != held.models:
                yield Key(resources.JOBS.kind, held.namespace, names.copy_of(job))
                if held.kind == resources.JOBS.kind:  # pods of a revision before may wait for it
                    for deployment in self.of_namespace(resources.DEPLOYMENTS.kind, held.namespace):
                        yield Key(deployment.kind, held.namespace, deployment.name)
            return
        if held.kind == resources.DEPLOYMENTS.kind:
            yield Key(held.kind, held.namespace, held.name)
            if new is not None and (old is None or old.record != new.record):
                for pool in self.pools(held.namespace, held.name).values():
                    yield Key(resources.POOLS.kind, held.namespace, pool.name)
            if old is None or new is None or old.record != new.record:
                for voice in self.voices_of(held.namespace, held.name):
                    yield Key(resources.VOICES.kind, held.namespace, voice.name)
            if new is None:
                yield from self._copy_keys(held.namespace)
            return
        if held.kind == resources.VOICES.kind:
            yield from self._voice_keys(old, new, own)
            return
        if held.kind == resources.POOLS.kind:
            if not own or old is None or new is None or old.intent != new.intent:
                yield Key(held.kind, held.namespace, held.name)
            if old is None or new is None or old.record != new.record or old.ours != new.ours:
                yield Key(resources.DEPLOYMENTS.kind, held.namespace, held.deployment)
            return
        if held.kind in _OF_POOL:
            yield Key(resources.POOLS.kind, held.namespace, held.pool)
            of_gateway = held.kind == resources.PODS.kind and held.record.component == names.GATEWAY
            may_free_models = held.kind == resources.REVISIONS.kind and new is None
            if may_free_models:
                yield from self._copy_keys(held.namespace)
            frees_volume = may_free_models and self._by_kind[resources.CLAIMS.kind]
            if not of_gateway and not frees_volume and not _moves_models(old, new):
                return
        yield Key(resources.DEPLOYMENTS.kind, held.namespace, held.deployment)

    def _copy_keys(self, namespace: str) -> Iterator[Key]:
        """The models on nodes, of which one may be wanted no more."""
        for held in self.of_namespace(resources.JOBS.kind, namespace):
            if held.record.node:
                yield Key(held.kind, namespace, names.copy_of(held.name))

    def _voice_keys(self, old: Held | None, new: Held | None, own: bool) -> Iterator[Key]:
        """The voice, the deployment that keeps or kept it, and who may take over its name."""
        held = new or old
        assert held is not None  # noqa: S101 - `change` has checked
        kind, namespace = held.kind, held.namespace
        if not own or old is None or new is None or old.intent != new.intent:
            yield Key(kind, namespace, held.name)
        if old is not None and new is not None and old.record == new.record:
            return
        for deployment in {side.record.deployment for side in (old, new) if side is not None}:
            yield Key(resources.DEPLOYMENTS.kind, namespace, deployment)
            if not own:
                for other in self.voices_of(namespace, deployment):
                    if other.name != held.name:
                        yield Key(kind, namespace, other.name)


def _concerns(old: Held | None, new: Held | None, own: bool) -> bool:
    """Whether a change could change what a reconcile does; most kubelet and lease chatter cannot."""
    if old is None or new is None or old.uid != new.uid:
        return True
    if own and new.kind in _WRITTEN:
        # Our own status, made from what we know; its answer brings what somebody asked for meanwhile.
        return old.intent != new.intent
    parts = ("ours", "intent", "record", "body")
    return any(getattr(old, part) != getattr(new, part) for part in parts)


def _moves_models(old: Held | None, new: Held | None) -> bool:
    """Whether a pod whose models lie on its node came to a node, left it, or waits for them from now on."""
    places = [
        (held.record.node, held.record.live, held.record.awaiting_since)
        for held in (old, new)
        if held is not None and held.kind == resources.PODS.kind and held.record.folder
    ]
    return len(places) == 1 or len(set(places)) > 1


def _by_name(member: tuple[tuple[str, str], Held]) -> str:
    return member[0][1]


def _dump(value: Mapping[str, Any]) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode()
