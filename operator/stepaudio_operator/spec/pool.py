"""`StepAudioPool`: a deployment's child, a pool of equal replicas."""

from __future__ import annotations

from typing import Annotated, ClassVar

from pydantic import Field, StringConstraints

from stepaudio_operator import names
from stepaudio_operator.presets import PRESETS
from stepaudio_operator.spec.autoscaling import LIMITS_OF_POOLS, Autoscaling, Replicas
from stepaudio_operator.spec.fields import SERVICE_LABEL, Model, Rule
from stepaudio_operator.spec.gpu import Gpus, chosen_by, gpu_count, known_gb, not_split
from stepaudio_operator.spec.health import Health, Quantization
from stepaudio_operator.spec.models import (
    IMAGE_PATH_CEL,
    IMAGE_PATH_MESSAGE,
    SOURCE_MESSAGE,
    PoolModels,
    image_path_known,
)
from stepaudio_operator.spec.parts import (
    QUANTIZATION,
    AudioSeconds,
    Auth,
    Component,
    ImageTag,
    InFlight,
    ModelLength,
    PresetName,
    PullPolicy,
    Utilization,
)
from stepaudio_operator.spec.pod import PodTemplate, Registry
from stepaudio_operator.spec.rollout import Rollout
from stepaudio_operator.spec.voices import Voices


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
            holds=lambda s: s.component == "chat" or (gpu_count(s) or 0) <= 1,
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
            message=SOURCE_MESSAGE,
            field="models",
            holds=lambda s: s.preset != "step-audio" or s.component == names.GATEWAY or s.models is not None,
        ),
        Rule(
            cel=IMAGE_PATH_CEL,
            message=IMAGE_PATH_MESSAGE,
            field="models.source.image.path",
            holds=lambda s: s.preset != "step-audio" or image_path_known(s.models),
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
