"""The known models: how each pool of a preset runs unless the spec says otherwise.

A preset is read when a pool's revision is rendered, never again for a revision that exists: a new operator
with other presets changes no running pod.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from stepaudio_operator import names

NANO = "nano"
STEP_AUDIO = "step-audio"


@dataclass(frozen=True)
class PoolPreset:
    """Defaults of one component. `None` where the setting has no meaning for it."""

    replicas: int
    requests: Mapping[str, str]
    limits: Mapping[str, str]
    startup_s: int  # how long the pod may load before the kubelet starts it anew
    in_flight: int  # requests in flight that autoscaling gives a replica where the spec names no number
    gpu_count: int = 0
    gpu_memory: str | None = None  # declared size of one GPU, decimal
    max_model_len: int | None = None  # tokens; None: what the model's own configuration allows
    gpu_memory_utilization: float = 0.9  # share of a GPU's memory that vLLM takes
    kv_cache_gib: float | None = None  # GiB of KV cache on a CPU
    shm_size: str = "64Mi"


@dataclass(frozen=True)
class Preset:
    """One model family."""

    dtype: Literal["float32", "bfloat16"]
    models_dir: str | None  # folder inside the runtime image; None: the models come from a volume
    drain_timeout: str
    cache_size: str  # of the volume that downloaded models are brought to
    pools: Mapping[str, PoolPreset]


_GATEWAY = PoolPreset(
    replicas=1,
    requests={"cpu": "100m", "memory": "256Mi"},
    limits={"memory": "1Gi"},
    startup_s=120,
    in_flight=32,
)

PRESETS: Mapping[str, Preset] = {
    # Small random models of the same architectures, for a CPU; everything fits beside a control plane in
    # 2 cores and 24 GiB. Memory is what Python, torch and vLLM take, the models are tens of megabytes.
    NANO: Preset(
        dtype="float32",
        models_dir=names.NANO_MODELS_DIR,
        drain_timeout="60s",
        cache_size="1Gi",
        pools={
            names.CHAT: PoolPreset(
                replicas=1,
                requests={"cpu": "100m", "memory": "1536Mi"},
                limits={"memory": "5Gi"},
                startup_s=900,
                in_flight=4,
                kv_cache_gib=0.25,
                shm_size="256Mi",
            ),
            names.TTS: PoolPreset(
                replicas=1,
                requests={"cpu": "100m", "memory": "2Gi"},
                limits={"memory": "6Gi"},
                startup_s=900,
                in_flight=2,
                kv_cache_gib=0.25,
                shm_size="256Mi",
            ),
            names.TOKENIZER: PoolPreset(
                replicas=1,
                requests={"cpu": "100m", "memory": "512Mi"},
                limits={"memory": "3Gi"},
                startup_s=600,
                in_flight=4,
            ),
            names.GATEWAY: _GATEWAY,
        },
    ),
    # Step-Audio-Chat (130B, 265 GB in bf16), Step-Audio-TTS-3B (8 GB) and the tokenizer (1.5 GB).
    STEP_AUDIO: Preset(
        dtype="bfloat16",
        models_dir=None,
        drain_timeout="10m",
        cache_size="320Gi",  # 275 GB, and room for what a filesystem takes for itself
        pools={
            names.CHAT: PoolPreset(
                replicas=1,
                requests={"cpu": "8", "memory": "64Gi"},
                limits={"memory": "320Gi"},
                startup_s=3600,
                in_flight=8,
                gpu_count=4,
                gpu_memory="80GB",
                max_model_len=16384,
                gpu_memory_utilization=0.95,
                shm_size="16Gi",
            ),
            names.TTS: PoolPreset(
                replicas=1,
                requests={"cpu": "4", "memory": "16Gi"},
                limits={"memory": "32Gi"},
                startup_s=1800,
                in_flight=4,
                gpu_count=1,
                gpu_memory="24GB",
                max_model_len=8192,
                # The flow model and the vocoder need the rest of the GPU.
                gpu_memory_utilization=0.6,
                shm_size="2Gi",
            ),
            names.TOKENIZER: PoolPreset(
                replicas=1,
                requests={"cpu": "2", "memory": "4Gi"},
                limits={"memory": "8Gi"},
                startup_s=900,
                in_flight=8,
                gpu_count=1,
                gpu_memory="8GB",
            ),
            names.GATEWAY: PoolPreset(
                replicas=2,
                requests={"cpu": "500m", "memory": "512Mi"},
                limits={"memory": "2Gi"},
                startup_s=120,
                in_flight=32,
            ),
        },
    ),
}
