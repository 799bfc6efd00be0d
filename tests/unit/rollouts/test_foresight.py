"""What `plan --against-cluster` says is what then happens: the same steps of every pool in the same order.

A deployment serves; a change of it is foreseen by reads alone, then made, and the calls of the operator's own
reconciles are compared with the plan.
"""

import asyncio
from typing import Any

import pytest

from stepaudio_operator import names
from stepaudio_operator.foresight.against import foresee, foresee_data_job
from stepaudio_operator.kube.resources import Resource
from stepaudio_operator.render.images import ImageDefaults
from tests.unit.rollouts.api import Api, Raw
from tests.unit.rollouts.data_world import DATA_JOB, DataWorld
from tests.unit.rollouts.world import NAME, NAMESPACE, World

SPEC: Raw = {
    "preset": "nano",
    "runtime": {"version": "1.0.0"},
    "models": {"source": {"pvc": {"claimName": "models"}}},
    "chat": {"replicas": 2},
    "tts": {"replicas": 2},
    "tokenizer": {"replicas": 1},
    "gateway": {"replicas": 1},
}
CANARY = {
    "strategy": "Canary",
    "canary": {"steps": [{"traffic": 50, "pause": "5m"}, {"traffic": 80, "pause": "1m"}]},
}


class Reading:
    """The part of the operator's client that reads; anything else is not there."""

    def __init__(self, api: Api) -> None:
        self._api = api
        self.get = api.get

    async def list_page(self, resource: Resource, namespace: str | None, **_: Any) -> Raw:
        return {"items": list(self._api.of(resource.kind)), "metadata": {"resourceVersion": "1000000"}}


def foreseen(world: World, spec: Raw) -> list[str]:
    """What would be done, by its own words."""
    document = {
        "apiVersion": names.API_VERSION,
        "kind": names.DEPLOYMENT_KIND,
        "metadata": {"namespace": NAMESPACE, "name": NAME},
        "spec": spec,
    }
    client: Any = Reading(world.api)
    return [
        act.what for act in asyncio.run(foresee(client, document, ImageDefaults("1.0.0"), lambda: world.now))
    ]


def foreseen_of_data_job(world: DataWorld, spec: Raw) -> list[str]:
    """The same of a data job."""
    document = {**world.api.objects[DATA_JOB], "spec": spec}
    client: Any = Reading(world.api)
    images, now = ImageDefaults("1.0.0"), lambda: world.now
    return [str(act) for act in asyncio.run(foresee_data_job(client, document, images, now))]


def by_pool(calls: list[str]) -> dict[str, list[str]]:
    """What happens to the pods and revisions of each pool."""
    found: dict[str, list[str]] = {}
    for call in calls:
        words = call.split()
        if words[0] in ("create", "delete") and words[1] in ("Pod", "LeaderWorkerSet", "ControllerRevision"):
            found.setdefault("-".join(words[2].split("-")[:2]), []).append(call)
    return found


@pytest.mark.parametrize(
    "change",
    [
        {"chat": {"replicas": 2, "maxModelLen": 512}},
        {"chat": {"replicas": 2, "maxModelLen": 512}, "rollout": {"strategy": "InPlace"}},
        {"chat": {"replicas": 2, "maxModelLen": 512}, "rollout": {"strategy": "Recreate"}},
        {"chat": {"replicas": 2, "maxModelLen": 512}, "rollout": CANARY},
        {"chat": {"replicas": 2, "gpu": {"count": 2, "nodes": 2}}},
        {"chat": {"replicas": 2, "maxModelLen": 512}, "rollout": {"maxUnavailable": 2}},
        {"tts": {"replicas": 4}, "tokenizer": {"replicas": 2}},
        {"tts": {"replicas": 1}, "chat": {"replicas": 0}},
        {"runtime": {"version": "1.0.1"}},
        {"models": {"source": {"pvc": {"claimName": "others"}}}},
        {"tokenizer": {"placement": "WithTTS"}},
        {"tokenizer": {"placement": "WithTTS"}, "models": {"source": {"pvc": {"claimName": "others"}}}},
        {},
    ],
)
def test_the_steps_foreseen_are_those_that_are_taken(change: Raw) -> None:
    world = World(SPEC, room={})
    assert world.settle()
    assert world.condition()[0] == "True"
    before, version = list(world.api.calls), world.api.objects.copy()
    planned = foreseen(world, {**SPEC, **change})
    assert world.api.calls == before
    assert world.api.objects == version

    world.edit({**SPEC, **change})
    assert world.settle()
    assert by_pool(planned) == by_pool(world.api.calls[len(before) :])
    assert foreseen(world, {**SPEC, **change}) == []


def test_a_data_job_is_foreseen_as_it_then_goes() -> None:
    spec = {"recipe": {"name": "a"}, "output": {"volume": {"size": "1Gi"}}}
    world = DataWorld(spec)
    made = "create Job speech-data: makes the data, by stepaudio/runtime-cpu:1.0.0"
    claim = "create PersistentVolumeClaim speech-data: belongs to nobody, and stays"
    assert foreseen_of_data_job(world, spec) == [claim, made]
    world.settle()
    calls = list(world.api.calls)
    # What the API server fills in by default is no change.
    assert foreseen_of_data_job(world, {**spec, "workers": 1}) == []
    assert foreseen_of_data_job(world, {**spec, "workers": 2}) == [
        "change StepAudioDataJob speech: spec.workers unset -> 2",
        "delete Job speech-data: the spec has changed: its job is made anew",
        made,
    ]
    assert world.api.calls == calls


def test_what_is_not_there_is_foreseen_whole() -> None:
    world = World(SPEC, room={})
    world.api.remove((names.DEPLOYMENT_KIND, NAMESPACE, NAME))
    planned = foreseen(world, SPEC)
    assert planned[0] == f"create StepAudioDeployment {NAME}"
    world = World(SPEC, room={})
    assert world.settle()
    assert by_pool(planned) == by_pool(world.api.calls)


def test_a_deployment_that_is_paused_says_so_first() -> None:
    world = World(SPEC, room={})
    assert world.settle()
    planned = foreseen(world, {**SPEC, "tts": {"replicas": 3}, "paused": True})
    assert planned[0] == "nothing is done"
    assert any(line.startswith("create Pod prod-tts-") for line in planned)


def test_a_component_that_is_switched_off_is_deleted() -> None:
    world = World(SPEC, room={})
    assert world.settle()
    planned = foreseen(world, {**SPEC, "tts": {"enabled": False}})
    assert f"delete StepAudioPool {NAME}-tts" in planned
    assert f"delete Service {NAME}-tts" in planned
