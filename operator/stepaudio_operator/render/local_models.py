"""Models on the nodes' own disks: how pods wait for them, and the Jobs that bring or take them away there.

The volume is a claim that the platform made, of a local PersistentVolume: every node has another disk behind
it. A set of models is a folder there. The scheduler places a pod by its GPUs alone; a Job then fills the
folder on that node, and the pod's first container waits until it is whole. Pods stay restricted (a claim is
no hostPath), and the token of the source stays in the Jobs.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

from stepaudio_operator import names
from stepaudio_operator.render import node_affinity
from stepaudio_operator.spec.models import NodeFolder, NodeLocal
from stepaudio_operator.spec.pod import VOLUME_MODELS

MOUNT: dict[str, Any] = {"name": VOLUME_MODELS, "mountPath": names.MODELS_MOUNT, "readOnly": True}
# The kubelet gives a local volume to a group with the first pod alone that mounts it on the node, and only
# where that may write it: so the volume is not read-only, the container's mount of it is.
SECURITY: dict[str, Any] = {"fsGroup": names.USER_ID, "fsGroupChangePolicy": "OnRootMismatch"}
_RESOURCES = {"requests": {"cpu": "10m", "memory": "64Mi"}, "limits": {"memory": "256Mi"}}


def path(models: NodeFolder) -> str:
    """Where a pod finds them."""
    return f"{names.MODELS_MOUNT}/{models.folder}"


def volume(models: NodeLocal) -> dict[str, Any]:
    """The volume of a pod."""
    return {"name": VOLUME_MODELS, "persistentVolumeClaim": {"claimName": models.claim_name}}


def waiting(main: Mapping[str, Any], models: NodeFolder) -> dict[str, Any]:
    """The container that ends when the models are there; of the image that the pod needs anyhow."""
    return {
        "name": names.WAITING_CONTAINER,
        "image": main["image"],
        "imagePullPolicy": main["imagePullPolicy"],
        "command": ["stepaudio", "models", "await", path(models)],
        "env": [{"name": names.ENV_HOME, "value": names.TMP_MOUNT}],
        "resources": copy.deepcopy(_RESOURCES),
        "securityContext": copy.deepcopy(main["securityContext"]),
        "volumeMounts": [m for m in main["volumeMounts"] if m["mountPath"] == names.TMP_MOUNT] + [MOUNT],
    }


def on_node(pod: Mapping[str, Any], node: str) -> dict[str, Any]:
    """A pod's spec, put on `node` by the scheduler: the kubelet may read the claims of such pods alone.

    A pod of a pool is there already, so nothing that keeps others away from the node concerns this one.
    """
    everywhere = {"operator": "Exists", "effect": "NoSchedule"}
    return {
        **{key: value for key, value in pod.items() if key != "nodeSelector"},
        "tolerations": [everywhere, *(t for t in pod.get("tolerations", ()) if t != everywhere)],
        "affinity": node_affinity.only(node),
    }


def removal(job: Mapping[str, Any]) -> dict[str, Any]:
    """The Job that takes away on a node what `job`, as it is stored, has brought there."""
    head, pod = job["metadata"], copy.deepcopy(job["spec"]["template"]["spec"])
    name = names.removal(head["name"])
    (container,) = pod["containers"]
    folder = container["command"][3]
    container["command"] = ["stepaudio", "models", "remove", folder]
    container["env"] = [v for v in container["env"] if v["name"] == names.ENV_HOME]
    container.pop("envFrom", None)
    container.pop("ports", None)
    labels = {k: v for k, v in head["labels"].items() if k != names.LABEL_WHEN_UNUSED}
    return _alike(job, name, head["annotations"][names.ANNOTATION_NODE], labels, pod)


def for_node(job: Mapping[str, Any], node: str) -> dict[str, Any]:
    """The Job that brings to `node` what `job`, as it is stored, has brought to another one."""
    head, pod = job["metadata"], copy.deepcopy(job["spec"]["template"]["spec"])
    name = names.copy(head["labels"][names.LABEL_MODELS], node)
    pod["affinity"] = node_affinity.only(node)
    return _alike(job, name, node, head["labels"], pod)


def _alike(
    job: Mapping[str, Any], name: str, node: str, labels: Mapping[str, str], pod: Mapping[str, Any]
) -> dict[str, Any]:
    """A new Job with the rules of one that is stored."""
    labels = {**labels, names.LABEL_COPY: name}
    of_pods = {k: v for k, v in labels.items() if k != names.LABEL_WHEN_UNUSED}
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {
            "name": name,
            "namespace": job["metadata"]["namespace"],
            "labels": labels,
            "annotations": {names.ANNOTATION_NODE: node},
        },
        "spec": {
            "backoffLimit": job["spec"]["backoffLimit"],
            "podFailurePolicy": copy.deepcopy(job["spec"]["podFailurePolicy"]),
            "template": {"metadata": {"labels": of_pods}, "spec": pod},
        },
    }
