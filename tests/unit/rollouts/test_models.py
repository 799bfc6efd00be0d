"""Models that are downloaded, and rollouts: no pod is drained before its successor finds its models.

To a volume that all share, and to the nodes' own disks: in a surge and in place, with the operator's process
ending after every single call. `models_world.ModelsWorld` checks its rules at every move.
"""

from typing import Any

import pytest

from stepaudio_operator import names
from stepaudio_operator.kube import resources
from stepaudio_operator.kube.cache import Key
from stepaudio_operator.polling import Answer
from tests.unit.rollouts.api import Raw
from tests.unit.rollouts.models_world import ModelsWorld, models_spec, node_of, wanted_name
from tests.unit.rollouts.nodes import is_ready
from tests.unit.rollouts.test_foresight import by_pool, foreseen
from tests.unit.rollouts.world import DEPLOYMENT, NAMESPACE

ROOM = {"n1": 3, "n2": 3}
TWO: dict[str, Any] = {"replicas": 2}


def settled(**kind: Any) -> ModelsWorld:
    world = ModelsWorld(models_spec(**kind), ROOM)
    assert world.settle()
    assert world.condition() == ("True", "Ready")
    return world


def message(world: ModelsWorld) -> str:
    (ready,) = (c["message"] for c in world.status()["conditions"] if c["type"] == "Ready")
    return str(ready)


def acts(world: ModelsWorld, since: int) -> list[str]:
    """What was done to pods and Jobs since a number of calls."""
    return [
        c
        for c in world.api.calls[since:]
        if c.split()[1] in ("Pod", "Job") and c.split()[0] in ("create", "delete")
    ]


@pytest.mark.parametrize("local", [False, True])
def test_the_first_pods_get_their_models(local: bool) -> None:
    world = ModelsWorld(models_spec(local=local), ROOM, lambda job: True)
    assert world.settle()
    pods = [p["spec"].get("nodeName") for p in world.pods() if "prod-gateway" not in p["metadata"]["name"]]
    jobs = sorted(node_of(job) for job in world.jobs())
    # To a volume the models come first, to nodes they follow the pods; once for all pools in either case.
    assert (pods, jobs) == ((["n1", "n2", "n1"], ["n1", "n2"]) if local else ([], [""]))
    assert world.condition() == ("False", "DownloadingModels")
    world.stops = lambda job: False
    assert world.settle()
    assert world.condition() == ("True", "Ready")
    cache = world.status()["cache"]
    name = wanted_name(models_spec(local=local))
    if local:
        assert cache == {"claimName": "node-models", "folder": name, "phase": "Ready", "readyNodes": 2}
        assert world.nodes.disks == {"n1": {name}, "n2": {name}}
    else:
        assert cache == {"claimName": name, "phase": "Ready"}


@pytest.mark.parametrize("local", [False, True])
@pytest.mark.parametrize("strategy", ["Surge", "InPlace", "Auto", "Recreate"])
def test_no_pod_goes_before_the_new_models_are_there(local: bool, strategy: str) -> None:
    world = settled(local=local)
    world.nodes.places = {"n1": 2, "n2": 1} if strategy in ("InPlace", "Auto") else ROOM
    new = models_spec("b", local=local, strategy=strategy)
    world.stops = lambda job: wanted_name(new) in job["metadata"]["name"]
    before = {p["metadata"]["uid"] for p in world.pods()}
    world.edit(new)
    assert world.settle()
    assert {p["metadata"]["uid"] for p in world.pods()} == before
    assert world.condition() == ("False", "DownloadingModels")
    world.stops = lambda job: False
    assert world.settle()
    assert world.condition() == ("True", "Ready")
    assert not before & {p["metadata"]["uid"] for p in world.pods() if "gateway" not in p["metadata"]["name"]}


@pytest.mark.parametrize("local", [False, True])
@pytest.mark.parametrize("strategy", ["Surge", "InPlace"])
def test_cut_after_every_call_it_ends_as_if_it_had_not_been(local: bool, strategy: str) -> None:
    begun = settled(local=local, strategy=strategy)
    begun.nodes.places = {"n1": 2, "n2": 1} if strategy == "InPlace" else ROOM
    new = models_spec("b", local=local, strategy=strategy)
    uncut = begun.again()
    uncut.edit(new)
    assert uncut.settle()
    calls, end = len(uncut.api.calls), ended(uncut)
    assert calls > 20
    for number in range(1, calls + 1):
        world = begun.again()
        world.edit(new)
        world.api.cut_after = number
        assert world.settle(), f"no end after a cut at call {number}"
        assert ended(world) == end, f"another end after a cut at call {number}"


def ended(world: ModelsWorld) -> Raw:
    """What is there in the end."""
    return {
        "objects": sorted(f"{kind} {name}" for kind, _, name in world.api.objects if kind != "Pod"),
        "pods": sorted(p["metadata"]["name"] for c in names.MODEL_COMPONENTS for p in world.pods(c)),
        "disks": world.nodes.disks,
        "volumes": world.volumes,
        "ready": world.condition(),
        "cache": world.status()["cache"],
    }


def test_in_place_the_nodes_of_the_old_pods_are_filled_then_pod_after_pod_is_replaced() -> None:
    world = settled(local=True)
    world.nodes.places = {"n1": 2, "n2": 1}
    new = models_spec("b", local=True, strategy="InPlace")
    folder = wanted_name(new)
    world.stops = lambda job: node_of(job) == "n2"
    since = len(world.api.calls)
    world.edit(new)
    world.said["prod"] = Answer(
        "Loading", 0, bytes_loaded=4_100, bytes_total=10_000, reason="Downloading", message="", eta_s=600
    )
    assert world.settle()
    jobs = [f"create Job {names.copy(folder, node)}" for node in ("n1", "n2")]
    assert acts(world, since) == jobs
    expected = world.status()["cache"]["nodes"][0].pop("expectedAt")
    assert world.status()["cache"] == {
        "claimName": "node-models",
        "folder": folder,
        "phase": "Downloading",
        "readyNodes": 1,
        "nodes": [{"node": "n2", "phase": "Downloading", "percent": 40, "bytesTotal": 10_000}],
    }
    assert message(world) == f"waits for models on node n2: 40 %, all of them by about {expected}"
    world.stops = lambda job: False
    assert world.settle()
    by_pool: dict[str, list[str]] = {}
    for act in acts(world, since)[2:]:
        by_pool.setdefault(act.split("-")[1], []).append(act.split()[0])
    # One replica of one release for one of another: an outage is declared, each makes room for its successor.
    assert by_pool == {component: ["delete", "create"] for component in names.MODEL_COMPONENTS}
    assert [p["spec"]["nodeName"] for p in world.pods()].count("n2") == 1


def test_a_newcomer_on_another_node_waits_there_and_the_old_pod_serves_on() -> None:
    world = settled(local=True)
    world.nodes.places = {"n1": 2, "n2": 1, "n3": 3}
    world.nodes.disks["n3"] = set()
    world.nodes.strange = True  # the scheduler puts it where it does not like to be
    world.stops = lambda job: node_of(job) == "n3"
    before = {p["metadata"]["uid"] for p in world.pods()}
    world.edit(models_spec("b", local=True, strategy="Surge"))
    assert world.settle()
    new = [p for p in world.pods() if p["metadata"]["uid"] not in before]
    assert [(p["spec"]["nodeName"], "initContainerStatuses" in p["status"]) for p in new] == [
        ("n3", True)
    ] * 3
    assert before <= {p["metadata"]["uid"] for p in world.pods()}
    assert message(world) == "waits for models on node n3"
    pool = world.api.objects[(names.POOL_KIND, NAMESPACE, "prod-tts")]["status"]["conditions"]
    (words,) = (c["message"] for c in pool if c["type"] == "Ready")
    (waits,) = (p["metadata"]["name"] for p in new if "-tts-" in p["metadata"]["name"])
    assert words == f"waits: {waits} for models on node n3; status.cache of prod says how far"
    world.stops = lambda job: False
    assert world.settle()
    assert world.condition() == ("True", "Ready")


def one_after_the_other() -> tuple[ModelsWorld, Raw]:
    """Two replicas each on two full nodes, a third node without models, and a new revision in place."""
    world = ModelsWorld(models_spec(local=True, replicas=2), ROOM)
    assert world.settle()
    world.nodes.places, world.nodes.disks["n3"] = {"n1": 3, "n2": 3, "n3": 9}, set()
    world.nodes.strange = True
    return world, models_spec("b", local=True, replicas=2, strategy="InPlace")


def test_a_pod_that_takes_the_place_of_another_is_put_where_its_models_are() -> None:
    world, new = one_after_the_other()
    world.edit(new)
    assert world.settle()
    assert world.condition() == ("True", "Ready")
    assert {p["spec"]["nodeName"] for c in names.MODEL_COMPONENTS for p in world.pods(c)} == {"n1", "n2"}
    assert sorted({node_of(job) for job in world.jobs()}) == ["n1", "n2"]


def test_where_that_place_is_lost_it_goes_elsewhere_after_a_while() -> None:
    world, new = one_after_the_other()
    world.edit(new)
    for _ in range(60):
        if any(p["metadata"]["annotations"].get(names.ANNOTATION_BOUND) for p in model_pods(world)):
            break
        world.round()
        world.pass_time(1)
    world.nodes.places |= {"n1": 0, "n2": 0}  # others were quicker
    since, began = len(world.api.calls), world.now
    assert world.settle()
    assert world.condition() == ("True", "Ready")
    assert (world.now - began).total_seconds() >= 300
    assert "n3" in {p["spec"]["nodeName"] for p in model_pods(world)}
    bound = [p["metadata"]["name"] for p in model_pods(world) if p["spec"]["nodeName"] == "n3"]
    assert any(f"create Pod {name}" in acts(world, since) for name in bound)


@pytest.mark.parametrize("local", [False, True])
def test_the_plan_says_what_is_brought_where_before_the_first_pod_goes(local: bool) -> None:
    world = settled(local=local)
    since, new = len(world.api.calls), models_spec("b", local=local, strategy="InPlace")
    planned = foreseen(world, new)
    name = wanted_name(new)
    jobs = [names.copy(name, node) for node in ("n1", "n2")] if local else [name]
    assert planned[1 : len(jobs) + 2] == [
        *(f"create Job {job}" for job in jobs),
        "pools keep the models that they have",
    ]
    world.edit(new)
    assert world.settle()
    assert by_pool(planned) == by_pool(world.api.calls[since:])
    assert foreseen(world, new) == []


def model_pods(world: ModelsWorld) -> list[Raw]:
    return [p for component in names.MODEL_COMPONENTS for p in world.pods(component)]


def test_a_pod_of_a_revision_before_gets_its_models_too() -> None:
    world = settled(local=True)
    old, new = (wanted_name(models_spec(revision, local=True)) for revision in "ab")
    world.stops = lambda job: new in job["metadata"]["name"]
    world.edit(models_spec("b", local=True))
    assert world.settle()
    world.nodes.places, world.nodes.disks["n3"] = {"n1": 0, "n2": 0, "n3": 9}, set()
    lost = model_pods(world)[0]["metadata"]["name"]
    world.api.remove(("Pod", NAMESPACE, lost))  # while its pool keeps the models that it has
    assert world.settle()
    (made,) = (p for p in model_pods(world) if p["metadata"]["name"] == lost)
    assert (made["spec"]["nodeName"], is_ready(made)) == ("n3", True)
    assert world.nodes.disks["n3"] == {old}
    world.nodes.places = {"n1": 9, "n2": 9, "n3": 9}
    world.stops = lambda job: False
    assert world.settle()
    assert world.condition() == ("True", "Ready")


def test_new_pods_go_where_the_models_are() -> None:
    world = settled(local=True)
    world.nodes.places = {"n0": 9, "n1": 9, "n2": 9}
    world.nodes.disks["n0"] = set()
    world.edit(models_spec(local=True, replicas=3))
    assert world.settle()
    assert "n0" not in {p["spec"]["nodeName"] for c in names.MODEL_COMPONENTS for p in world.pods(c)}
    assert len(world.jobs()) == 2


def test_a_node_that_was_set_up_anew_gets_its_models_again() -> None:
    world = settled(local=True)
    world.nodes.disks["n1"].clear()
    lost = [
        p for p in world.pods() if p["spec"]["nodeName"] == "n1" and "gateway" not in p["metadata"]["name"]
    ]
    world.nodes.places = {"n1": 9}
    since = len(world.api.calls)
    for pod in lost:
        world.api.remove(("Pod", NAMESPACE, pod["metadata"]["name"]))
    began = world.now
    assert world.settle()
    assert world.condition() == ("True", "Ready")
    job = names.copy(wanted_name(models_spec(local=True)), "n1")
    assert [a for a in acts(world, since) if " Job " in a] == [f"delete Job {job}", f"create Job {job}"]
    assert (world.now - began).total_seconds() >= 60


def test_a_download_that_nobody_waits_for_any_more_ends() -> None:
    world = ModelsWorld(models_spec(local=True), ROOM, lambda job: node_of(job) == "n2")
    assert world.settle()
    assert sorted(map(node_of, world.jobs())) == ["n1", "n2"]
    world.nodes.places = {"n1": 9}
    for pod in world.pods():
        if pod["spec"]["nodeName"] == "n2":
            world.api.remove(("Pod", NAMESPACE, pod["metadata"]["name"]))
    assert world.settle()
    assert list(map(node_of, world.jobs())) == ["n1"]
    assert world.condition() == ("True", "Ready")


def deleting(revision: str = "a") -> Raw:
    spec = models_spec(revision, local=True, historyLimit=0)
    spec["models"]["cache"]["whenUnused"] = "Delete"
    return spec


@pytest.mark.parametrize("keeps", [False, True])
def test_models_go_when_nobody_names_them_if_that_was_asked_for(keeps: bool) -> None:
    first = models_spec(local=True, historyLimit=0) if keeps else deleting()
    world = ModelsWorld(first, ROOM)
    assert world.settle()
    old = wanted_name(first)
    second = models_spec("b", local=True, historyLimit=0) if keeps else deleting("b")
    world.edit(second)
    assert world.settle()
    new = wanted_name(second)
    held = {new, old} if keeps else {new}
    assert world.nodes.disks == {"n1": held, "n2": held}
    assert {j["metadata"]["labels"][names.LABEL_MODELS] for j in world.jobs()} == held
    delete_deployment(world)
    assert world.settle()
    assert world.nodes.disks == ({"n1": held, "n2": held} if keeps else {"n1": set(), "n2": set()})
    assert bool(world.jobs()) is keeps


def test_an_operator_that_has_yet_to_hear_of_deployments_removes_nothing() -> None:
    world = ModelsWorld(deleting(), ROOM)
    assert world.settle()
    new = wanted_name(deleting("b"))
    world.stops = lambda job: node_of(job) == "n2"
    world.edit(deleting("b"))
    assert world.settle()  # no revision names these models yet, on one node they are whole
    disks, calls = {node: set(held) for node, held in world.nodes.disks.items()}, len(world.api.calls)
    assert new in disks["n1"]
    world.restart_operator(late=True)
    for key in sorted(world.operator.due):
        world.run(key)
    assert world.settle()
    assert world.nodes.disks == disks
    assert len(world.api.calls) == calls


def test_a_volume_of_a_deployment_that_nobody_has_told_of_is_left_to_it() -> None:
    def on_volume(revision: str) -> Raw:
        spec = models_spec(revision, local=False)
        spec["models"]["cache"]["whenUnused"] = "Delete"
        return spec

    world = ModelsWorld(on_volume("a"), ROOM)
    assert world.settle()
    world.stops = lambda job: True
    world.edit(on_volume("b"))
    assert world.settle()  # no revision names this volume yet
    metadata = {"namespace": NAMESPACE, "name": "neighbour"}
    body = {"apiVersion": names.API_VERSION, "kind": names.DEPLOYMENT_KIND, "metadata": metadata}
    neighbour = world.api.store(names.DEPLOYMENT_KIND, {**body, "spec": {"preset": "nano"}})
    world.restart_operator(late=True)
    world.operator.cluster.see(resources.DEPLOYMENTS, None, neighbour)
    world.run(Key(names.DEPLOYMENT_KIND, NAMESPACE, "neighbour"))
    claims = {raw["metadata"]["name"] for raw in world.api.of("PersistentVolumeClaim")}
    assert claims == {wanted_name(on_volume("a")), wanted_name(on_volume("b"))}


def test_what_may_not_be_tried_again_is_not_looked_at_again_and_again() -> None:
    world = ModelsWorld(models_spec(local=False), ROOM, lambda job: True)
    for _ in range(30):
        world.round()
    (job,) = world.jobs()
    since = world.now.strftime("%Y-%m-%dT%H:%M:%SZ")
    failed = {"type": "Failed", "status": "True", "reason": "PodFailurePolicy", "lastTransitionTime": since}
    place = ("Job", NAMESPACE, job["metadata"]["name"])
    world.api.change(place, lambda raw: raw.update(status={"conditions": [failed]}))
    world.edit({**models_spec(local=False), "paused": True})
    assert world.settle()  # past the ten minutes after which it would be tried again
    world.pass_time(3600)
    for _ in range(3):
        world.round()
    assert not world.operator.due
    assert world.condition("Stalled") == ("True", "Paused")
    world.stops = lambda job: False
    world.edit(models_spec(local=False))
    assert world.settle()
    assert world.condition() == ("True", "Ready")


def delete_deployment(world: ModelsWorld) -> None:
    """Somebody deletes it; the garbage collector takes its children, not at once."""
    world.api.remove(DEPLOYMENT)
    world.round()
    for place in [p for p in world.api.objects if p[0] != "Job"]:
        if place[0] != "Pod" or names.LABEL_POOL in world.api.objects[place]["metadata"]["labels"]:
            world.api.remove(place)


def test_whoever_wants_models_again_while_they_are_removed_gets_them_whole() -> None:
    world = ModelsWorld(deleting(), ROOM)
    assert world.settle()
    removing = "-gone"
    world.stops = lambda job: job["metadata"]["name"].endswith(removing)
    world.edit(deleting("b"))
    assert world.settle()
    assert sum(job["metadata"]["name"].endswith(removing) for job in world.jobs()) == 2
    world.edit(deleting())
    world.stops = lambda job: False
    assert world.settle()
    assert world.condition() == ("True", "Ready")
    folder = wanted_name(deleting())
    assert all(folder in disk for disk in world.nodes.disks.values())
    assert not any(job["metadata"]["name"].endswith(removing) for job in world.jobs())


def test_an_unfinished_download_of_models_that_go_is_stopped_before_they_are_removed() -> None:
    world = ModelsWorld(deleting(), ROOM, lambda job: True)
    assert world.settle()
    delete_deployment(world)
    world.stops = lambda job: not job["metadata"]["name"].endswith("-gone")
    assert world.settle()
    assert world.jobs() == []
