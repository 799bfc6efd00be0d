"""The parts of the two specs: where models are, images, GPUs and each component's settings."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import AfterValidator, Field, StringConstraints, WithJsonSchema

from stepaudio_operator.spec_fields import (
    GPU_MEMORY,
    IMAGE_TAG,
    Int,
    Model,
)
from stepaudio_operator.spec_health import Quantization
from stepaudio_operator.spec_pod import LocalReference, PodTemplate, Registry

PresetName = Literal["nano", "step-audio"]
Component = Literal["chat", "tts", "tokenizer", "gateway"]
Replicas = Annotated[Int, Field(ge=0, le=1000)]
AudioSeconds = Annotated[Int, Field(ge=1, le=3600)]
InFlight = Annotated[Int, Field(ge=1, le=10000)]
ModelLength = Annotated[Int, Field(ge=256, le=32768)]
# Bounds of whole numbers: the API server rounds others towards 0 where it compares an integer with them.
Utilization = Annotated[float, Field(gt=0, lt=1)]
QUANTIZATION = (
    "Of the language model's matrices; bf16 where it is left out. FP8: made by vLLM from the bf16 files while"
    " it loads. INT4: the model's folder has to hold a checkpoint of 4 bits."
)
GpuMemory = Annotated[str, StringConstraints(pattern=GPU_MEMORY)]
GPU_COUNTS = (0, 1, 2, 4, 8)  # what divides the 96 heads and 8 groups of the chat model


def _gpu_shape(count: int) -> int:
    if count not in GPU_COUNTS:
        raise ValueError(f"must be one of {', '.join(map(str, GPU_COUNTS))}")
    return count


GpuCount = Annotated[
    Int, AfterValidator(_gpu_shape), WithJsonSchema({"type": "integer", "enum": list(GPU_COUNTS)})
]


ImageTag = Annotated[str, StringConstraints(pattern=IMAGE_TAG, min_length=1, max_length=128)]
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


class Gpus(Model):
    """GPUs of one replica; they are on one node."""

    count: GpuCount | None = Field(default=None, description="0 runs on the CPU.")
    memory: GpuMemory | None = Field(
        default=None, description="Declared size of one GPU, decimal; shown where a pod waits for a node."
    )


class SingleGpu(Model):
    """The GPU of one replica."""

    count: Annotated[Int, Field(ge=0, le=1)] | None = Field(default=None, description="0 runs on the CPU.")
    memory: GpuMemory | None = Field(
        default=None, description="Declared size of the GPU, decimal; shown where a pod waits for a node."
    )


class Chat(Model):
    """Step-Audio-Chat: text and audio tokens in, text out."""

    enabled: bool = True
    replicas: Replicas | None = None
    gpu: Gpus | None = None
    max_model_len: ModelLength | None = Field(default=None, description="Tokens of prompt and answer.")
    gpu_memory_utilization: Utilization | None = Field(default=None, description="Share that vLLM takes.")
    quantization: Quantization | None = Field(default=None, description=QUANTIZATION)
    pod_template: PodTemplate | None = None


class Tts(Model):
    """Step-Audio-TTS-3B with its speech decoder: text in, speech out."""

    enabled: bool = True
    replicas: Replicas | None = None
    gpu: SingleGpu | None = None
    max_model_len: ModelLength | None = Field(default=None, description="Tokens of prompt and answer.")
    gpu_memory_utilization: Utilization | None = Field(default=None, description="Share that vLLM takes.")
    quantization: Quantization | None = Field(default=None, description=QUANTIZATION)
    pod_template: PodTemplate | None = None


class Tokenizer(Model):
    """Step-Audio-Tokenizer: speech in, audio tokens out."""

    enabled: bool = True
    replicas: Replicas | None = None
    gpu: SingleGpu | None = None
    pod_template: PodTemplate | None = None


class Auth(Model):
    """API keys: a Secret whose values are lines of `sha256:<hex of the key>`."""

    secret_ref: LocalReference


class Gateway(Model):
    """The OpenAI-compatible front."""

    enabled: bool = True
    replicas: Replicas | None = None
    auth: Auth | None = Field(default=None, description="Left out, the API is open to the cluster.")
    max_audio_seconds: AudioSeconds | None = Field(
        default=None, description="Longest audio in one request; 30 where it is left out."
    )
    max_in_flight: InFlight | None = Field(
        default=None, description="Requests that one gateway pod serves at a time; 64 where it is left out."
    )
    pod_template: PodTemplate | None = None
