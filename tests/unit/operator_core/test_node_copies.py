"""Models on the nodes' own disks: the whole objects, what is said of them, what is done in which state."""

from __future__ import annotations

import copy
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import kubernetes_validate
import pytest

from stepaudio_operator import names
from stepaudio_operator.conditions import Verdict
from stepaudio_operator.errors import SpecError
from stepaudio_operator.model_cache import CachePlan, CacheStep
from stepaudio_operator.node_copies import Leaving, awaited_since, leaving, nodes_of, older, plan_copies
from stepaudio_operator.records import CacheObserved, CopyObserved, JobRecord, PodRecord, RevisionRecord
from stepaudio_operator.render import local_models
from stepaudio_operator.render import models as render
from stepaudio_operator.render import pool as render_pool
from stepaudio_operator.render.images import ImageDefaults
from stepaudio_operator.spec.deployment import DeploymentSpec
from stepaudio_operator.spec.models import NodeFolder
from stepaudio_operator.spec.reading import parse_deployment, parse_pool

NOW = datetime(2026, 11, 25, 12, tzinfo=UTC)
IMAGES = ImageDefaults("1.2.3", "reg")
HUB: dict[str, Any] = {"huggingFace": {"tokenSecretRef": {"name": "hf"}}}
LOCAL = {"nodeLocal": {"claimName": "node-models"}}
FOLDER = NodeFolder.model_validate({"claimName": "node-models", "folder": "models-1"})


def parsed(cache: dict[str, Any], **spec: Any) -> DeploymentSpec:
    models = {"source": HUB, "cache": cache}
    return parse_deployment(
        {"metadata": {"name": "prod"}, "spec": {"preset": "step-audio", "models": models, **spec}}
    )


def test_a_folder_is_named_after_what_it_holds_and_where() -> None:
    name = render.set_name(parsed(LOCAL))
    assert render.node_folder(parsed({**LOCAL, "whenUnused": "Delete"})) == NodeFolder.model_validate(
        {"claimName": "node-models", "folder": name}
    )
    others = [
        render.set_name(parsed({})),
        render.set_name(parsed({"nodeLocal": {"claimName": "other"}})),
        render.set_name(parsed(LOCAL, chat={"enabled": False}, tokenizer={"enabled": False})),
    ]
    assert len({name, *others}) == 4
    assert render.claim_name(parsed(LOCAL)) is None
    assert render.node_folder(parsed({})) is None


@pytest.mark.parametrize(
    "ignored", [{"size": "1Gi"}, {"storageClassName": "fast"}, {"accessMode": "ReadWriteOnce"}]
)
def test_what_would_be_ignored_is_refused(ignored: dict[str, str]) -> None:
    with pytest.raises(SpecError, match="with nodeLocal the volume is the claim's: remove size"):
        parsed({**LOCAL, **ignored})


def job() -> dict[str, Any]:
    """As it is stored: the job of node n1."""
    template = {"nodeSelector": {"pool": "gpu"}, "tolerations": [{"key": "gpu", "operator": "Exists"}]}
    spec = parsed(LOCAL, chat={"podTemplate": template})
    return render.copy_job("speech", FOLDER, "n1", spec, IMAGES, policy="Delete")


def test_the_job_of_a_node() -> None:
    made = job()
    kubernetes_validate.validate(made, "1.31", strict=True)
    pod = made["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    labels = {
        "app.kubernetes.io/name": "step-audio",
        "app.kubernetes.io/managed-by": "stepaudio-operator",
        "stepaudio.io/models": "models-1",
        "stepaudio.io/models-copy": names.copy("models-1", "n1"),
    }
    assert made["metadata"] == {
        "name": names.copy("models-1", "n1"),
        "namespace": "speech",
        "labels": {**labels, "stepaudio.io/when-unused": "Delete"},
        "annotations": {"stepaudio.io/node": "n1"},
    }
    assert made["spec"]["template"]["metadata"] == {"labels": labels}
    assert container["command"] == ["stepaudio", "models", "fetch", "/models/models-1", "--port", "8000"]
    assert pod["volumes"][1] == {
        "name": "models",
        "persistentVolumeClaim": {"claimName": "node-models"},
    }
    # The scheduler puts it there (a kubelet reads no claim of a pod that it was not given so), whatever keeps
    # others away from the node.
    field = {"key": "metadata.name", "operator": "In", "values": ["n1"]}
    terms = {"nodeSelectorTerms": [{"matchFields": [field]}]}
    assert pod["affinity"] == {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": terms}}
    assert pod["tolerations"] == [
        {"operator": "Exists", "effect": "NoSchedule"},
        {"key": "gpu", "operator": "Exists"},
    ]
    assert "nodeSelector" not in pod
    assert "nodeName" not in pod


def test_the_job_that_takes_it_away_is_the_same_without_what_it_takes_to_fetch() -> None:
    made, stored = local_models.removal(copy.deepcopy(job())), job()
    kubernetes_validate.validate(made, "1.31", strict=True)
    (container,) = made["spec"]["template"]["spec"]["containers"]
    name = names.copy("models-1", "n1") + "-gone"
    assert made["metadata"]["name"] == made["metadata"]["labels"]["stepaudio.io/models-copy"] == name
    assert made["metadata"]["annotations"] == {"stepaudio.io/node": "n1"}
    assert container["command"] == ["stepaudio", "models", "remove", "/models/models-1"]
    assert container["env"] == [{"name": "HOME", "value": "/tmp"}]
    pod, before = made["spec"]["template"]["spec"], stored["spec"]["template"]["spec"]
    assert {k: v for k, v in pod.items() if k != "containers"} == {
        k: v for k, v in before.items() if k != "containers"
    }


def test_a_revision_before_is_brought_to_another_node_as_it_was_to_this_one() -> None:
    spec = parsed(LOCAL, chat={"podTemplate": {"tolerations": [{"key": "gpu", "operator": "Exists"}]}})
    elsewhere = render.copy_job("speech", FOLDER, "n2", spec, IMAGES, policy="Delete")
    assert local_models.for_node(job(), "n2") == elsewhere


def pool(**spec: Any) -> dict[str, Any]:
    models = {"source": {"nodeLocal": {"claimName": "node-models", "folder": "models-1"}}}
    return {
        "apiVersion": names.API_VERSION,
        "kind": names.POOL_KIND,
        "metadata": {"namespace": "speech", "name": "prod-tts", "uid": "u1"},
        "spec": {
            "deployment": "prod",
            "component": "tts",
            "preset": "nano",
            "runtime": {"version": "1.2.3", "registry": ""},
            "models": models,
            "replicas": 1,
            **spec,
        },
    }


def pod(*, near: list[str], bound: bool = False, **spec: Any) -> dict[str, Any]:
    raw = pool(**spec)
    revision = render_pool.revision(raw, parse_pool(raw))
    assert revision.data["nodeFolder"] == "models-1"
    stored = RevisionRecord.from_raw(render_pool.controller_revision(raw, revision, 1))
    made = render_pool.replica(raw, stored, 0, near=near, bound=bound)
    kubernetes_validate.validate(made, "1.31", strict=True)
    return made


def test_a_pod_waits_for_its_models_and_stays_restricted() -> None:
    made = pod(near=[])["spec"]
    (main,), (first,) = made["containers"], made["initContainers"]
    assert first == {
        "name": "models",
        "image": main["image"],
        "imagePullPolicy": "IfNotPresent",
        "command": ["stepaudio", "models", "await", "/models/models-1"],
        "env": [{"name": "HOME", "value": "/tmp"}],
        "resources": {"requests": {"cpu": "10m", "memory": "64Mi"}, "limits": {"memory": "256Mi"}},
        "securityContext": main["securityContext"],
        "volumeMounts": [
            {"name": "tmp", "mountPath": "/tmp"},
            {"name": "models", "mountPath": "/models", "readOnly": True},
        ],
    }
    assert {"name": "STEPAUDIO_MODELS_DIR", "value": "/models/models-1"} in main["env"]
    assert {"name": "models", "mountPath": "/models", "readOnly": True} in main["volumeMounts"]
    # The first pod that mounts the volume on a node decides whose group it is: whoever that is, it is theirs.
    assert {"name": "models", "persistentVolumeClaim": {"claimName": "node-models"}} in made["volumes"]
    fetching = job()["spec"]["template"]["spec"]["securityContext"]
    assert made["securityContext"] == fetching
    assert fetching["fsGroup"] == 10001
    # What the restricted standard lets pods have.
    allowed = {"configMap", "emptyDir", "persistentVolumeClaim", "projected", "secret"}
    assert {kind for volume in made["volumes"] for kind in volume if kind != "name"} <= allowed
    assert "affinity" not in made


REQUIRED, PREFERRED = (f"{how}DuringSchedulingIgnoredDuringExecution" for how in ("required", "preferred"))


def on(node: str) -> dict[str, Any]:
    return {"matchFields": [{"key": "metadata.name", "operator": "In", "values": [node]}]}


def test_a_pod_prefers_nodes_with_its_models_or_is_kept_to_them() -> None:
    liked = [{"weight": 100, "preference": on(node)} for node in ("n1", "n2")]
    assert pod(near=["n2", "n1"])["spec"]["affinity"] == {"nodeAffinity": {PREFERRED: liked}}
    kept = pod(near=["n2", "n1"], bound=True)
    terms = {"nodeSelectorTerms": [on("n1"), on("n2")]}
    assert kept["spec"]["affinity"] == {"nodeAffinity": {REQUIRED: terms}}
    assert PodRecord.from_raw(kept).bound
    nowhere = pod(near=[], bound=True)
    assert "affinity" not in nowhere["spec"]
    assert not PodRecord.from_raw(nowhere).bound


def test_what_the_pod_itself_asks_of_nodes_stays() -> None:
    own = [{"matchExpressions": [{"key": zone, "operator": "Exists"}]} for zone in ("a", "b")]
    template = {"affinity": {"nodeAffinity": {REQUIRED: {"nodeSelectorTerms": own}}}}
    kept = pod(near=["n1", "n2"], bound=True, podTemplate=template)
    assert kept["spec"]["affinity"]["nodeAffinity"][REQUIRED]["nodeSelectorTerms"] == [
        {**term, **on(node)} for term in own for node in ("n1", "n2")
    ]
    never = {"affinity": {"nodeAffinity": {REQUIRED: {"nodeSelectorTerms": [{}]}}}}
    left = pod(near=["n1"], bound=True, podTemplate=never)["spec"]["affinity"]["nodeAffinity"]
    assert left[REQUIRED] == {"nodeSelectorTerms": [{}]}  # a term that says nothing matches no node


JOB = JobRecord(
    "j", "u2", complete=False, failed=False, reason="", message="", failed_at=None, deleting=False, node="n1"
)
WHOLE = replace(JOB, complete=True, ended_at=NOW)
FAILED = replace(JOB, failed=True, failed_at=NOW)
POD = PodRecord.from_raw({"metadata": {"name": "j-x", "namespace": "n"}, "status": {"phase": "Running"}})
FULL = replace(
    POD, phase="Failed", finished=NOW, exit_code=78, exit_message="VolumeFull: 40 GB are still to come; cure"
)


def seen(node: str, **fetch: Any) -> CopyObserved:
    return CopyObserved(node, CacheObserved(**fetch))


def status(phase: str, ready: int, *nodes: dict[str, Any]) -> dict[str, Any]:
    found = {"claimName": "node-models", "folder": "models-1", "phase": phase, "readyNodes": ready}
    return {**found, "nodes": list(nodes)} if nodes else found


def whole(**more: Any) -> CachePlan:
    return CachePlan({"node": "n1", "phase": "Ready"}, **more)


def test_nobody_runs_so_nothing_is_waited_for() -> None:
    assert plan_copies(FOLDER, [], NOW) == CachePlan(status("Ready", 0))


def test_how_far_the_slowest_node_is_and_how_many_more_wait() -> None:
    half = seen("n2", job=JOB, pods=(POD,), bytes_present=129_999, bytes_total=200_000, eta_s=90)
    plan = plan_copies(FOLDER, [seen("n1", job=WHOLE), half, seen("n3")], NOW)
    n2 = {
        "node": "n2",
        "phase": "Downloading",
        "percent": 60,
        "bytesTotal": 200_000,
        "expectedAt": "2026-11-25T12:02:00Z",
    }
    n3 = {"node": "n3", "phase": "Pending"}
    assert plan.status == status("Downloading", 1, n2, n3)
    assert plan.verdict == Verdict(
        "DownloadingModels", "waits for models on node n3: their Job is being made (and 1 more nodes)"
    )
    assert {node: one.step for node, one in plan.copies.items()} == {
        "n1": None,
        "n2": None,
        "n3": CacheStep.CREATE_JOB,
    }
    alone = plan_copies(FOLDER, [half], NOW).verdict
    assert alone == Verdict(
        "DownloadingModels",
        "waits for models on node n2: 60 %, all of them by about 2026-11-25T12:02:00Z",
    )


def test_the_words_change_only_in_steps() -> None:
    first = seen("n1", job=JOB, pods=(POD,), bytes_present=600, bytes_total=1000, eta_s=90)
    told = plan_copies(FOLDER, [first], NOW).status["nodes"][0]
    later = replace(first.fetch, bytes_present=649, eta_s=7_000, told=told)
    again = plan_copies(FOLDER, [CopyObserved("n1", later)], NOW + timedelta(minutes=5))
    assert again == plan_copies(FOLDER, [first], NOW)


def test_a_node_that_a_person_has_to_help_speaks_first() -> None:
    plan = plan_copies(FOLDER, [seen("n1", job=JOB), seen("n2", job=FAILED, pods=(FULL,))], NOW)
    assert plan.status["phase"] == "Failed"
    assert plan.verdict == Verdict(
        "VolumeFull",
        "node n2: 40 GB are still to come; cure; tried again 10 min after it failed, or at once when job j is"
        " deleted (and 1 more nodes)",
        stalled=True,
    )
    assert (plan.look_after_s, plan.copies["n2"].step) == (600.0, None)
    later = plan_copies(FOLDER, [seen("n2", job=FAILED)], NOW + timedelta(seconds=600))
    assert later.copies["n2"].step is CacheStep.DELETE_JOB


def test_the_source_that_gives_nothing_is_told_with_the_node() -> None:
    waits = seen("n1", job=JOB, pods=(POD,), said=("SourceRateLimited", "429; it is tried again"))
    assert plan_copies(FOLDER, [waits], NOW).verdict == Verdict(
        "SourceRateLimited", "node n1: 429; it is tried again"
    )


def test_a_pod_that_waits_where_all_is_said_to_be_there_shows_that_it_is_not() -> None:
    copied = replace(seen("n1", job=WHOLE), awaited_since=NOW + timedelta(seconds=5))
    plan = plan_copies(FOLDER, [copied], NOW + timedelta(seconds=35))
    assert plan == CachePlan(status("Ready", 1), look_after_s=30.0, copies={"n1": whole(look_after_s=30.0)})
    lost = plan_copies(FOLDER, [copied], NOW + timedelta(seconds=65))
    assert lost.copies["n1"].step is CacheStep.DELETE_JOB
    assert lost.verdict == Verdict("DownloadingModels", "node n1 has lost the models: they are brought anew")


def test_two_pods_never_fill_one_folder() -> None:
    plan = plan_copies(FOLDER, [seen("n1", pods=(replace(POD, deleting=True),))], NOW)
    assert plan.copies["n1"].step is None
    assert plan.verdict == Verdict(
        "DownloadingModels", "waits for models on node n1: a pod of an earlier Job is still going"
    )
    ended = seen("n1", pods=(replace(POD, phase="Succeeded"),))
    assert plan_copies(FOLDER, [ended], NOW).copies["n1"].step is CacheStep.CREATE_JOB


@pytest.mark.parametrize(
    "odd", [{"removing": True}, {"fetch": CacheObserved(job=replace(JOB, suspended=True))}]
)
def test_what_is_being_removed_is_not_there(odd: dict[str, Any]) -> None:
    plan = plan_copies(FOLDER, [replace(seen("n1", job=WHOLE), **odd)], NOW)
    assert plan.copies["n1"].step is None
    assert plan.verdict == Verdict(
        "DownloadingModels", "the models on node n1 are being removed, then they are brought anew"
    )


def test_only_live_pods_on_nodes_count() -> None:
    pods = [
        replace(POD, node="n2", folder="models-1", awaiting_since=NOW),
        replace(POD, node="n1"),
        replace(POD, node=""),
        replace(POD, node="n3", deleting=True, awaiting_since=NOW),
        replace(POD, node="n4", phase="Failed"),
    ]
    assert nodes_of(pods) == ["n1", "n2"]
    waits = [awaited_since(pods, "models-1", node) for node in ("n1", "n2", "n3")]
    assert waits == [None, NOW, None]
    assert awaited_since(pods, "models-2", "n2") is None
    assert older(pods, "models-2") == [("models-1", "n2")]
    assert older(pods, "models-1") == []


GOES, GONE = replace(WHOLE, when_unused="Delete"), replace(JOB, name="j-gone")
DONE = replace(GONE, complete=True)


@pytest.mark.parametrize(
    ("job", "removal", "facts", "step"),
    [
        # wanted: what is whole stays, what is on its way only where somebody waits, a removal is gone back on
        (WHOLE, None, "wanted", None),
        (GOES, None, "wanted needed", None),
        (JOB, None, "wanted needed", None),
        (JOB, None, "wanted", Leaving.FORGET),
        (FAILED, None, "wanted", Leaving.FORGET),
        (replace(JOB, suspended=True), None, "wanted needed", Leaving.FORGET),
        (GOES, GONE, "wanted needed", Leaving.FORGET),
        (replace(GOES, deleting=True), GONE, "wanted needed", Leaving.END),
        (None, GONE, "wanted needed", Leaving.END),
        (None, replace(GONE, deleting=True), "wanted", None),
        # unwanted: kept, or stopped, removed, forgotten, in this order
        (WHOLE, None, "", None),
        (JOB, None, "running", None),
        (replace(GOES, complete=False), None, "running", Leaving.STOP),
        (replace(GOES, complete=False, suspended=True), None, "running", None),
        (replace(GOES, complete=False, suspended=True), None, "", Leaving.REMOVE),
        (replace(FAILED, when_unused="Delete"), None, "", Leaving.REMOVE),
        (GOES, None, "", Leaving.REMOVE),
        (GOES, GONE, "", None),
        (GOES, DONE, "", Leaving.FORGET),
        (replace(GOES, deleting=True), DONE, "", None),
        (None, DONE, "", Leaving.END),
        (None, GONE, "", None),
        (None, None, "", None),
    ],
)
def test_a_folder_leaves_a_node(
    job: JobRecord | None, removal: JobRecord | None, facts: str, step: Leaving | None
) -> None:
    said = {fact: fact in facts.split() for fact in ("running", "wanted", "needed")}
    assert leaving(job, removal, **said) is step
