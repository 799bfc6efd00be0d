"""The volume that downloaded models are brought to, the Job that fills it, and what pools are told of it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from typing import Any

from stepaudio_operator import names
from stepaudio_operator.presets import PRESETS
from stepaudio_operator.render import jobs, local_models
from stepaudio_operator.render.images import ImageDefaults, image
from stepaudio_operator.spec.deployment import DeploymentSpec
from stepaudio_operator.spec.fields import as_written
from stepaudio_operator.spec.models import DOWNLOADED, Cache, NodeFolder, S3Source
from stepaudio_operator.spec.pod import PodTemplate

_VOLUME = "models"
# Fields of a source that change how it is reached, not what it holds.
_ACCESS = {"tokenSecretRef", "credentialsSecretRef"}
# Brings a model of 130B at full speed of a fast network; hashing and TLS take the processor.
_RESOURCES = {"requests": {"cpu": "500m", "memory": "512Mi"}, "limits": {"memory": "2Gi"}}


def claim_name(spec: DeploymentSpec) -> str | None:
    """The volume that `spec` needs; None where its models are not downloaded, or lie on the nodes' disks."""
    if spec.models is None or not spec.models.source.downloaded:
        return None
    cache = spec.models.cache or Cache()
    if cache.node_local is not None:
        return None
    return _named([_source(spec), cache.storage_class_name, cache.access_mode])


def node_folder(spec: DeploymentSpec) -> NodeFolder | None:
    """The folder that `spec` needs on each node; None where its models do not lie on the nodes' disks."""
    local = spec.models.cache.node_local if spec.models is not None and spec.models.cache else None
    if local is None:
        return None
    folder = _named([_source(spec), {"nodeLocal": local.claim_name}])
    return NodeFolder.model_validate({"claimName": local.claim_name, "folder": folder})


def set_name(spec: DeploymentSpec) -> str | None:
    """What the models of `spec` are called where they are brought to: the volume's or the folder's name."""
    folder = node_folder(spec)
    return folder.folder if folder is not None else claim_name(spec)


def _named(identity: list[Any]) -> str:
    text = json.dumps(identity, sort_keys=True, separators=(",", ":"))
    return names.models(hashlib.sha256(text.encode()).hexdigest()[: names.REVISION_DIGITS])


def pool_models(spec: DeploymentSpec) -> dict[str, Any] | None:
    """What the pools of `spec` are told about their models; None where it says nothing."""
    if spec.models is None:
        return None
    name = claim_name(spec)
    if name is not None:
        return {"source": {"pvc": {"claimName": name}}}
    if (folder := node_folder(spec)) is not None:
        return {"source": {"nodeLocal": as_written(folder)}}
    return as_written(spec.models)


def claim(
    namespace: str,
    name: str,
    spec: DeploymentSpec,
    *,
    size: str,
    policy: str,
    users: Sequence[tuple[str, str]],
) -> dict[str, Any]:
    """The PersistentVolumeClaim. `users` are (name, uid) of the deployments that want it.

    It belongs to nobody, so that models outlive a deployment; where `policy` is Delete it goes with the last.
    """
    cache = (spec.models.cache if spec.models else None) or Cache()
    metadata: dict[str, Any] = {
        "name": name,
        "namespace": namespace,
        "labels": {**jobs.labels(names.LABEL_MODELS, name), names.LABEL_WHEN_UNUSED: policy},
    }
    if policy == "Delete":
        metadata["ownerReferences"] = [
            {"apiVersion": names.API_VERSION, "kind": names.DEPLOYMENT_KIND, "name": user, "uid": uid}
            for user, uid in users
        ]
    wanted: dict[str, Any] = {
        "accessModes": [cache.access_mode],
        "resources": {"requests": {"storage": size}},
    }
    if cache.storage_class_name is not None:
        wanted["storageClassName"] = cache.storage_class_name
    return {"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": metadata, "spec": wanted}


def when_unused(spec: DeploymentSpec) -> str:
    """What the spec says of a volume that nobody wants any more: Keep or Delete."""
    return ((spec.models.cache if spec.models else None) or Cache()).when_unused


def size(spec: DeploymentSpec) -> str:
    """What the volume has to hold: as the spec says, else the preset."""
    cache = spec.models.cache if spec.models else None
    return (cache.size if cache else None) or PRESETS[spec.preset].cache_size


def job(
    namespace: str, name: str, claim_uid: str, spec: DeploymentSpec, images: ImageDefaults
) -> dict[str, Any]:
    """The Job that fills the volume. It belongs to the volume and goes with it."""
    head = {
        "name": name,
        "namespace": namespace,
        "labels": jobs.labels(names.LABEL_MODELS, name),
        "ownerReferences": [
            {"apiVersion": "v1", "kind": "PersistentVolumeClaim", "name": name, "uid": claim_uid}
        ],
    }
    volumes = [{"name": _VOLUME, "persistentVolumeClaim": {"claimName": name}}]
    container = _container(spec, images, names.MODELS_MOUNT)
    return jobs.job(head, jobs.labels(names.LABEL_MODELS, name), container, volumes, pod=_placement(spec))


def copy_job(
    namespace: str, folder: NodeFolder, node: str, spec: DeploymentSpec, images: ImageDefaults, *, policy: str
) -> dict[str, Any]:
    """The Job that fills the folder on `node`. It belongs to nobody, so that models outlive a deployment."""
    name = names.copy(folder.folder, node)
    labels = {**jobs.labels(names.LABEL_MODELS, folder.folder), names.LABEL_COPY: name}
    head = {
        "name": name,
        "namespace": namespace,
        "labels": {**labels, names.LABEL_WHEN_UNUSED: policy},
        "annotations": {names.ANNOTATION_NODE: node},
    }
    container = _container(spec, images, local_models.path(folder))
    volumes = [local_models.volume(folder)]
    return jobs.job(head, labels, container, volumes, pod=local_models.on_node(_placement(spec), node))


def _container(spec: DeploymentSpec, images: ImageDefaults, folder: str) -> dict[str, Any]:
    version = (spec.runtime.version if spec.runtime else None) or images.version
    template = _template(spec)
    near = template.registry if template is not None else None
    own = spec.runtime.registry if spec.runtime else None
    registry = next(each for each in (near, own, images.registry) if each is not None)
    pull = (spec.runtime.pull_policy if spec.runtime else None) or "IfNotPresent"
    source = spec.models.source if spec.models else None
    env: list[dict[str, Any]] = [
        {"name": names.ENV_MODELS_SOURCE, "value": json.dumps(_source(spec), sort_keys=True)}
    ]
    hub = source.hugging_face or source.model_scope if source else None
    if hub is not None and (token := hub.token_secret_ref) is not None:
        reference_ = {"name": token.name, "key": token.key}
        env.append({"name": names.ENV_MODELS_TOKEN, "valueFrom": {"secretKeyRef": reference_}})
    container = jobs.container(
        image(registry, names.IMAGE_GATEWAY, version),
        pull,
        ["stepaudio", "models", "fetch", folder],
        env,
        resources=_RESOURCES,
        mounts=[{"name": _VOLUME, "mountPath": names.MODELS_MOUNT}],
    )
    if source is not None and source.s3 is not None and source.s3.credentials_secret_ref is not None:
        container["envFrom"] = [{"secretRef": {"name": source.s3.credentials_secret_ref.name}}]
    return container


def _source(spec: DeploymentSpec) -> dict[str, Any]:
    """The source as the Job reads it, without what it takes to reach it."""
    assert spec.models is not None  # noqa: S101 - only called for models that are downloaded
    dumped = as_written(spec.models.source)
    kind = next(name for name in DOWNLOADED if name in dumped)
    said = {key: value for key, value in dumped[kind].items() if key not in _ACCESS}
    if isinstance(spec.models.source.s3, S3Source) and spec.models.source.s3.credentials_secret_ref is None:
        said["anonymous"] = True
    return {kind: said, "components": [c for c in names.MODEL_COMPONENTS if c in spec.enabled]}


def _placement(spec: DeploymentSpec) -> dict[str, Any]:
    """Where the Job runs."""
    template = _template(spec)
    written = as_written(template) if template is not None else {}
    return {k: written[k] for k in ("nodeSelector", "tolerations", "imagePullSecrets") if k in written}


def _template(spec: DeploymentSpec) -> PodTemplate | None:
    """What the Job's pod takes after: the largest pool's, so that a volume bound to a place is bound in
    theirs, and its image is found from there.
    """
    parts = (getattr(spec, component) for component in names.MODEL_COMPONENTS if component in spec.components)
    return next((p.pod_template for p in parts if p is not None and p.pod_template is not None), None)
