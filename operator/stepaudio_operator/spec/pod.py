"""What a user may override in the pods of a pool (`podTemplate`).

Anything that the operator itself sets (names, ports, its own variables and volumes, GPUs) is refused rather
than ignored. Objects of Kubernetes' own API (affinity, volume sources) are passed on as they are.
"""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal

from pydantic import AfterValidator, Field, StringConstraints, WithJsonSchema

from stepaudio_operator import names
from stepaudio_operator.gpus.cards import MIG_PREFIX
from stepaudio_operator.spec.fields import (
    ENV_NAME,
    LABEL_VALUE,
    REGISTRY,
    Int,
    LabelName,
    Model,
    Name,
    Native,
    Quantity,
    Rule,
    Text,
    Word,
)

# Set by the operator in every pod, so an override of them would be ignored or break the pod.
RESERVED_ENV = (
    names.ENV_MODELS_DIR,
    names.ENV_RECIPE,
    names.ENV_DEPLOYMENT,
    names.ENV_COMPONENT,
    names.ENV_REVISION,
    names.ENV_POD_NAME,
    names.ENV_POD_NAMESPACE,
    names.ENV_DRAIN_TIMEOUT_S,
    names.ENV_DTYPE,
    names.ENV_TENSOR_PARALLEL,
    names.ENV_MAX_MODEL_LEN,
    names.ENV_GPU_MEMORY_UTILIZATION,
    names.ENV_QUANTIZATION,
    names.ENV_CANARY_INTERVAL_S,
    names.ENV_STALL_TIMEOUT_S,
    names.ENV_DEVICE,
    names.ENV_ROUTING_CONFIGMAP,
    names.ENV_API_KEYS_DIR,
    names.ENV_MAX_AUDIO_S,
    names.ENV_MAX_IN_FLIGHT,
    names.ENV_WITH_TOKENIZER,
    names.ENV_VOICES_URL,
    names.ENV_VOICES_CONFIGMAP,
    names.ENV_WATERMARK,
    names.ENV_HOME,
)
VOLUME_TMP, VOLUME_SHM, VOLUME_MODELS, VOLUME_KEYS = "tmp", "shm", "models", "keys"
VOLUME_VOICES, VOLUME_DATA = "voices", "training-data"
RESERVED_VOLUMES = (VOLUME_TMP, VOLUME_SHM, VOLUME_MODELS, VOLUME_KEYS, VOLUME_VOICES, VOLUME_DATA)
RESERVED_MOUNTS = (
    names.TMP_MOUNT,
    names.SHM_MOUNT,
    names.MODELS_MOUNT,
    names.API_KEYS_MOUNT,
    names.VOICES_MOUNT,
    names.DATA_MOUNT,
)
_TAKEN = tuple(path + end for path in RESERVED_MOUNTS for end in ("", "/"))
KUEUE_LABELS = (names.LABEL_QUEUE, names.LABEL_QUEUE_PRIORITY)
RESERVED_LABEL_PREFIXES = ("app.kubernetes.io/", f"{names.GROUP}/")

Registry = Annotated[str, StringConstraints(pattern=REGISTRY, max_length=253)]
LabelValue = Annotated[str, StringConstraints(pattern=LABEL_VALUE, max_length=63)]


def cel_list(values: tuple[str, ...]) -> str:
    """A CEL list of strings."""
    return "[" + ", ".join(f"'{value}'" for value in values) + "]"


def _named(value: dict[str, Any]) -> dict[str, Any]:
    name = value.get("name")
    if not isinstance(name, str):
        raise ValueError("a volume needs a name")
    if not 1 <= len(name) <= 63:
        raise ValueError("a volume's name has 1 to 63 characters")
    return value


# A volume as Kubernetes writes it; only its name is ours to judge.
Volume = Annotated[
    dict[str, Any],
    AfterValidator(_named),
    Field(max_length=64),
    WithJsonSchema(
        {
            "type": "object",
            "x-kubernetes-preserve-unknown-fields": True,
            "maxProperties": 64,
            "required": ["name"],
            "properties": {"name": {"type": "string", "minLength": 1, "maxLength": 63}},
        }
    ),
]


class Toleration(Model):
    """A taint that the pods put up with."""

    key: Word | None = None
    operator: Literal["Exists", "Equal"] | None = None
    value: Word | None = None
    effect: Literal["NoSchedule", "PreferNoSchedule", "NoExecute"] | None = None
    toleration_seconds: Annotated[Int, Field(ge=0, le=2**31 - 1)] | None = None


class LocalReference(Model):
    """An object of the same namespace, by name."""

    name: Name


class EnvVar(Model):
    """An environment variable of the main container."""

    name: Annotated[str, StringConstraints(pattern=ENV_NAME, min_length=1, max_length=128)]
    value: Text | None = None
    value_from: Native | None = Field(default=None, description="As in a Pod: secretKeyRef and the like.")

    RULES = (
        Rule(
            cel="!(has(self.value) && has(self.valueFrom))",
            message="give either value or valueFrom, not both",
            field="valueFrom",
            holds=lambda s: s.value is None or s.value_from is None,
        ),
        Rule(
            cel=f"!(self.name in {cel_list(RESERVED_ENV)})",
            message="this variable is set by the operator: use the field of the spec that stands for it",
            field="name",
            holds=lambda s: s.name not in RESERVED_ENV,
        ),
    )


class VolumeMount(Model):
    """Where a volume of `volumes` appears in the main container."""

    name: LabelName
    mount_path: Annotated[str, StringConstraints(pattern=r"^/[^:]*$", min_length=1, max_length=512)]
    sub_path: Annotated[str, StringConstraints(max_length=512)] | None = None
    read_only: bool | None = None

    RULES = (
        Rule(
            cel=f"!(self.mountPath in {cel_list(_TAKEN)})",
            message="this path is taken by a volume of the operator: choose another",
            field="mountPath",
            holds=lambda s: s.mount_path not in _TAKEN,
        ),
    )


Amounts = Annotated[dict[str, Quantity], Field(max_length=16)]


_GPU_PREFIXES = (names.GPU_RESOURCE, MIG_PREFIX)


def _no_gpu(field: str) -> Rule:
    named = " || ".join(f"k.startsWith('{prefix}')" for prefix in _GPU_PREFIXES)
    return Rule(
        cel=f"!has(self.{field}) || !self.{field}.exists(k, {named})",
        message="GPUs are the pool's gpu.count and gpu.resource: set them there",
        field=field,
        holds=lambda s: not any(k.startswith(_GPU_PREFIXES) for k in getattr(s, field) or {}),
    )


class Resources(Model):
    """Requests and limits of the main container; what is named here replaces the preset's value."""

    requests: Amounts | None = None
    limits: Amounts | None = None

    RULES = (_no_gpu("requests"), _no_gpu("limits"))


class Queue(Model):
    """The queue of Kueue that admits the pods before the scheduler sees them."""

    name: LabelName = Field(description="A LocalQueue of the deployment's namespace.")
    priority_class: LabelName | None = Field(default=None, description="A WorkloadPriorityClass.")


class PodTemplate(Model):
    """Overrides for the pods of one pool."""

    labels: Annotated[dict[str, LabelValue], Field(max_length=32)] | None = None
    annotations: Annotated[dict[str, Text], Field(max_length=32)] | None = None
    node_selector: Annotated[dict[str, LabelValue], Field(max_length=32)] | None = None
    tolerations: Annotated[tuple[Toleration, ...], Field(max_length=32)] | None = None
    affinity: Native | None = Field(default=None, description="As in a Pod.")
    topology_spread_constraints: Annotated[tuple[Native, ...], Field(max_length=8)] | None = Field(
        default=None,
        description="As in a Pod; one without a labelSelector counts the pods of its pool.",
    )
    resources: Resources | None = None
    priority_class_name: Name | None = None
    runtime_class_name: Name | None = None
    scheduler_name: Name | None = None
    queue: Queue | None = None
    registry: Registry | None = Field(
        default=None,
        description="Where this pool's nodes find the same images; left out, runtime.registry.",
    )
    image_pull_secrets: Annotated[tuple[LocalReference, ...], Field(max_length=8)] | None = None
    env: Annotated[tuple[EnvVar, ...], Field(max_length=64)] | None = None
    volumes: Annotated[tuple[Volume, ...], Field(max_length=32)] | None = Field(
        default=None, description="As in a Pod."
    )
    volume_mounts: Annotated[tuple[VolumeMount, ...], Field(max_length=32)] | None = None
    shm_size: Quantity | None = Field(default=None, description="Size limit of /dev/shm, in memory.")

    LIST_KEYS: ClassVar = {
        "imagePullSecrets": "name",
        "env": "name",
        "volumes": "name",
        "volumeMounts": "mountPath",
    }
    RULES = (
        Rule(
            cel="!has(self.labels) || self.labels.all(k, "
            + " && ".join(f"!k.startsWith('{p}')" for p in RESERVED_LABEL_PREFIXES)
            + ")",
            message="labels of app.kubernetes.io/ and stepaudio.io/ are the operator's: use another prefix",
            field="labels",
            holds=lambda s: not any(k.startswith(RESERVED_LABEL_PREFIXES) for k in s.labels or {}),
        ),
        Rule(
            cel=(
                "!has(self.queue) || !has(self.labels)"
                f" || !self.labels.exists(k, k in {cel_list(KUEUE_LABELS)})"
            ),
            message="queue says it: remove Kueue's label",
            field="labels",
            holds=lambda s: s.queue is None or not any(k in KUEUE_LABELS for k in s.labels or {}),
        ),
        Rule(
            cel=f"!has(self.annotations) || self.annotations.all(k, !k.startsWith('{names.GROUP}/'))",
            message="annotations of stepaudio.io/ are the operator's: use another prefix",
            field="annotations",
            holds=lambda s: not any(k.startswith(f"{names.GROUP}/") for k in s.annotations or {}),
        ),
        Rule(
            cel=f"!has(self.volumes) || self.volumes.all(v, !(v.name in {cel_list(RESERVED_VOLUMES)}))",
            message=f"{', '.join(RESERVED_VOLUMES)} are the operator's volumes: use another name",
            field="volumes",
            holds=lambda s: not any(v["name"] in RESERVED_VOLUMES for v in s.volumes or ()),
        ),
    )
