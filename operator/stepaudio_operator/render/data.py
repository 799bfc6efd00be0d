"""The volume of a data job, and the Job that makes training data on it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

from stepaudio_operator import names
from stepaudio_operator.data_job import Asked
from stepaudio_operator.render import jobs
from stepaudio_operator.render.images import ImageDefaults, image, parts
from stepaudio_operator.render.objects import child
from stepaudio_operator.spec.data import DataJobSpec, DataVolume
from stepaudio_operator.spec.fields import as_written
from stepaudio_operator.spec.pod import VOLUME_DATA, VOLUME_SHM

# The engine and, for each process, speech of some seconds, without tokenizers of its own.
_MEMORY_MI, _WORKER_MEMORY_MI = 512, 512
# Of `podTemplate`, what is the pod's and not the container's.
_OF_POD = (
    "nodeSelector",
    "tolerations",
    "affinity",
    "topologySpreadConstraints",
    "priorityClassName",
    "runtimeClassName",
    "schedulerName",
    "imagePullSecrets",
)


def inputs(spec: DataJobSpec) -> str:
    """sha256 of what the Job is made from; how large its volume is, is not among it."""
    dumped = as_written(spec)
    if "volume" in dumped["output"]:
        dumped["output"] = "volume"
    return hashlib.sha256(json.dumps(dumped, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def asked(name: str, spec: DataJobSpec) -> Asked:
    """What the spec of data job `name` comes to."""
    return Asked(name, spec, inputs(spec), claim_name(name, spec))


def claim_name(name: str, spec: DataJobSpec) -> str:
    """The claim that the data of data job `name` are made on."""
    return spec.output.pvc.claim_name if spec.output.pvc is not None else names.data(name)


def claim(namespace: str, name: str, volume: DataVolume, size: str) -> dict[str, Any]:
    """The claim that is made for data job `name`. It belongs to nobody: data outlive who asked for them."""
    wanted: dict[str, Any] = {
        "accessModes": [volume.access_mode],
        "resources": {"requests": {"storage": size}},
    }
    if volume.storage_class_name is not None:
        wanted["storageClassName"] = volume.storage_class_name
    return {
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": {
            "name": names.data(name),
            "namespace": namespace,
            "labels": jobs.labels(names.LABEL_DATA_JOB, name),
        },
        "spec": wanted,
    }


def reference(spec: DataJobSpec, images: ImageDefaults, before: str) -> str:
    """The Job's image. What the spec leaves open stays as it was `before`, "" for a first one."""
    kept = parts(before, names.IMAGE_RUNTIME_CPU) if before else images
    version = (spec.runtime.version if spec.runtime else None) or kept.version
    near = spec.pod_template.registry if spec.pod_template else None
    own = spec.runtime.registry if spec.runtime else None
    registry = next(each for each in (near, own, kept.registry) if each is not None)
    return image(registry, names.IMAGE_RUNTIME_CPU, version)


def job(owner: Mapping[str, Any], spec: DataJobSpec, reference: str) -> dict[str, Any]:
    """The Job of `owner` (the raw StepAudioDataJob) with the image `reference`; it goes with its owner."""
    name = owner["metadata"]["name"]
    template = as_written(spec.pod_template) if spec.pod_template is not None else {}
    made = child(
        owner,
        api_version="batch/v1",
        kind="Job",
        name=names.data(name),
        labels=jobs.labels(names.LABEL_DATA_JOB, name),
    )
    metadata = {**made["metadata"], "annotations": {names.ANNOTATION_INPUTS: inputs(spec)}}
    data: dict[str, Any] = {"name": VOLUME_DATA, "mountPath": names.DATA_MOUNT}
    if spec.output.pvc is not None and spec.output.pvc.sub_path is not None:
        data["subPath"] = spec.output.pvc.sub_path
    shared = {"name": VOLUME_SHM, "mountPath": names.SHM_MOUNT}
    container = jobs.container(
        reference,
        (spec.runtime.pull_policy if spec.runtime else None) or "IfNotPresent",
        ["stepaudio", "data", "run", "--output", names.DATA_MOUNT, "--workers", str(spec.workers)],
        [{"name": names.ENV_RECIPE, "value": spec.recipe_json}, *template.get("env", [])],
        resources=_resources(spec.workers, template.get("resources", {})),
        mounts=[shared, data, *template.get("volumeMounts", [])],
    )
    memory = {"medium": "Memory", "sizeLimit": template.get("shmSize", "64Mi")}
    volumes = [
        {"name": VOLUME_SHM, "emptyDir": memory},
        {"name": VOLUME_DATA, "persistentVolumeClaim": {"claimName": claim_name(name, spec)}},
        *template.get("volumes", []),
    ]
    return jobs.job(
        metadata,
        {**template.get("labels", {}), **jobs.labels(names.LABEL_DATA_JOB, name)},
        container,
        volumes,
        pod={field: template[field] for field in _OF_POD if field in template},
        annotations=template.get("annotations"),
    )


def _resources(workers: int, own: Mapping[str, Any]) -> dict[str, Any]:
    memory = _MEMORY_MI + workers * _WORKER_MEMORY_MI
    requests = {"cpu": str(workers), "memory": f"{memory}Mi"}
    limits = {"memory": f"{2 * memory}Mi"}
    # What is named on one side is the user's on both, as in the pods of pools.
    named = own.get("requests", {}).keys() | own.get("limits", {}).keys()
    return {
        "requests": {k: v for k, v in requests.items() if k not in named} | own.get("requests", {}),
        "limits": {k: v for k, v in limits.items() if k not in named} | own.get("limits", {}),
    }
