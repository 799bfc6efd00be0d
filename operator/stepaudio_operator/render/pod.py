"""The pod template of a pool: one container, its settings, probes, volumes and security context."""

from __future__ import annotations

from typing import Any

from stepaudio_operator import names
from stepaudio_operator.presets import PRESETS, PoolPreset, Preset
from stepaudio_operator.render import gpus as render_gpus
from stepaudio_operator.render import local_models, node_affinity, voices
from stepaudio_operator.render.images import image
from stepaudio_operator.spec.fields import seconds
from stepaudio_operator.spec.models import ImageSource
from stepaudio_operator.spec.pod import VOLUME_KEYS, VOLUME_MODELS, VOLUME_SHM, VOLUME_TMP, PodTemplate
from stepaudio_operator.spec.pool import PoolSpec

_PROBE_PERIOD_S = 5
# A stalled engine does not get the long grace of a drain.
_LIVENESS_GRACE_S = 10


def pod_template(pool: str, spec: PoolSpec, hash8: str, *, worker: bool = False) -> dict[str, Any]:
    """Metadata and spec of the pods of `pool` at revision `hash8`, without name and owner; with `worker` of
    those of a group that do not lead it.
    """
    preset = PRESETS[spec.preset]
    defaults = preset.pools[spec.component]
    overrides = spec.pod_template or PodTemplate()
    gpus = spec.gpu_count
    dumped = overrides.model_dump(mode="json", by_alias=True, exclude_none=True)
    labels = {
        **dumped.get("labels", {}),
        **(queue_labels(spec) if spec.nodes == 1 else {}),
        **names.child_labels(spec.deployment, spec.component),
        names.LABEL_WORKER_OF if worker else names.LABEL_POOL: pool,
        names.LABEL_REVISION: hash8,
    }
    metadata: dict[str, Any] = {"labels": labels}
    if dumped.get("annotations"):
        metadata["annotations"] = dumped["annotations"]
    pod: dict[str, Any] = {
        "restartPolicy": "Always",
        "enableServiceLinks": False,
        "automountServiceAccountToken": spec.component == names.GATEWAY,
        "terminationGracePeriodSeconds": _drain_s(spec, preset) + names.GRACE_MARGIN_S,
        "securityContext": {
            "runAsNonRoot": True,
            "runAsUser": names.USER_ID,
            "runAsGroup": names.USER_ID,
            "seccompProfile": {"type": "RuntimeDefault"},
            **voices.security(spec),
        },
        "containers": [_container(spec, preset, defaults, gpus, hash8=hash8, overrides=dumped)],
        "volumes": _volumes(spec, defaults, dumped),
    }
    if spec.models is not None and (local := spec.models.source.node_local) is not None:
        pod["initContainers"] = [local_models.waiting(pod["containers"][0], local)]
        pod["securityContext"] |= local_models.SECURITY
    if spec.component == names.GATEWAY:
        pod["serviceAccountName"] = names.gateway_identity(spec.deployment)
    if "affinity" in dumped:
        pod["affinity"] = dumped["affinity"]
    node_affinity.choose(pod, render_gpus.nodes(spec))
    if "topologySpreadConstraints" in dumped:
        # Without a selector a constraint counts no pod at all, and does nothing.
        counted = {"labelSelector": {"matchLabels": names.pool_selector(pool)}}
        pod["topologySpreadConstraints"] = [counted | c for c in dumped["topologySpreadConstraints"]]
    if (claim := render_gpus.claim(spec, names.revision(pool, hash8))) is not None:
        pod["resourceClaims"] = [claim]
    for field in (
        "nodeSelector",
        "tolerations",
        "priorityClassName",
        "runtimeClassName",
        "schedulerName",
        "imagePullSecrets",
    ):
        if field in dumped:
            pod[field] = dumped[field]
    return {"metadata": metadata, "spec": pod}


def _container(
    spec: PoolSpec,
    preset: Preset,
    defaults: PoolPreset,
    gpus: int,
    *,
    hash8: str,
    overrides: dict[str, Any],
) -> dict[str, Any]:
    port = names.GATEWAY_PORT if spec.component == names.GATEWAY else names.POOL_PORT
    env = _environment(spec, preset, defaults, gpus, hash8) + voices.environment(spec)
    own = overrides.get("env", [])
    replaced = {variable["name"] for variable in own}
    return {
        "name": names.CONTAINER,
        "image": image(
            overrides.get("registry", spec.runtime.registry), _repository(spec, gpus), spec.runtime.version
        ),
        "imagePullPolicy": spec.runtime.pull_policy or "IfNotPresent",
        "command": ["stepaudio", "serve", spec.component],
        "env": [variable for variable in env if variable["name"] not in replaced] + own,
        "ports": [{"name": names.PORT_NAME, "containerPort": port, "protocol": "TCP"}],
        "resources": _resources(defaults, spec, overrides.get("resources", {})),
        "startupProbe": {
            "httpGet": {"path": names.HEALTH_PATH, "port": names.PORT_NAME},
            "periodSeconds": _PROBE_PERIOD_S,
            "timeoutSeconds": 5,
            "failureThreshold": defaults.startup_s // _PROBE_PERIOD_S,
            "terminationGracePeriodSeconds": _LIVENESS_GRACE_S,
        },
        "livenessProbe": {
            "httpGet": {"path": names.HEALTH_PATH, "port": names.PORT_NAME},
            "periodSeconds": 10,
            "timeoutSeconds": 10,
            "failureThreshold": 6,
            "terminationGracePeriodSeconds": _LIVENESS_GRACE_S,
        },
        "readinessProbe": {
            "httpGet": {"path": names.READY_PATH, "port": names.PORT_NAME},
            "periodSeconds": _PROBE_PERIOD_S,
            "timeoutSeconds": 5,
            "failureThreshold": 3,
        },
        "lifecycle": {"preStop": {"sleep": {"seconds": names.PRE_STOP_S}}},
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        },
        "terminationMessagePath": names.TERMINATION_LOG,
        "terminationMessagePolicy": "File",
        "volumeMounts": _mounts(spec, overrides),
    }


def _repository(spec: PoolSpec, gpus: int) -> str:
    if spec.component == names.GATEWAY:
        return names.IMAGE_GATEWAY
    return names.IMAGE_RUNTIME_CUDA if gpus else names.IMAGE_RUNTIME_CPU


def _drain_s(spec: PoolSpec, preset: Preset) -> int:
    own = spec.rollout.drain_timeout if spec.rollout else None
    return seconds(own or preset.drain_timeout)


def _environment(
    spec: PoolSpec, preset: Preset, defaults: PoolPreset, gpus: int, hash8: str
) -> list[dict[str, Any]]:
    values: dict[str, Any] = {
        names.ENV_HOME: names.TMP_MOUNT,
        names.ENV_DEPLOYMENT: spec.deployment,
        names.ENV_COMPONENT: spec.component,
        names.ENV_REVISION: hash8,
        names.ENV_DRAIN_TIMEOUT_S: _drain_s(spec, preset),
    }
    if spec.component == names.GATEWAY:
        values[names.ENV_ROUTING_CONFIGMAP] = names.routing(spec.deployment)
        if spec.auth is not None:
            values[names.ENV_API_KEYS_DIR] = names.API_KEYS_MOUNT
        if spec.max_audio_seconds is not None:
            values[names.ENV_MAX_AUDIO_S] = spec.max_audio_seconds
        if spec.max_in_flight is not None:
            values[names.ENV_MAX_IN_FLIGHT] = spec.max_in_flight
    else:
        values[names.ENV_MODELS_DIR] = _models_dir(spec, preset)
        values[names.ENV_DEVICE] = "cuda" if gpus else "cpu"
        values |= _health(spec)
    if spec.with_tokenizer:
        values[names.ENV_WITH_TOKENIZER] = "on"
    if spec.component in (names.CHAT, names.TTS):
        values[names.ENV_DTYPE] = preset.dtype
        values[names.ENV_TENSOR_PARALLEL] = max(1, gpus)
        if (length := spec.max_model_len or defaults.max_model_len) is not None:
            values[names.ENV_MAX_MODEL_LEN] = length
        if gpus:
            share = spec.gpu_memory_utilization or defaults.gpu_memory_utilization
            values[names.ENV_GPU_MEMORY_UTILIZATION] = share
            if spec.quantization is not None:
                values[names.ENV_QUANTIZATION] = spec.quantization
        elif defaults.kv_cache_gib is not None:
            values[names.ENV_KV_CACHE_GIB] = defaults.kv_cache_gib
    fields = {names.ENV_POD_NAME: "metadata.name", names.ENV_POD_NAMESPACE: "metadata.namespace"}
    if spec.nodes > 1:
        values[names.ENV_NODES] = spec.nodes
        values[names.ENV_LEADER_ADDRESS] = f"$({names.GROUP_LEADER_VARIABLE})"
        fields[names.ENV_NODE_RANK] = f"metadata.labels['{names.LABEL_GROUP_RANK}']"
    return [{"name": name, "value": str(value)} for name, value in values.items()] + [
        {"name": name, "valueFrom": {"fieldRef": {"apiVersion": "v1", "fieldPath": path}}}
        for name, path in fields.items()
    ]


def _health(spec: PoolSpec) -> dict[str, Any]:
    """What the spec says of the pod's health; what it leaves out is the runtime's own to decide."""
    health, values = spec.health, {}
    if health is not None and health.stall_timeout is not None:
        values[names.ENV_STALL_TIMEOUT_S] = seconds(health.stall_timeout)
    if health is not None and health.canary is not None and health.canary.interval is not None:
        values[names.ENV_CANARY_INTERVAL_S] = seconds(health.canary.interval)
    return values


def _models_dir(spec: PoolSpec, preset: Preset) -> str:
    source = spec.models.source if spec.models is not None else None
    if source is not None and source.node_local is not None:
        return local_models.path(source.node_local)
    if source is not None and (source.pvc is not None or _image_volume(spec) is not None):
        return names.MODELS_MOUNT
    path = source.image.path if source is not None and source.image is not None else None
    # The spec's rules refuse a preset without models of its own where no source names a folder.
    return path or preset.models_dir or names.MODELS_MOUNT


def _image_volume(spec: PoolSpec) -> ImageSource | None:
    """The image that holds nothing but models, where that is what the spec names."""
    held = spec.models.source.image if spec.models is not None else None
    return held if held is not None and held.reference is not None else None


def queue_labels(spec: PoolSpec) -> dict[str, str]:
    """By which Kueue admits a replica: labels of its pod or, so that it is admitted whole, of its group."""
    queue = spec.pod_template.queue if spec.pod_template is not None else None
    if queue is None:
        return {}
    labels = {names.LABEL_QUEUE: queue.name}
    if queue.priority_class is not None:
        labels[names.LABEL_QUEUE_PRIORITY] = queue.priority_class
    return labels


def _resources(defaults: PoolPreset, spec: PoolSpec, own: dict[str, Any]) -> dict[str, Any]:
    # A resource that the user names is the user's on both sides: a request above the preset's limit, or
    # a limit below its request, would be refused by the API server.
    named = own.get("requests", {}).keys() | own.get("limits", {}).keys()
    devices = render_gpus.resources(spec)
    resources: dict[str, Any] = {
        "requests": {k: v for k, v in defaults.requests.items() if k not in named}
        | own.get("requests", {})
        | devices,
        "limits": {k: v for k, v in defaults.limits.items() if k not in named}
        | own.get("limits", {})
        | devices,
    }
    if spec.gpu_count and spec.gpu is not None and spec.gpu.claim is not None:
        resources["claims"] = [{"name": names.GPU_CLAIM}]
    return resources


def _volumes(spec: PoolSpec, defaults: PoolPreset, overrides: dict[str, Any]) -> list[dict[str, Any]]:
    volumes: list[dict[str, Any]] = [
        {"name": VOLUME_TMP, "emptyDir": {}},
        {
            "name": VOLUME_SHM,
            "emptyDir": {"medium": "Memory", "sizeLimit": overrides.get("shmSize", defaults.shm_size)},
        },
    ]
    if (pvc := spec.models.source.pvc if spec.models else None) is not None:
        claim = {"claimName": pvc.claim_name, "readOnly": True}
        volumes.append({"name": VOLUME_MODELS, "persistentVolumeClaim": claim})
    if (local := spec.models.source.node_local if spec.models else None) is not None:
        volumes.append(local_models.volume(local))
    if (held := _image_volume(spec)) is not None:
        volumes.append(
            {
                "name": VOLUME_MODELS,
                "image": {
                    "reference": held.reference,
                    "pullPolicy": spec.runtime.pull_policy or "IfNotPresent",
                },
            }
        )
    if spec.auth is not None:
        volumes.append({"name": VOLUME_KEYS, "secret": {"secretName": spec.auth.secret_ref.name}})
    return volumes + voices.volumes(spec) + overrides.get("volumes", [])


def _mounts(spec: PoolSpec, overrides: dict[str, Any]) -> list[dict[str, Any]]:
    mounts: list[dict[str, Any]] = [
        {"name": VOLUME_TMP, "mountPath": names.TMP_MOUNT},
        {"name": VOLUME_SHM, "mountPath": names.SHM_MOUNT},
    ]
    if (pvc := spec.models.source.pvc if spec.models else None) is not None:
        mount = {"name": VOLUME_MODELS, "mountPath": names.MODELS_MOUNT, "readOnly": True}
        mounts.append(mount | ({"subPath": pvc.sub_path} if pvc.sub_path else {}))
    if spec.models is not None and spec.models.source.node_local is not None:
        mounts.append(local_models.MOUNT)
    if (held := _image_volume(spec)) is not None:
        mount = {"name": VOLUME_MODELS, "mountPath": names.MODELS_MOUNT, "readOnly": True}
        mounts.append(mount | ({"subPath": held.path.strip("/")} if held.path else {}))
    if spec.auth is not None:
        mounts.append({"name": VOLUME_KEYS, "mountPath": names.API_KEYS_MOUNT, "readOnly": True})
    return mounts + voices.mounts(spec) + overrides.get("volumeMounts", [])
