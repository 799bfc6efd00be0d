"""A data job ends in whole data and says so, whatever is killed, cut or edited on the way; its data stay."""

from __future__ import annotations

import random

import pytest

from stepaudio_operator import names
from tests.unit.rollouts.api import Raw
from tests.unit.rollouts.data_world import CLAIM, DATA_JOB, JOB, KEY, NAMESPACE, SAMPLES, DataWorld, Folder

CLAIM_NAME = CLAIM[2]
IMAGE = "stepaudio/runtime-cpu:1.0.0"


def spec(recipe: str = "one", **more: object) -> Raw:
    return {"recipe": {"name": recipe}, "output": {"volume": {"size": "1Gi"}}, **more}


@pytest.fixture
def world() -> DataWorld:
    return DataWorld(spec())


def until(world: DataWorld, phase: str, made: int = 0) -> None:
    """Everybody moves until the status says `phase` and so much is made."""
    for _ in range(50):
        if world.figures().get("phase") == phase and sum(f.made for f in world.folders.values()) >= made:
            return
        for move in world.movers():
            move()
        world.pass_time(1)
    raise AssertionError(f"{world.figures()} is not {phase}")


def whole(world: DataWorld) -> None:
    """The data are whole, the status says it, and nothing more happens."""
    assert world.condition() == ("True", "DataMade", f"the data are whole, on volume {CLAIM_NAME}")
    figures = world.figures()
    assert len(figures.pop("inputs")) == 64
    assert figures == {
        "phase": "Complete",
        "claimName": CLAIM_NAME,
        "image": figures["image"],
        "percent": 100,
        "samplesTotal": SAMPLES,
        "samples": SAMPLES - 2,
        "refused": 2,
        "seconds": 71,
    }
    calls = len(world.api.calls)
    world.restart_operator()
    assert world.settle()
    assert world.api.calls[calls:] == []


def test_the_data_are_made_and_the_status_says_how_far(world: DataWorld) -> None:
    until(world, "Running", made=SAMPLES // 2)
    assert world.condition("Reconciling")[:2] == ("True", "MakingData")
    assert world.settle()
    whole(world)
    # What is written says where it is in coarse steps only.
    told = [call for call in world.api.calls if call.startswith("status")]
    assert len(told) < 12
    assert world.figures()["image"] == IMAGE


def test_a_killed_pod_is_followed_by_one_that_goes_on(world: DataWorld) -> None:
    until(world, "Running", made=SAMPLES // 2)
    (pod,) = world.pods()
    world.stop(pod, 137)
    before = world.figures()["percent"]
    for _ in range(3):
        for move in world.movers():
            move()
    assert world.figures()["percent"] >= before > 0
    assert world.settle()
    whole(world)
    assert len(world.pods()) == 2


def test_a_pod_that_is_killed_for_its_memory_is_told_of(world: DataWorld) -> None:
    until(world, "Running", made=SAMPLES // 4)
    world.stop(world.pods()[0], 137, reason="OOMKilled")
    for kind in list(world.seen):
        world.deliver(kind)
    world.run(KEY)
    status, reason, message = world.condition("Reconciling")
    assert (status, reason) == ("True", "OutOfMemory")
    assert "raise podTemplate.resources.limits.memory or lower workers" in message
    assert world.settle()
    whole(world)


def test_what_is_deleted_leaves_its_data_and_applied_again_finds_them(world: DataWorld) -> None:
    until(world, "Running", made=SAMPLES // 2)
    world.delete()
    assert world.settle()
    assert JOB not in world.api.objects and CLAIM in world.api.objects and not world.pods()
    made = world.folders[f"{CLAIM_NAME}/"].made
    assert made >= SAMPLES // 2
    world.apply(spec())
    assert world.settle()
    whole(world)
    assert world.folders == {f"{CLAIM_NAME}/": Folder('{"name": "one"}', SAMPLES)}


def test_a_changed_spec_goes_on_in_another_job_when_the_pods_of_the_first_are_gone(world: DataWorld) -> None:
    until(world, "Running", made=SAMPLES // 2)
    first = world.api.objects[JOB]["metadata"]["uid"]
    world.apply(spec(workers=3))
    assert world.settle()
    whole(world)
    second = world.api.objects[JOB]
    assert second["metadata"]["uid"] != first
    command = second["spec"]["template"]["spec"]["containers"][0]["command"]
    assert command[command.index("--workers") + 1] == "3"
    # More room is no other data.
    world.apply({**spec(workers=3), "output": {"volume": {"size": "2Gi"}}})
    assert world.settle()
    assert world.api.objects[JOB]["metadata"]["uid"] == second["metadata"]["uid"]
    assert world.api.objects[CLAIM]["spec"]["resources"]["requests"] == {"storage": "2Gi"}


def test_another_recipe_in_the_same_folder_is_refused_in_the_engines_words(world: DataWorld) -> None:
    assert world.settle()
    world.apply(spec("two"))
    until(world, "Failed")
    status, reason, message = world.condition("Stalled")
    assert (status, reason) == ("True", "ConfigInvalid")
    assert "another recipe's" in message and "tried again 10 min after" in message
    world.apply({**spec("two"), "output": {"pvc": {"claimName": "mine", "subPath": "two"}}})
    assert world.settle()
    assert world.condition()[:2] == ("True", "DataMade")
    assert world.folders["mine/two"] == Folder('{"name": "two"}', SAMPLES)
    assert world.folders[f"{CLAIM_NAME}/"] == Folder('{"name": "one"}', SAMPLES)


def test_what_a_person_corrects_is_tried_again_after_ten_minutes(world: DataWorld) -> None:
    world.words = "ConfigInvalid: the variable TEACHER_KEY is empty; set it to the API key"
    until(world, "Failed")
    assert world.condition("Stalled")[2].startswith(
        "the variable TEACHER_KEY is empty; set it to the API key;"
    )
    world.words = ""
    assert world.settle()
    whole(world)


def test_data_that_are_whole_are_not_made_again(world: DataWorld) -> None:
    assert world.settle()
    world.api.remove(JOB)
    for pod in world.pods():
        world.api.remove(("Pod", NAMESPACE, pod["metadata"]["name"]))
    assert world.settle()
    assert JOB not in world.api.objects
    whole(world)


@pytest.mark.parametrize("watched", [True, False], ids=["seen", "while no operator runs"])
@pytest.mark.parametrize("job", ["stays", "gone"])
def test_data_that_went_with_their_volume_are_made_anew(world: DataWorld, job: str, watched: bool) -> None:
    assert world.settle()
    if job == "gone":
        world.api.remove(JOB)
        for pod in world.pods():
            world.api.remove(("Pod", NAMESPACE, pod["metadata"]["name"]))
        assert world.settle()
    world.pass_time(60)
    world.api.change(CLAIM, lambda raw: raw.update(status={"phase": "Lost"}))
    if watched:
        assert world.settle()
        lost = "volume speech-data has lost its disk; delete the claim to begin anew"
        assert world.condition("Stalled") == ("True", "VolumeLost", lost)
    labels = world.api.objects[CLAIM]["metadata"]["labels"]
    world.api.remove(CLAIM)
    world.folders.clear()
    if not watched:  # somebody has made the claim again, too
        metadata = {"namespace": NAMESPACE, "name": CLAIM[2], "labels": labels}
        world.api.store(CLAIM[0], {"metadata": metadata, "spec": {}})
        world.restart_operator()
    until(world, "Running")
    assert world.condition()[:2] == ("False", "MakingData")
    assert world.settle()
    whole(world)
    assert [folder.made for folder in world.folders.values()] == [SAMPLES]


def test_another_version_of_the_operator_goes_on_with_the_same_image(world: DataWorld) -> None:
    until(world, "Running", made=SAMPLES // 2)
    world.version = "2.0.0"
    world.restart_operator()
    world.api.remove(JOB)
    assert world.settle()
    whole(world)
    assert world.figures()["image"] == IMAGE
    world.apply(spec(runtime={"version": "2.0.0"}))
    assert world.settle()
    assert world.figures()["image"] == "stepaudio/runtime-cpu:2.0.0"


def test_a_spec_that_does_not_parse_says_which_field(world: DataWorld) -> None:
    world.apply({"recipe": {"name": "one"}, "output": {}})
    assert world.settle()
    assert world.condition("Stalled") == (
        "True",
        "InvalidSpec",
        "spec.output.pvc: set exactly one of pvc and volume",
    )
    world.apply({**spec(), "recipe": {"name": "x" * 100_001}})
    assert world.settle()
    assert "put texts into a file" in world.condition("Stalled")[2]
    assert JOB not in world.api.objects


@pytest.mark.parametrize("change", [spec(), spec(workers=2)], ids=["made", "changed on the way"])
def test_cut_after_every_call_it_ends_as_if_it_had_not_been(change: Raw) -> None:
    def begun() -> DataWorld:
        made = DataWorld(spec())
        if change != spec():
            until(made, "Running", made=SAMPLES // 2)
            made.apply(change)
        return made

    uncut = begun()
    before = len(uncut.api.calls)
    assert uncut.settle()
    calls = len(uncut.api.calls) - before
    assert calls > 5
    for number in range(1, calls + 1):
        world = begun()
        world.api.cut_after = number
        assert world.settle(), f"no end after a cut at call {number}"
        assert world.crashes == 1 or number > calls - 3, number
        whole(world)


@pytest.mark.parametrize("seed", range(40))
def test_in_any_order_of_events_the_data_become_whole(seed: int) -> None:
    draws = random.Random(seed)
    world = DataWorld(spec())
    for _ in range(draws.randrange(20, 120)):
        chance = draws.random()
        if chance < 0.03:
            world.restart_operator()
        elif chance < 0.06 and world.pods():
            world.stop(draws.choice(world.pods()), 137)
        elif chance < 0.09:
            world.apply(spec(workers=draws.randrange(1, 4)))
        elif chance < 0.11 and JOB in world.api.objects:
            world.api.remove(JOB)
        elif chance < 0.13:
            world.due.add(KEY)
        elif chance < 0.15:
            world.api.cut_after = draws.randrange(1, 4)
        else:
            draws.choice(world.movers())()
        world.pass_time(draws.choice((0, 0, 1, 30)))
    assert world.settle()
    whole(world)
    assert {place for place in world.api.objects if place[0] in (names.DATA_JOB_KIND, "Job")} <= {
        DATA_JOB,
        JOB,
    }
