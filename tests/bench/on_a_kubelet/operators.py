"""The operator changes, under load: to another version and back, without its rights, beside a second one that
acts as well, and killed while voices and a download are under way. Nothing that runs is touched.
"""

import contextlib
import json
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping

from stepaudio_cluster.make_up import DEPLOYMENT, RELEASE
from stepaudio_operator import names
from tests.bench.on_a_kubelet import watching
from tests.bench.on_a_kubelet.changes import declare, is_stored, keep_recording
from tests.bench.on_a_kubelet.controls import VOLUME
from tests.bench.on_a_kubelet.ground import (
    applied,
    deployed,
    hub,
    pods_of,
    shared_claim,
    until_ready,
    until_reason,
    volume_of_class,
)
from tests.bench.on_a_kubelet.neighbours import LIGHT, OFF
from tests.bench.on_a_kubelet.scenarios import Raw, World, change_pods, until_replaced
from tests.e2e.nano import OPERATOR_SELECTOR
from tests.integration.operator.another import changed_files
from tests.unit.download.hub import Answer

CODE = "/opt/stepaudio/app/stepaudio_operator"
"""Where the image has the package."""
ANOTHER = "bench-another"
SECOND = "bench-second"
SECOND_SELECTOR = f"app.kubernetes.io/name={SECOND}"
FETCHED = "bench-fetched"
STILL_S = 15.0
"""For so long an operator that leads is looked at."""
KILLS = 3


def upgraded(world: World) -> Raw:
    """An operator with other render code, presets and defaults takes over, and then the one before again:
    nothing that runs is written. That it renders otherwise is shown by a new deployment.
    """
    before, seen = _workloads(world), {}
    with _another_version(world):
        seen["written by the other version"] = _stays(world, before)
        newer = _a_new_pod(world)
        main = newer["spec"]["containers"][0]
        differs = {"name": "NEWER", "value": "1"} in main["env"], main["readinessProbe"]["periodSeconds"] == 7
        watching.until_it_leads(world)
        if _workloads(world) != before:
            raise AssertionError("a new deployment has changed another one's workloads")
    seen["written by the first one again"] = _stays(world, before)
    if not all(differs):
        raise AssertionError(f"the other version renders as the first one does: {differs}")
    return {**seen, "workloads": len(before), "a new deployment's pod differs": all(differs)}


def without_role(world: World) -> Raw:
    """The operator's ClusterRole is deleted, a pod is lost, and the operator starts anew: it says what it may
    not do. Given back, all is made good.
    """
    kubectl = world.nano.cluster.kubectl
    role = world.get("clusterrole", watching.NAME)
    for field in ("resourceVersion", "uid", "creationTimestamp", "managedFields"):
        role["metadata"].pop(field, None)
    before = world.uids()
    kubectl("delete", "clusterrole", watching.NAME)
    try:
        world.note_streams()
        kubectl("delete", "pod", min(pod["metadata"]["name"] for pod in world.pods("tokenizer")))
        counted = world.until(lambda: _forbidden(world), "a refusal is counted")
        watching.begin_anew(world, killed=False)
        began = time.monotonic()
        said = world.until(lambda: _cures(world), "it says which rights it lacks")
        named = time.monotonic() - began
        left = world.uids()
    finally:
        kubectl("create", "-f", "-", stdin=json.dumps(role))
    began = time.monotonic()
    world.until_whole()
    if not left < before or not before - world.uids() == before - left:
        raise AssertionError("other pods than the one that was deleted have gone")
    return {
        "counted": counted,
        "named by a new operator after s": round(named),
        "kinds named": said.count("allow the operator to"),
        "whole again after s": round(time.monotonic() - began),
    }


def two_that_act(world: World) -> Raw:
    """A second operator with a lease of its own: both carry out a change, and both come to rest."""
    with _second_operator(world):
        for selector in (OPERATOR_SELECTOR, SECOND_SELECTOR):
            watching.until_it_leads(world, selector)
        before, old = _written_by_both(world), world.uids("tokenizer")
        others = world.uids() - old
        change_pods(world, "tokenizer")
        until_replaced(world, old, "tokenizer")
        for selector in (OPERATOR_SELECTOR, SECOND_SELECTOR):
            watching.until_it_leads(world, selector)
        written = _written_by_both(world)
        time.sleep(STILL_S)
        afterwards = _written_by_both(world)
    if not others <= world.uids():
        raise AssertionError("pods of other pools have gone")
    return {
        "writes of each": [now - then for now, then in zip(written, before, strict=True)],
        f"writes in {STILL_S:.0f} s afterwards": sum(afterwards) - sum(written),
    }


def killed(world: World) -> Raw:
    """Beside a voice that is stored and a download that is under way, the operator is killed three times:
    each next one leaves voice, volume and Job as they are. Then the download comes to its end.
    """
    kubectl, go_on = world.nano.cluster.kubectl, threading.Event()
    with (
        hub(world) as source,
        tempfile.TemporaryDirectory(prefix="stepaudio-voices-") as voices,
        tempfile.TemporaryDirectory(prefix="stepaudio-fetched-") as models,
    ):
        source.faults = lambda path: None if go_on.wait(600) else Answer(500)
        shared_claim(world, VOLUME, voices)
        volume_of_class(world, FETCHED, models)
        cache = {"storageClassName": FETCHED, "size": "1Gi", "whenUnused": "Delete"}
        fetched = {"source": {"huggingFace": {"endpoint": source.url}}, "cache": cache}
        speaking = {"chat": OFF, "tokenizer": OFF, "voices": {"store": {"pvc": {"claimName": VOLUME}}}}
        with (
            deployed(world, "listener", speaking),
            applied(world, "fetcher", {"models": fetched, **LIGHT, "gateway": OFF}),
        ):
            keep_recording(world)
            declare(world, "I agree.", "listener")
            world.until(lambda: is_stored(world, "I agree."), "the voice is stored")
            until_reason(world, "sad", "fetcher", "SourceUnavailable")  # what the hub gives is nothing yet
            watching.until_it_leads(world)
            before, written = _expected(world), []
            for _ in range(KILLS):
                watching.begin_anew(world, killed=True)
                watching.until_it_leads(world)
                time.sleep(STILL_S)
                written.append(dict(watching.writes(world)))
                if (now := _expected(world)) != before:
                    raise AssertionError(f"{now} instead of {before}")
            go_on.set()
            until_ready(world, "fetcher")
        kubectl("delete", f"sav/{VOLUME}", f"configmap/{VOLUME}", f"pvc/{VOLUME}", f"pv/{VOLUME}")
        kubectl("delete", "pv", FETCHED)
    return {"killed": KILLS, "written by each": written, "objects that stayed as they were": len(before)}


OPERATORS: Mapping[str, Callable[[World], Raw]] = {
    "operator-upgraded": upgraded,
    "operator-without-role": without_role,
    "operators-that-act": two_that_act,
    "operator-killed": killed,
}


def _workloads(world: World) -> dict[str, tuple[str, int | str]]:
    """uid and version of what the deployment's pods are and are made from; a pod's status may change."""
    kinds = "pods,deployments,controllerrevisions,sap"
    listed = world.nano.objects(kinds, "-l", f"stepaudio.io/deployment={DEPLOYMENT}")
    return {
        f"{thing['kind']} {(meta := thing['metadata'])['name']}": (
            meta["uid"],
            meta["resourceVersion"] if thing["kind"] == "ControllerRevision" else meta.get("generation", 0),
        )
        for thing in listed
    }


def _stays(world: World, before: Mapping[str, tuple[str, int | str]]) -> Raw:
    """Looks for a while at what the operator that leads now does: its writes."""
    watching.until_it_leads(world)
    time.sleep(STILL_S)
    if (now := _workloads(world)) != before:
        raise AssertionError(f"workloads {now} instead of {before}")
    return dict(watching.writes(world))


@contextlib.contextmanager
def _another_version(world: World) -> Iterator[None]:
    """Changed files over those of the package in the operator's image, and another default of the runtime."""
    kubectl, files = world.nano.cluster.kubectl, changed_files()
    keys = {name: name.replace("/", "-") for name in files}
    config: Raw = {"apiVersion": "v1", "kind": "ConfigMap"}
    config["metadata"] = {"name": ANOTHER, "namespace": RELEASE}
    world.apply({**config, "data": {keys[name]: text for name, text in files.items()}})
    container = {
        "name": "operator",
        "env": [{"name": "STEPAUDIO_OPERATOR_RUNTIME_VERSION", "value": "10.0.0"}],
        "volumeMounts": [
            {"name": ANOTHER, "mountPath": f"{CODE}/{name}", "subPath": key} for name, key in keys.items()
        ],
    }
    pods = {"containers": [container], "volumes": [{"name": ANOTHER, "configMap": {"name": ANOTHER}}]}
    patch = json.dumps({"spec": {"template": {"spec": pods}}})
    workload = ("deployment", watching.NAME, "-n", RELEASE)
    kubectl("patch", *workload, "--type=strategic", "--patch", patch)
    try:
        kubectl("rollout", "status", *workload, "--timeout=180s")
        yield
    finally:
        kubectl("rollout", "undo", *workload)
        kubectl("rollout", "status", *workload, "--timeout=180s")
        kubectl("delete", "configmap", ANOTHER, "-n", RELEASE)


def _a_new_pod(world: World) -> Raw:
    """The first pod of a new deployment, which goes at once."""
    with applied(world, "newer", {**LIGHT, "gateway": OFF}):
        return dict(world.until(lambda: pods_of(world, "newer", "tokenizer"), "it has a pod")[0])


def _forbidden(world: World) -> Raw:
    """What the operator has counted as forbidden."""
    return {what: count for what, count in watching.errors(world).items() if what.endswith(" Forbidden")}


def _cures(world: World) -> str:
    """What a new operator says that it has to be allowed."""
    answer = watching.asked(world, "/readyz")
    refused = answer is not None and answer.status_code == 503 and "allow the operator to" in answer.text
    return answer.text if refused and answer is not None else ""


@contextlib.contextmanager
def _second_operator(world: World) -> Iterator[None]:
    """The operator's Deployment again, with another Lease and the right to it."""
    kubectl = world.nano.cluster.kubectl
    labels = {names.LABEL_NAME: SECOND}
    head = {"name": SECOND, "namespace": RELEASE, "labels": labels}
    first = world.get("deployment", watching.NAME, RELEASE)
    template = first["spec"]["template"]
    template["metadata"]["labels"] = labels
    for variable in template["spec"]["containers"][0]["env"]:
        if variable["name"] == "STEPAUDIO_OPERATOR_LEASE_NAME":
            variable["value"] = SECOND
    spec = {"replicas": 1, "selector": {"matchLabels": labels}, "template": template}
    rule = {"apiGroups": ["coordination.k8s.io"], "resources": ["leases"]}
    rbac = "rbac.authorization.k8s.io"
    account = {"kind": "ServiceAccount", "name": watching.NAME, "namespace": RELEASE}
    for kind, version, body in (
        ("Role", f"{rbac}/v1", {"rules": [{**rule, "resourceNames": [SECOND], "verbs": ["get", "update"]}]}),
        (
            "RoleBinding",
            f"{rbac}/v1",
            {"roleRef": {"apiGroup": rbac, "kind": "Role", "name": SECOND}, "subjects": [account]},
        ),
        ("Deployment", "apps/v1", {"spec": spec}),
    ):
        world.apply({"apiVersion": version, "kind": kind, "metadata": head, **body})
    try:
        kubectl("rollout", "status", "deployment", SECOND, "-n", RELEASE, "--timeout=180s")
        yield
    finally:
        for kind in ("deployment", "lease", "rolebinding", "role"):
            # Before its pod has gone, it would make the Lease again.
            wait = ("--cascade=foreground",) if kind == "deployment" else ()
            kubectl("delete", kind, SECOND, "-n", RELEASE, "--ignore-not-found", *wait, check=False)


def _written_by_both(world: World) -> list[int]:
    """Writes of each operator, counted from its start."""
    return [sum(watching.writes(world, which).values()) for which in (OPERATOR_SELECTOR, SECOND_SELECTOR)]


def _expected(world: World) -> dict[str, str]:
    """Version of what an operator that knows too little would take for nobody's."""
    watched = {"sav": VOLUME, "configmap": names.voices("listener")}
    found = {kind: world.get(kind, name)["metadata"]["resourceVersion"] for kind, name in watched.items()}
    for thing in world.nano.objects("pvc,jobs", "-l", names.LABEL_MODELS):
        found[f"{thing['kind']} {thing['metadata']['name']}"] = thing["metadata"]["uid"]
    if len(found) != len(watched) + 2:
        raise AssertionError(f"a volume and its Job are expected: {found}")
    return found
