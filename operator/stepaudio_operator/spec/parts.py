"""The parts of the two specs: where models are, images, GPUs and each component's settings."""

from __future__ import annotations

from typing import Annotated, Final, Literal

from pydantic import Field, StringConstraints

from stepaudio_operator.spec.autoscaling import Autoscaling, Replicas, limits_of
from stepaudio_operator.spec.fields import IMAGE_TAG, Int, Model, Rule
from stepaudio_operator.spec.gpu import Gpus, SingleGpu, not_split
from stepaudio_operator.spec.health import Quantization
from stepaudio_operator.spec.pod import LocalReference, PodTemplate, Registry

PresetName = Literal["nano", "step-audio"]
Component = Literal["chat", "tts", "tokenizer", "gateway"]
AudioSeconds = Annotated[Int, Field(ge=1, le=3600)]
InFlight = Annotated[Int, Field(ge=1, le=10000)]
ModelLength = Annotated[Int, Field(ge=256, le=32768)]
# Bounds of whole numbers: the API server rounds others towards 0 where it compares an integer with them.
Utilization = Annotated[float, Field(gt=0, lt=1)]
QUANTIZATION = (
    "Of the language model's matrices; bf16 where it is left out. FP8: made by vLLM from the bf16 files while"
    " it loads. INT4: the model's folder has to hold a checkpoint of 4 bits."
)
REPLICAS = "Replicas; left out, whoever scales the pool decides. Beside autoscaling: those to begin with."
AUTOSCALING = "The operator decides the replicas; left out, this spec or whoever scales the pool does."
ImageTag = Annotated[str, StringConstraints(pattern=IMAGE_TAG, min_length=1, max_length=128)]
Placement = Literal["Own", "WithTTS"]
WITH_TTS: Final = "WithTTS"
PullPolicy = Literal["Always", "IfNotPresent", "Never"]


class Runtime(Model):
    """Images of the pods. Changing them is a rollout; upgrading the operator is not."""

    version: ImageTag | None = Field(
        default=None,
        description="Tag of the images; left out, what runs stays, and new pools take the chart's.",
    )
    registry: Registry | None = Field(
        default=None, description="Put before the images' names; left out, as with version."
    )
    pull_policy: PullPolicy | None = Field(default=None, description="IfNotPresent where it is left out.")


class Chat(Model):
    """Step-Audio-Chat: text and audio tokens in, text out."""

    enabled: bool = True
    replicas: Replicas | None = Field(default=None, description=REPLICAS)
    autoscaling: Autoscaling | None = Field(default=None, description=AUTOSCALING)
    gpu: Gpus | None = None
    max_model_len: ModelLength | None = Field(default=None, description="Tokens of prompt and answer.")
    gpu_memory_utilization: Utilization | None = Field(default=None, description="Share that vLLM takes.")
    quantization: Quantization | None = Field(default=None, description=QUANTIZATION)
    pod_template: PodTemplate | None = None

    RULES = (not_split(), *limits_of("chat"))


class Tts(Model):
    """Step-Audio-TTS-3B with its speech decoder: text in, speech out."""

    enabled: bool = True
    replicas: Replicas | None = Field(default=None, description=REPLICAS)
    autoscaling: Autoscaling | None = Field(default=None, description=AUTOSCALING)
    gpu: SingleGpu | None = None
    max_model_len: ModelLength | None = Field(default=None, description="Tokens of prompt and answer.")
    gpu_memory_utilization: Utilization | None = Field(default=None, description="Share that vLLM takes.")
    quantization: Quantization | None = Field(default=None, description=QUANTIZATION)
    pod_template: PodTemplate | None = None


def _decided_by_tts(field: str, attribute: str) -> Rule:
    return Rule(
        cel=f"!has(self.placement) || self.placement != '{WITH_TTS}' || !has(self.{field})",
        message="the TTS pods decide it: say it in tts, and remove it here",
        field=field,
        holds=lambda s: s.placement != WITH_TTS or getattr(s, attribute) is None,
    )


class Tokenizer(Model):
    """Step-Audio-Tokenizer: speech in, audio tokens out."""

    enabled: bool = True
    placement: Placement | None = Field(
        default=None,
        description=(
            "Own, where it is left out: a pool of its own. WithTTS: in the TTS pods, on their GPU; as many as"
            " those."
        ),
    )
    replicas: Replicas | None = Field(default=None, description=REPLICAS)
    autoscaling: Autoscaling | None = Field(default=None, description=AUTOSCALING)
    gpu: SingleGpu | None = None
    pod_template: PodTemplate | None = None

    RULES = (
        *(
            _decided_by_tts(field, attribute)
            for field, attribute in (
                ("replicas", "replicas"),
                ("autoscaling", "autoscaling"),
                ("gpu", "gpu"),
                ("podTemplate", "pod_template"),
            )
        ),
        *limits_of("tokenizer"),
    )


class Auth(Model):
    """API keys: a Secret whose values are lines of `sha256:<hex of the key>`."""

    secret_ref: LocalReference


class Gateway(Model):
    """The OpenAI-compatible front."""

    enabled: bool = True
    replicas: Replicas | None = Field(default=None, description=REPLICAS)
    autoscaling: Autoscaling | None = Field(default=None, description=AUTOSCALING)
    auth: Auth | None = Field(default=None, description="Left out, the API is open to the cluster.")
    max_audio_seconds: AudioSeconds | None = Field(
        default=None, description="Longest audio in one request; 30 where it is left out."
    )
    max_in_flight: InFlight | None = Field(
        default=None, description="Requests that one gateway pod serves at a time; 64 where it is left out."
    )
    pod_template: PodTemplate | None = None

    RULES = limits_of("gateway")
