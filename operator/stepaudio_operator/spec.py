"""Raw objects to frozen specs: `StepAudioDeployment` and `StepAudioDataJob`, which users write, and
`StepAudioPool`, a deployment's child.

`parse_deployment`, `parse_data_job` and `parse_pool` are the only doors; raw dicts stop there. A field that
nobody set is `None`: the preset or whoever scales the pool decides then, and hashes of a pool's inputs see
only what was set. The CRDs are generated from these models (`crd.py`).
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, TypeVar

from pydantic import Field, StringConstraints, ValidationError

from stepaudio_operator import names
from stepaudio_operator.errors import SpecError
from stepaudio_operator.presets import PRESETS
from stepaudio_operator.spec_autoscaling import LIMITS_OF_POOLS, Autoscaling, Replicas
from stepaudio_operator.spec_data import MAX_RECIPE, DataJobSpec
from stepaudio_operator.spec_fields import SERVICE_LABEL, Model, Rule, without_nulls
from stepaudio_operator.spec_gpu import WAYS, Gpus, chosen_by, has_way, known_gb, not_split
from stepaudio_operator.spec_health import Health, Quantization, Vram
from stepaudio_operator.spec_models import Models, PoolModels
from stepaudio_operator.spec_parts import (
    QUANTIZATION,
    WITH_TTS,
    AudioSeconds,
    Auth,
    Chat,
    Component,
    Gateway,
    ImageTag,
    InFlight,
    ModelLength,
    PresetName,
    PullPolicy,
    Runtime,
    Tokenizer,
    Tts,
    Utilization,
)
from stepaudio_operator.spec_pod import PodTemplate, Registry
from stepaudio_operator.spec_problems import problems_of
from stepaudio_operator.spec_rollout import Rollout
from stepaudio_operator.spec_voices import Voices


def _on(part: Chat | Tts | Tokenizer | Gateway | None) -> bool:
    return part is None or part.enabled


def _gpu_count(part: Any) -> int | None:
    return part.gpu.count if part is not None and part.gpu is not None else None


def _needs_gpu(component: str) -> Rule:
    path = f"self.{component}"
    return Rule(
        cel=(
            f"self.preset != 'step-audio' || !has({path}) || !{path}.enabled || !has({path}.gpu)"
            f" || !has({path}.gpu.count) || {path}.gpu.count > 0"
        ),
        message=f"{component} of preset step-audio does not fit a CPU: leave gpu.count out or above 0",
        field=f"{component}.gpu.count",
        holds=lambda s: (
            s.preset != "step-audio"
            or not _on(getattr(s, component))
            or _gpu_count(getattr(s, component)) != 0
        ),
    )


def _only_on_gpu(component: str, field: str, attribute: str) -> Rule:
    path = f"self.{component}"
    return Rule(
        cel=(
            f"self.preset != 'nano' || !has({path}) || !has({path}.{field})"
            f" || (has({path}.gpu) && has({path}.gpu.count) && {path}.gpu.count > 0)"
        ),
        message=f"preset nano runs {component} on the CPU: set {component}.gpu.count or remove this field",
        field=f"{component}.{field}",
        holds=lambda s: (
            s.preset != "nano"
            or getattr(s, component) is None
            or getattr(getattr(s, component), attribute) is None
            or (_gpu_count(getattr(s, component)) or 0) > 0
        ),
    )


def _gpu_chosen_needs_one(component: str) -> Rule:
    path = f"self.{component}"
    chosen = " || ".join(f"has({path}.gpu.{field})" for field in WAYS)
    return Rule(
        cel=(
            f"self.preset != 'nano' || !has({path}) || !has({path}.gpu) || !({chosen})"
            f" || (has({path}.gpu.count) && {path}.gpu.count > 0)"
        ),
        message=f"preset nano runs {component} on the CPU: set gpu.count, or remove {', '.join(WAYS)}",
        field=f"{component}.gpu",
        holds=lambda s: (
            s.preset != "nano"
            or getattr(s, component) is None
            or not has_way(getattr(s, component).gpu)
            or (_gpu_count(getattr(s, component)) or 0) > 0
        ),
    )


_SOURCE_MESSAGE = (
    "no image holds the models of preset step-audio: set models.source to huggingFace, modelScope, s3 or"
    " pvc.claimName, a volume claim with the folders of the download"
)
_IMAGE_PATH_CEL = (
    "self.preset != 'step-audio' || !has(self.models) || !has(self.models.source.image)"
    " || has(self.models.source.image.path) || has(self.models.source.image.reference)"
)
_IMAGE_PATH_MESSAGE = "no image of ours holds the models of preset step-audio: say where yours has them"


def _image_path_known(models: Models | PoolModels | None) -> bool:
    image = models.source.image if models is not None else None
    return image is None or image.path is not None or image.reference is not None


class DeploymentSpec(Model):
    """A whole Step-Audio: which models, how many of each, and how they are served."""

    preset: PresetName = Field(description="Models and defaults: nano (small, CPU) or step-audio.")
    runtime: Runtime | None = None
    models: Models | None = Field(default=None, description="Left out, nano uses those in its image.")
    chat: Chat | None = None
    tts: Tts | None = None
    tokenizer: Tokenizer | None = None
    gateway: Gateway | None = None
    voices: Voices | None = Field(default=None, description="Left out, no voices can be created.")
    rollout: Rollout | None = None
    health: Health | None = None
    vram: Vram | None = None
    paused: bool = Field(
        default=False, description="Nothing is changed while it is true; the status says what would be."
    )

    RULES: ClassVar[tuple[Rule, ...]] = (
        Rule(
            cel="!has(self.chat) || self.chat.enabled || !has(self.tts) || self.tts.enabled",
            message="nothing is left to serve: enable chat or tts",
            field="chat.enabled",
            holds=lambda s: _on(s.chat) or _on(s.tts),
        ),
        Rule(
            cel=("(has(self.chat) && !self.chat.enabled) || !has(self.tokenizer) || self.tokenizer.enabled"),
            message="chat hears through the tokenizer: enable it, or disable chat too",
            field="tokenizer.enabled",
            holds=lambda s: not _on(s.chat) or _on(s.tokenizer),
        ),
        Rule(
            cel="self.preset != 'step-audio' || has(self.models)",
            message=_SOURCE_MESSAGE,
            field="models",
            holds=lambda s: s.preset != "step-audio" or s.models is not None,
        ),
        Rule(
            cel=_IMAGE_PATH_CEL,
            message=_IMAGE_PATH_MESSAGE,
            field="models.source.image.path",
            holds=lambda s: s.preset != "step-audio" or _image_path_known(s.models),
        ),
        Rule(
            cel=(
                f"!has(self.tokenizer) || !has(self.tokenizer.placement) || self.tokenizer.placement !="
                f" '{WITH_TTS}' || !self.tokenizer.enabled || !has(self.tts) || self.tts.enabled"
            ),
            message="there are no TTS pods to put the tokenizer into: enable tts, or remove placement",
            field="tokenizer.placement",
            holds=lambda s: not s.tokenizer_with_tts or _on(s.tts),
        ),
        _needs_gpu("chat"),
        _needs_gpu("tts"),
        *(_gpu_chosen_needs_one(component) for component in names.MODEL_COMPONENTS),
        *(
            _only_on_gpu(component, field, attribute)
            for component in (names.CHAT, names.TTS)
            for field, attribute in (
                ("gpuMemoryUtilization", "gpu_memory_utilization"),
                ("quantization", "quantization"),
            )
        ),
    )

    @property
    def tokenizer_with_tts(self) -> bool:
        """Whether the tokenizer runs in the TTS pods."""
        return self.tokenizer is not None and self.tokenizer.enabled and self.tokenizer.placement == WITH_TTS

    @property
    def enabled(self) -> tuple[str, ...]:
        """The components that there are, in the order of `names.COMPONENTS`."""
        return tuple(c for c in names.COMPONENTS if _on(getattr(self, c)))

    @property
    def components(self) -> tuple[str, ...]:
        """Those that have a pool of their own."""
        return tuple(c for c in self.enabled if c != names.TOKENIZER or not self.tokenizer_with_tts)


class PoolRuntime(Model):
    """Images of the pods, as the deployment resolved them."""

    version: ImageTag
    registry: Registry | None = None
    pull_policy: PullPolicy | None = None


def _only(field: str, attribute: str, components: tuple[str, ...]) -> Rule:
    allowed = " and ".join(components)
    return Rule(
        cel=f"!has(self.{field}) || self.component in [{', '.join(repr(c) for c in components)}]",
        message=f"only {allowed} know{'s' if len(components) == 1 else ''} {field}: remove it",
        field=field,
        holds=lambda s: getattr(s, attribute) is None or s.component in components,
    )


def _fixed(field: str) -> Rule:
    return Rule(
        cel=f"self.{field} == oldSelf.{field}",
        message=f"{field} cannot change: make another pool",
        field=field,
        holds=lambda s: True,
        transition=True,
    )


class PoolSpec(Model):
    """A pool of equal replicas. Made by the operator; people and autoscalers change `replicas` only."""

    deployment: Annotated[
        str, StringConstraints(pattern=SERVICE_LABEL, min_length=1, max_length=names.DEPLOYMENT_NAME_LIMIT)
    ]
    component: Component
    preset: PresetName
    replicas: Replicas | None = None
    autoscaling: Autoscaling | None = None
    runtime: PoolRuntime
    models: PoolModels | None = None
    gpu: Gpus | None = None
    with_tokenizer: bool | None = Field(default=None, description="Of tts: its pods hold the tokenizer too.")
    max_model_len: ModelLength | None = None
    gpu_memory_utilization: Utilization | None = None
    quantization: Quantization | None = Field(default=None, description=QUANTIZATION)
    health: Health | None = None
    auth: Auth | None = None
    max_audio_seconds: AudioSeconds | None = None
    max_in_flight: InFlight | None = None
    voices: Voices | None = None
    rollout: Rollout | None = None
    pod_template: PodTemplate | None = None

    RULES: ClassVar[tuple[Rule, ...]] = (
        _only("gpu", "gpu", names.MODEL_COMPONENTS),
        _only("withTokenizer", "with_tokenizer", (names.TTS,)),
        _only("models", "models", names.MODEL_COMPONENTS),
        _only("maxModelLen", "max_model_len", (names.CHAT, names.TTS)),
        _only("gpuMemoryUtilization", "gpu_memory_utilization", (names.CHAT, names.TTS)),
        _only("quantization", "quantization", (names.CHAT, names.TTS)),
        _only("health", "health", names.MODEL_COMPONENTS),
        _only("auth", "auth", (names.GATEWAY,)),
        _only("maxAudioSeconds", "max_audio_seconds", (names.GATEWAY,)),
        _only("maxInFlight", "max_in_flight", (names.GATEWAY,)),
        _only("voices", "voices", (names.TTS, names.GATEWAY)),
        *LIMITS_OF_POOLS,
        Rule(
            cel=("self.component == 'chat' || !has(self.gpu) || !has(self.gpu.count) || self.gpu.count <= 1"),
            message="a replica of this component uses at most one GPU",
            field="gpu.count",
            holds=lambda s: s.component == "chat" or (_gpu_count(s) or 0) <= 1,
        ),
        Rule(
            cel="self.component == 'chat' || !has(self.gpu) || !has(self.gpu.nodes)",
            message="a replica of this component is on one node: remove nodes",
            field="gpu.nodes",
            holds=lambda s: s.component == names.CHAT or s.gpu is None or s.gpu.nodes is None,
        ),
        not_split("self.component != 'chat' || ", lambda s: s.component == names.CHAT),
        Rule(
            cel="self.preset != 'step-audio' || self.component == 'gateway' || has(self.models)",
            message=_SOURCE_MESSAGE,
            field="models",
            holds=lambda s: s.preset != "step-audio" or s.component == names.GATEWAY or s.models is not None,
        ),
        Rule(
            cel=_IMAGE_PATH_CEL,
            message=_IMAGE_PATH_MESSAGE,
            field="models.source.image.path",
            holds=lambda s: s.preset != "step-audio" or _image_path_known(s.models),
        ),
        _fixed("deployment"),
        _fixed("component"),
    )

    @property
    def gpu_count(self) -> int:
        """GPUs of one replica: what the spec says, else the preset; 0 runs on the CPU."""
        if self.gpu is not None and self.gpu.count is not None:
            return self.gpu.count
        return PRESETS[self.preset].pools[self.component].gpu_count

    @property
    def nodes(self) -> int:
        """Pods that one replica consists of; more than one are a group, a LeaderWorkerSet."""
        return (self.gpu.nodes if self.gpu is not None else None) or 1

    @property
    def gpus_of_pod(self) -> int:
        """GPUs of one pod."""
        return self.gpu_count // self.nodes

    @property
    def gpu_gb(self) -> int | None:
        """Size of one GPU in decimal GB, as declared or as its resource says; None where nobody knows."""
        return known_gb(self.gpu, PRESETS[self.preset].pools[self.component].gpu_memory)

    @property
    def gpu_words(self) -> str:
        """What a replica needs, for a message: `4x80GB on one node`, `1x40GB (nvidia.com/mig-3g.40gb) on one
        node`, `2x80GB on each of 2 nodes`.
        """
        count, size = self.gpus_of_pod, self.gpu_gb
        cards = f"{count}x{size}GB" if size is not None else f"{count} GPUs"
        chosen = chosen_by(self.gpu)
        where = "on one node" if self.nodes == 1 else f"on each of {self.nodes} nodes"
        return f"{cards} ({chosen}) {where}" if chosen else f"{cards} {where}"


S = TypeVar("S", DeploymentSpec, PoolSpec, DataJobSpec)
M = TypeVar("M", bound=Model)


def parse_deployment(raw: Mapping[str, Any]) -> DeploymentSpec:
    """The spec of a whole StepAudioDeployment object. Raises SpecError with every problem found."""
    spec = _parse(DeploymentSpec, raw, names.DEPLOYMENT_NAME_LIMIT)
    nodes = spec.chat.gpu.nodes if spec.chat is not None and spec.chat.gpu is not None else None
    if (nodes or 1) > 1 and len(raw["metadata"]["name"]) > names.GROUP_DEPLOYMENT_NAME_LIMIT:
        raise SpecError([("metadata.name", GROUP_NAME_MESSAGE)])
    return spec


def parse_data_job(raw: Mapping[str, Any]) -> DataJobSpec:
    """The spec of a whole StepAudioDataJob object. Raises SpecError with every problem found."""
    spec = _parse(DataJobSpec, raw, names.DATA_JOB_NAME_LIMIT)
    if len(spec.recipe_json.encode()) > MAX_RECIPE:  # what no schema can say
        message = f"has more than {MAX_RECIPE:,} bytes as JSON: put texts into a file"
        raise SpecError([("spec.recipe", message)])
    return spec


def parse_pool(raw: Mapping[str, Any]) -> PoolSpec:
    """The spec of a whole StepAudioPool object. Raises SpecError with every problem found."""
    spec = _parse(PoolSpec, raw, names.POOL_NAME_LIMIT)
    if raw["metadata"]["name"] != names.pool(spec.deployment, spec.component):
        raise SpecError([("metadata.name", POOL_NAME_MESSAGE)])
    return spec


NAME_MESSAGE = (
    "a name has at most {limit} characters (its pods' names are longer), of a-z, 0-9 and '-',"
    " begins with a letter and ends with a letter or a digit"
)
GROUP_NAME_MESSAGE = (
    f"with chat.gpu.nodes above 1 a name has at most {names.GROUP_DEPLOYMENT_NAME_LIMIT} characters: those of"
    " a group's pods are longer"
)
POOL_NAME_MESSAGE = "a pool is named after its deployment and component: {deployment}-{component}"


def _parse(model: type[S], raw: Mapping[str, Any], limit: int) -> S:
    problems: list[tuple[str, str]] = []
    name = (raw.get("metadata") or {}).get("name")
    if not isinstance(name, str) or len(name) > limit or not re.fullmatch(SERVICE_LABEL[1:-1], name):
        problems.append(("metadata.name", NAME_MESSAGE.format(limit=limit)))
    spec, found = read(model, raw)
    problems += found
    if problems or spec is None:
        raise SpecError(problems)
    return spec


def read(model: type[M], raw: Mapping[str, Any]) -> tuple[M | None, list[tuple[str, str]]]:
    """The spec of a raw object, None where it has no such shape, and its problems: (path, message)."""
    try:
        # As JSON: there a list is a tuple and nothing else is converted.
        spec = model.model_validate_json(json.dumps(without_nulls(raw.get("spec") or {}, model), default=str))
    except ValidationError as invalid:
        return None, problems_of(invalid)
    return spec, spec.broken_rules("spec")
