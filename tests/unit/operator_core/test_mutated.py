"""Every deployment that the parser accepts also reconciles: from nothing to a status that settles.

The deployments are those that `tests/contract/test_spec_schema.py` makes from documents with every field set.
All accepted ones are rendered and planned; a part of them goes through the real reconcilers, against an API
server in memory that does what server-side apply promises, until nothing is written any more.
"""

import copy
import json
import random
from datetime import UTC, datetime, timedelta
from typing import Any

from stepaudio_operator import names, preview, resources, vram
from stepaudio_operator.cluster import Cluster
from stepaudio_operator.errors import Conflict, NotFound, SpecError
from stepaudio_operator.polling import Answer
from stepaudio_operator.reconcile.reconciler import Reconciler
from stepaudio_operator.render.images import ImageDefaults
from stepaudio_operator.resources import Resource
from stepaudio_operator.spec import parse_deployment
from tests.contract.test_spec_schema import deployment_specs

Raw = dict[str, Any]
IMAGES = ImageDefaults("1.0.0")
THROUGH = 100
"""Deployments that go through the reconcilers."""
MOST_REPLICAS = 3
"""A pool of them, at most: more would only take longer."""


def deployment(spec: Raw) -> Raw:
    return {
        "apiVersion": names.API_VERSION,
        "kind": names.DEPLOYMENT_KIND,
        "metadata": {
            "namespace": "speech",
            "name": "prod",
            "uid": "u",
            "resourceVersion": "1",
            "generation": 1,
        },
        "spec": spec,
    }


def accepted() -> list[Raw]:
    """Of all generated specs those that the parser takes."""

    def takes(spec: Raw) -> bool:
        try:
            parse_deployment(deployment(spec))
        except SpecError:
            return False
        return True

    return [spec for spec in deployment_specs() if takes(spec)]


class Memory:
    """An API server in memory, with the calls of `client.Client` that a reconcile makes."""

    def __init__(self) -> None:
        self.objects: dict[tuple[str, str, str], Raw] = {}
        self.applied: dict[tuple[str, str, str], dict[str, Raw]] = {}
        self.version = 1
        self.writes = 0

    async def get(self, resource: Resource, namespace: str | None, name: str) -> Raw:
        try:
            return self.objects[(resource.kind, namespace or "", name)]
        except KeyError:
            raise NotFound(name) from None

    async def list_page(self, resource: Resource, namespace: str | None, **_: Any) -> Raw:
        items = [raw for (kind, _, _), raw in self.objects.items() if kind == resource.kind]
        return {"items": items, "metadata": {"resourceVersion": str(self.version)}}

    async def create(self, resource: Resource, body: Raw) -> Raw:
        if resource is resources.EVENTS:
            return body
        key = (resource.kind, body["metadata"]["namespace"], body["metadata"]["name"])
        if key in self.objects:
            raise Conflict(f"{key} exists")
        return self.store(key, copy.deepcopy(body))

    async def apply(
        self, resource: Resource, body: Raw, *, force: bool, manager: str = names.FIELD_MANAGER
    ) -> Raw:
        key = (resource.kind, body["metadata"]["namespace"], body["metadata"]["name"])
        managers = self.applied.setdefault(key, {})
        managers[manager] = copy.deepcopy(body)
        merged = copy.deepcopy(self.objects.get(key, {"metadata": {}}))
        own = {k: v for k, v in body.items() if k not in ("metadata", "spec")}
        spec: Raw = {}
        for each in managers.values():
            spec |= each.get("spec", {})
        merged |= own | ({"spec": spec} if spec else {})
        if manager == names.FIELD_MANAGER:
            merged["metadata"] |= {"annotations": {}, **body["metadata"]}
        entries = []
        for name, each in managers.items():
            fields = {f"f:{k}": {} for k in each if k not in ("metadata", "apiVersion", "kind", "spec")}
            if "spec" in each:
                fields["f:spec"] = {f"f:{k}": {} for k in each["spec"]}
            fields["f:metadata"] = {
                f"f:{k}": {} for k in each["metadata"] if k not in ("name", "namespace", "uid")
            }
            entries.append({"manager": name, "operation": "Apply", "fieldsV1": fields})
        merged["metadata"]["managedFields"] = entries
        return self.store(key, merged)

    async def merge_status(self, resource: Resource, namespace: str, name: str, body: Raw) -> Raw:
        key = (resource.kind, namespace, name)
        raw = copy.deepcopy(self.objects[key])
        raw["status"] = _merged(raw.get("status") or {}, body["status"])
        return self.store(key, raw)

    async def delete(self, resource: Resource, namespace: str | None, name: str, *, uid: str) -> Raw:
        self.objects.pop((resource.kind, namespace or "", name), None)
        self.writes += 1
        return {"kind": "Status"}

    def store(self, key: tuple[str, str, str], raw: Raw) -> Raw:
        self.version += 1
        self.writes += 1
        old = self.objects.get(key)
        raw["metadata"] = {
            **raw["metadata"],
            "uid": raw["metadata"].get("uid") or (old["metadata"]["uid"] if old else f"uid-{self.version}"),
            "resourceVersion": str(self.version),
            "generation": self._generation(old, raw),
        }
        self.objects[key] = raw
        return raw

    def _roll(self, workload: Raw, count: int) -> None:
        """Makes the pods of the gateway's Deployment, as its controller would."""
        template = workload["spec"]["template"]
        revision = template["metadata"]["labels"][names.LABEL_REVISION]
        for number in range(count):
            name = f"{workload['metadata']['name']}-{revision}-{number}"
            key = ("Pod", workload["metadata"]["namespace"], name)
            if key not in self.objects:
                metadata = {**template["metadata"], "namespace": key[1], "name": name}
                self.store(key, {"kind": "Pod", "metadata": metadata, "spec": template["spec"]})

    @staticmethod
    def _generation(old: Raw | None, new: Raw) -> int:
        before = old["metadata"]["generation"] if old else 0
        return before + (old is None or old.get("spec") != new.get("spec"))

    def obey(self, now: datetime) -> None:
        """Every pod runs and is ready, every Deployment is rolled out."""
        stamp = now.strftime("%Y-%m-%dT%H:%M:%SZ")
        for key, raw in list(self.objects.items()):
            if raw["kind"] == "Pod" and "status" not in raw:
                conditions = [
                    {"type": kind, "status": "True", "lastTransitionTime": stamp}
                    for kind in ("PodScheduled", "Ready")
                ]
                status: Raw = {"phase": "Running", "podIP": "192.0.2.1", "conditions": conditions}
            elif raw["kind"] == "Deployment":
                count = raw["spec"]["replicas"]
                status = dict.fromkeys(("replicas", "updatedReplicas", "readyReplicas"), count)
                status["observedGeneration"] = raw["metadata"]["generation"]
                self._roll(raw, count)
            else:
                continue
            if raw.get("status") != status:
                self.store(key, {**copy.deepcopy(raw), "status": status})


def _merged(old: Raw, patch: Raw) -> Raw:
    result = dict(old)
    for key, value in patch.items():
        if value is None:
            result.pop(key, None)
        elif isinstance(value, dict) and isinstance(result.get(key), dict):
            result[key] = _merged(result[key], value)
        else:
            result[key] = value
    return result


class Heard:
    """Gateways that serve whatever is stored."""

    def __init__(self, memory: Memory) -> None:
        self._memory = memory

    def want(self, key: Any, targets: Any) -> None:
        """Nothing needs to be asked."""

    def answer(self, uid: str) -> Answer:
        stored = self._memory.objects.get(("ConfigMap", "speech", names.routing("prod")))
        generation = json.loads(stored["data"][names.ROUTING_KEY])["generation"] if stored else None
        return Answer("Ready", 0, generation)


async def settle(memory: Memory, spec: Raw) -> Raw:
    """Reconciles until a whole round writes nothing. Returns the deployment."""
    clock = [datetime(2026, 1, 1, tzinfo=UTC)]
    key = (names.DEPLOYMENT_KIND, "speech", "prod")
    memory.objects[key] = deployment(spec)
    cluster = Cluster(
        memory,  # type: ignore[arg-type] - has the calls that are made
        lambda key, fresh: None,
        namespace=None,
        instance="test",
        wall=lambda: clock[0],
        on_trouble=lambda resource, error: None,
    )
    reconcile = Reconciler(cluster, Heard(memory), IMAGES, lambda: clock[0])  # type: ignore[arg-type]
    for _ in range(200):
        before = memory.writes
        memory.obey(clock[0])
        await cluster.fill()
        cluster.see_deployment(None, memory.objects[key])
        keys = cluster.cache.keys()
        for each in keys:
            await reconcile(each)
        clock[0] += timedelta(seconds=5)
        if memory.writes == before:
            return memory.objects[key]
    raise AssertionError(f"still writing after 200 rounds: {spec}")


def few(spec: Raw) -> bool:
    """Whether no pool has many replicas."""
    parts = [spec.get(component) or {} for component in names.COMPONENTS]
    return all((part.get("replicas") or 0) <= MOST_REPLICAS for part in parts)


def test_everything_that_is_accepted_can_be_rendered_and_planned() -> None:
    generated, taken = deployment_specs(), accepted()
    assert len(generated) >= 2000
    assert len(taken) >= 300
    for spec in taken:
        if few(spec):
            planned = preview.objects(deployment(spec), IMAGES)
            assert {entry.body["kind"] for entry in planned} >= {"StepAudioPool", "ControllerRevision"}


async def test_what_is_accepted_reconciles_until_it_is_ready_or_says_that_it_cannot_fit() -> None:
    taken = [spec for spec in accepted() if few(spec)]
    for spec in random.Random(5).sample(taken, min(THROUGH, len(taken))):
        found = await settle(Memory(), spec)
        conditions = {c["type"]: c for c in found["status"]["conditions"]}
        said = {kind: (c["status"], c["reason"]) for kind, c in conditions.items()}
        assert found["status"]["observedGeneration"] == 1, spec
        if vram.refused(parse_deployment(deployment(spec))) is not None:
            assert said["Stalled"] == ("True", "InsufficientVram"), (spec, said)
        elif spec.get("paused"):
            assert said["Ready"][0] == "False", (spec, said)
        else:
            assert said["Ready"][0] == "True", (spec, said)
