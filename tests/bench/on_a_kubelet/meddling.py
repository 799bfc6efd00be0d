"""Others work on the objects of the deployment under load: what is theirs stays, what is the operator's comes
back, requests go on, and nobody writes again and again.
"""

import json
import time
from collections.abc import Callable, Mapping
from typing import Any

from stepaudio_operator.names import CONTAINER as MAIN
from tests.bench.on_a_kubelet import watching
from tests.bench.on_a_kubelet.scenarios import MODEL_POOLS, REPLICAS, Raw, World, name, note_leaving

GATEWAY, SPEECH = name("gateway"), name("tts")
RESTARTED = "kubectl.kubernetes.io/restartedAt"
CALM_S = 20.0
HOME = {"name": "HOME", "value": "/tmp"}
GUARD = "example.com/guard"


def meddled(world: World) -> Raw:
    """Theirs: a restart, a sidecar, labels, annotations, a finalizer. Ours: a variable, a number of pods,
    owners, a status.
    """
    kubectl, before = world.nano.cluster.kubectl, world.uids(*MODEL_POOLS)
    gateways = world.uids("gateway")
    written = watching.writes(world)
    began = time.monotonic()
    kubectl("rollout", "restart", f"deployment/{GATEWAY}")
    image = world.get("deployment", GATEWAY)["spec"]["template"]["spec"]["containers"][0]["image"]
    _inject(world, [{"name": "proxy", "image": image, "command": ["sleep", "infinity"]}])
    _patch(world, "sap", SPEECH, {"metadata": {"finalizers": [GUARD]}})
    kubectl("label", "--overwrite", f"service/{SPEECH}", f"sap/{SPEECH}", "team=voice")
    kubectl("annotate", "--overwrite", f"service/{SPEECH}", f"sap/{SPEECH}", f"pdb/{SPEECH}", "note=mine")
    kubectl("set", "env", f"deployment/{GATEWAY}", "--containers", MAIN, "HOME=/elsewhere")
    kubectl("scale", f"deployment/{GATEWAY}", f"--replicas={REPLICAS + 1}")
    for kind in ("service", "sap", "pdb"):
        _patch(world, kind, SPEECH, {"metadata": {"ownerReferences": None}})
    _patch(world, "sap", SPEECH, {"status": {"readyReplicas": 77}}, "--subresource=status")
    world.until(lambda: note_leaving(world) and _right(world), "theirs stays, ours is back")
    took = time.monotonic() - began
    world.until(lambda: note_leaving(world) and not gateways & world.uids("gateway"), "gateways are others")
    world.until_whole()
    watching.until_it_leads(world)
    after = watching.writes(world)
    time.sleep(CALM_S)
    calm = watching.writes(world) == after
    _patch(world, "sap", SPEECH, {"metadata": {"finalizers": None}})
    _inject(world, [])
    for kind in ("service", "sap", "pdb"):
        _patch(world, kind, SPEECH, {"metadata": {"labels": {"team": None}, "annotations": {"note": None}}})
    if world.uids(*MODEL_POOLS) != before or not calm:
        raise AssertionError(f"pods were replaced, or writes go on: {after}, then {watching.writes(world)}")
    return {"right after s": round(took), "written": sum((after - written).values()), "calm then": calm}


MEDDLING: Mapping[str, Callable[[World], Raw]] = {"meddled-with": meddled}


def _patch(world: World, kind: str, name: str, body: Raw, *more: str) -> None:
    world.nano.cluster.kubectl("patch", kind, name, "--type=merge", "--patch", json.dumps(body), *more)


def _inject(world: World, containers: list[Raw]) -> None:
    """What another field manager has beside the gateway."""
    kind = {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": GATEWAY}}
    body = {**kind, "spec": {"template": {"spec": {"containers": containers}}}}
    apply = ("apply", "--server-side", "--field-manager=injector", "-f", "-")
    world.nano.cluster.kubectl(*apply, stdin=json.dumps(body))


def _right(world: World) -> bool:
    """What others added is there, and what they changed is as the operator wants it."""
    workload = world.get("deployment", GATEWAY)["spec"]
    template: Any = workload["template"]
    containers = {each["name"]: each for each in template["spec"]["containers"]}
    service, pool, budget = [world.get(kind, SPEECH) for kind in ("service", "sap", "pdb")]
    return (
        HOME in containers[MAIN]["env"]
        and "proxy" in containers
        and pool["metadata"].get("finalizers") == [GUARD]
        and RESTARTED in template["metadata"].get("annotations", {})
        and workload["replicas"] == REPLICAS
        and pool["status"]["readyReplicas"] == REPLICAS
        and all(each["metadata"].get("ownerReferences") for each in (service, pool, budget))
        and all(each["metadata"]["labels"].get("team") == "voice" for each in (service, pool))
        and all(each["metadata"]["annotations"]["note"] == "mine" for each in (service, pool, budget))
    )
