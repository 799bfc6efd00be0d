"""Somebody else edits what the operator has made: labels, owners, statuses, annotations. What can be put back
is put back, what cannot be is said with its cure, and nothing is written again and again.
"""

import copy
from collections.abc import Callable

import pytest

from stepaudio_operator import names
from tests.unit.rollouts.api import Raw
from tests.unit.rollouts.players import ours
from tests.unit.rollouts.world import DEPLOYMENT, NAMESPACE, World

OFF: Raw = {"enabled": False}
SPEECH: Raw = {"preset": "nano", "chat": OFF, "tokenizer": OFF}
POOL = (names.POOL_KIND, NAMESPACE, "prod-tts")


@pytest.fixture
def world() -> World:
    world = World(SPEECH, room={})
    assert world.settle()
    return world


def own(world: World, kind: str) -> Raw:
    """The first object of a kind that belongs to the speech pool, or to the deployment."""
    found = [raw for raw in world.api.of(kind) if ours(raw)]
    return next((r for r in found if r["metadata"]["labels"].get(names.LABEL_POOL) == "prod-tts"), found[0])


def relabel(world: World, raw: Raw, edit: Callable[[dict[str, str]], object]) -> None:
    """Somebody edits labels; the watch by label tells that what does not match any more is gone."""
    kind, name = raw["kind"], raw["metadata"]["name"]
    world.api.change((kind, NAMESPACE, name), lambda r: edit(r["metadata"]["labels"]))
    _, now = world.api.events[kind][-1]
    if not ours(now):
        before = {**now["metadata"], "labels": raw["metadata"]["labels"]}
        world.api.events[kind][-1] = ("DELETED", {**now, "metadata": before})


@pytest.mark.parametrize("kind", ["Pod", "ControllerRevision"])
@pytest.mark.parametrize("label", [names.LABEL_MANAGED_BY, names.LABEL_POOL])
def test_what_has_lost_a_label_is_named_and_not_made_again_and_again(
    world: World, kind: str, label: str
) -> None:
    raw = own(world, kind)
    before = raw["metadata"]["labels"]
    relabel(world, raw, lambda labels: labels.pop(label))
    world.settle(20)
    said = {c["type"]: c for c in world.status()["conditions"]}["Stalled"]
    assert (said["status"], said["reason"]) == ("True", "LabelsLost")
    assert f"{kind} a/{raw['metadata']['name']} has lost labels" in said["message"]
    assert label in said["message"]
    calls = len(world.api.calls)
    world.settle(20)
    assert len(world.api.calls) == calls

    world.api.change(
        (kind, NAMESPACE, raw["metadata"]["name"]), lambda r: r["metadata"].update(labels=dict(before))
    )
    assert world.settle()
    assert world.condition() == ("True", "Ready")


def test_an_object_without_its_owner_gets_it_back(world: World) -> None:
    kinds = (names.POOL_KIND, "Service", "ConfigMap", "Role", "Deployment", "PodDisruptionBudget")
    for kind in kinds:
        before = copy.deepcopy(own(world, kind)["metadata"]["ownerReferences"])
        place = (kind, NAMESPACE, own(world, kind)["metadata"]["name"])
        calls = len(world.api.calls)
        world.api.change(place, lambda raw: raw["metadata"].pop("ownerReferences"))
        assert world.settle()
        assert world.api.objects[place]["metadata"]["ownerReferences"] == before
        assert world.api.calls[calls:] == [f"apply {kind} {place[2]}"]
        assert world.condition() == ("True", "Ready")


def test_pods_of_an_earlier_pool_of_this_name_are_waited_for_and_no_fault(world: World) -> None:
    raw = own(world, "Pod")
    old = {**raw["metadata"]["ownerReferences"][0], "uid": "of-an-earlier-one"}
    place = ("Pod", NAMESPACE, raw["metadata"]["name"])
    world.api.remove(place)
    world.deliver("Pod")
    body = copy.deepcopy(raw)
    body["metadata"] |= {"uid": "", "ownerReferences": [old]}
    world.api.store("Pod", body)  # the watch has yet to tell of it
    for _ in range(3):
        for key in sorted(world.operator.due):
            world.run(key)
    assert not [call for call in world.api.calls if call.startswith("create Event prod-tts")]
    world.api.remove(place)
    assert world.settle()
    assert world.condition() == ("True", "Ready")


@pytest.mark.parametrize("when", ["0001-01-01T00:00:00+14:00", "9999-12-31T23:59:59Z", "soon", ""])
def test_impossible_times_in_a_status_count_as_not_there(world: World, when: str) -> None:
    strike = {"node": "n", "uid": "u", "end": 1, "at": when, "reason": "GpuFault"}
    rollout = {"revision": "0000000a", "phase": "Canary", "startedAt": when, "stepStartedAt": when, "step": 7}
    meddled = {
        "rollout": rollout,
        "recovery": {"strikes": [strike], "replaced": [{"uid": "u", "at": when}]},
        "quarantined": [{"revision": "0000000a", "reason": "R", "message": "", "at": when, "ask": ""}],
        "autoscaling": {"replicas": 4, "reason": "", "at": when},
    }
    world.api.change(POOL, lambda raw: raw["status"].update(meddled))
    assert world.settle()
    assert not meddled.keys() & world.api.objects[POOL]["status"].keys()
    assert world.condition() == ("True", "Ready")


def test_a_status_that_is_gone_comes_back_and_no_pod_goes(world: World) -> None:
    before = {pod["metadata"]["uid"] for pod in world.pods()}
    world.api.change(POOL, lambda raw: raw.pop("status"))
    assert world.settle()
    assert world.api.objects[POOL]["status"]["goodRevision"]
    assert {pod["metadata"]["uid"] for pod in world.pods()} == before


def test_of_an_annotation_as_long_as_can_be_only_so_much_is_stored_as_the_status_holds(world: World) -> None:
    world.api.change(
        POOL,
        lambda raw: (
            raw["metadata"].setdefault("annotations", {}).update({names.ANNOTATION_FORGIVE: "y" * 9999})
        ),
    )
    assert world.settle()
    assert world.api.objects[POOL]["status"]["recovery"] == {"forgiven": "y" * 253}


def test_another_preset_waits_for_its_models_beside_pools_that_stay_as_they_are(world: World) -> None:
    before = {pod["metadata"]["uid"] for pod in world.pods(names.TTS)}
    hub = {"source": {"huggingFace": {}}}
    world.edit({**SPEECH, "preset": "step-audio", "models": hub})
    assert world.settle()
    assert world.condition() == ("False", "DownloadingModels")
    assert {pod["metadata"]["uid"] for pod in world.pods(names.TTS)} == before
    assert world.api.objects[POOL]["spec"]["preset"] == "nano"

    job = next(raw for raw in world.api.of("Job"))
    done = {"conditions": [{"type": "Complete", "status": "True"}]}
    world.api.change(("Job", NAMESPACE, job["metadata"]["name"]), lambda raw: raw.update(status=done))
    assert world.settle()
    assert world.api.objects[POOL]["spec"]["preset"] == "step-audio"
    assert world.condition() == ("True", "Ready")


def test_a_deployment_deleted_without_its_children_and_made_anew_takes_them_over(world: World) -> None:
    before = {pod["metadata"]["uid"] for pod in world.pods()}
    uid = world.api.objects[DEPLOYMENT]["metadata"]["uid"]
    orphaned = [
        (kind, where, name)
        for (kind, where, name), raw in world.api.objects.items()
        if any(owner["uid"] == uid for owner in raw["metadata"].get("ownerReferences", ()))
    ]
    world.api.remove(DEPLOYMENT)
    for place in orphaned:
        world.api.change(place, lambda raw: raw["metadata"].pop("ownerReferences"))
    assert world.settle()
    body = {"apiVersion": names.API_VERSION, "kind": names.DEPLOYMENT_KIND, "spec": SPEECH}
    world.api.store(
        names.DEPLOYMENT_KIND, {**body, "metadata": {"namespace": NAMESPACE, "name": DEPLOYMENT[2]}}
    )
    assert world.settle()
    assert world.condition() == ("True", "Ready")
    assert {pod["metadata"]["uid"] for pod in world.pods()} == before
    new = world.api.objects[DEPLOYMENT]["metadata"]["uid"]
    assert {world.api.objects[place]["metadata"]["ownerReferences"][0]["uid"] for place in orphaned} == {new}


def test_what_a_finalizer_holds_is_deleted_once_and_the_status_goes_on(world: World) -> None:
    held = [("Service", NAMESPACE, "prod-gateway"), (names.POOL_KIND, NAMESPACE, "prod-gateway")]
    for place in held:
        world.api.change(place, lambda raw: raw["metadata"].update(finalizers=["example.com/guard"]))
    assert world.settle()
    calls = len(world.api.calls)
    world.edit({**SPEECH, "gateway": OFF})
    assert world.settle(60)
    deletes = [call for call in world.api.calls[calls:] if call.startswith("delete ")]
    assert len(deletes) == len(set(deletes)), deletes
    assert world.status()["observedGeneration"] == 2
    assert world.condition() == ("True", "Ready")


def test_what_is_left_of_an_earlier_deployment_is_waited_for_and_named(world: World) -> None:
    place = ("Service", NAMESPACE, "prod-tts")
    guarded = {"finalizers": ["example.com/guard"], "deletionTimestamp": "2026-01-02T03:04:05Z"}
    old = world.api.objects[place]["metadata"]["ownerReferences"]
    stale = [{**old[0], "uid": "of-an-earlier-one"}]
    world.api.change(place, lambda raw: raw["metadata"].update(ownerReferences=stale, **guarded))
    world.settle(20)
    assert world.condition("Reconciling") == ("True", "StillGoing")
    said = {c["type"]: c for c in world.status()["conditions"]}["Ready"]
    assert said["message"].startswith(
        "Service prod-tts of an earlier StepAudioDeployment of this name is still"
    )
    world.api.remove(place)
    assert world.settle()
    assert world.condition() == ("True", "Ready")


def test_a_revision_that_was_made_from_another_spec_makes_no_pod(world: World) -> None:
    raw = own(world, "ControllerRevision")
    place = ("ControllerRevision", NAMESPACE, raw["metadata"]["name"])
    other = {names.ANNOTATION_INPUTS: "0" * 64}
    world.api.change(place, lambda raw: raw["metadata"]["annotations"].update(other))
    world.api.remove(("Pod", NAMESPACE, own(world, "Pod")["metadata"]["name"]))
    assert world.settle()
    assert world.condition("Stalled") == ("True", "RevisionTaken")
    assert world.pods(names.TTS) == []
    restart = {names.ANNOTATION_RESTART: "now"}
    world.api.change(DEPLOYMENT, lambda raw: raw["metadata"].setdefault("annotations", {}).update(restart))
    assert world.settle()
    assert world.condition() == ("True", "Ready")
