"""How this project starts vLLM: the environment of its processes and the arguments of its server."""

import math
import os
import sys
from collections.abc import Mapping
from pathlib import Path

from stepaudio_runtime.bodies import ModelInfo
from stepaudio_runtime.errors import StepAudioError
from stepaudio_runtime.settings import EngineSettings

SERVER_MODULE = "stepaudio_runtime.service.vllm_server"
WORKER_MODULE = "stepaudio_runtime.service.vllm_worker"
PLUGINS = "stepaudio_step1"
"""The only general plugin that may load: an image's other packages have no say in the engine."""


class EngineFailed(StepAudioError):  # noqa: N818 - named as the condition's reason
    """The engine ended, or its canary was wrong: the pod ends too."""

    reason = "EngineFailed"


SHUTDOWN_TIMEOUT_S = 5  # for vLLM's own processes; the drain has waited for requests before
CPU_SEQUENCES = 16  # answered at once on a CPU: more would only wait longer


def engine_environment(settings: EngineSettings, run_dir: Path, threads: int) -> dict[str, str]:
    """Variables for every process of the engine: offline, caches under `run_dir`, `threads` CPU threads."""
    cache = run_dir / "cache"
    variables = {
        "VLLM_PLUGINS": PLUGINS,
        "VLLM_NO_USAGE_STATS": "1",
        "DO_NOT_TRACK": "1",
        "HF_HUB_OFFLINE": "1",
        "TRANSFORMERS_OFFLINE": "1",
        "HF_HOME": str(cache / "huggingface"),
        "XDG_CACHE_HOME": str(cache),
        "VLLM_CACHE_ROOT": str(cache / "vllm"),
        "VLLM_CONFIG_ROOT": str(cache / "vllm-config"),
        "TORCHINDUCTOR_CACHE_DIR": str(cache / "inductor"),
        "TRITON_CACHE_DIR": str(cache / "triton"),
        "VLLM_WORKER_MULTIPROC_METHOD": "spawn",
    }
    if settings.device == "cpu":
        variables |= {
            # Pods share a node's cores: binding each engine's threads to the same ones would stack them.
            "VLLM_CPU_OMP_THREADS_BIND": "nobind",
            "OMP_NUM_THREADS": str(threads),
            "OMP_WAIT_POLICY": "PASSIVE",
            # Eager or not, vLLM compiles helpers of its own at their first use, in every worker: that takes
            # half a minute on busy cores, and a C++ compiler that the image does not have.
            "TORCHDYNAMO_DISABLE": "1",
        }
        if settings.tensor_parallel == 1:
            # The engine core computes by itself. Else vLLM starts one more process for its thread binding,
            # which is off here, and imports torch and vLLM a third time: 0.9 GiB and several seconds.
            variables["VLLM_ENABLE_V1_MULTIPROCESSING"] = "0"
    else:
        # FlashInfer would build its kernels in the pod, with a CUDA compiler that the image does not have.
        variables["VLLM_USE_FLASHINFER_SAMPLER"] = "0"
        if settings.dtype == "float32":
            variables["TRITON_F32_DEFAULT"] = "ieee"  # else attention's products are rounded to ten bits
    return variables


def server_command(
    folder: Path, info: ModelInfo, socket_path: Path | None, settings: EngineSettings
) -> list[str]:
    """Command line of vLLM's OpenAI server for the model in `folder`, listening on a unix socket; without one
    that of vLLM's workers alone, in a pod that does not lead its group.
    """
    group = settings.group
    command = [
        sys.executable,
        *("-W", "ignore"),
        "-m",
        SERVER_MODULE if socket_path is not None else WORKER_MODULE,
        *("--model", str(folder)),
        *("--served-model-name", info["model"]),
        *(("--uds", str(socket_path)) if socket_path is not None else ("--headless",)),
        "--skip-tokenizer-init",  # prompts and answers are ids; the gateway owns the text
        *("--dtype", settings.dtype),
        *("--tensor-parallel-size", str(settings.tensor_parallel)),
        *("--max-model-len", str(info["max_model_len"])),
        *("--generation-config", "vllm"),  # a file in the folder must not change what a request asks for
        *("--shutdown-timeout", str(SHUTDOWN_TIMEOUT_S)),
        "--disable-uvicorn-access-log",
        *("--uvicorn-log-level", "warning"),
    ]
    if group is not None:
        command += ["--nnodes", str(group.nodes), "--node-rank", str(group.rank)]
        command += ["--master-addr", group.leader, "--master-port", str(group.port)]
        command += ["--distributed-executor-backend", "mp"]
    if (method := vllm_quantization(settings)) is not None:
        command += ["--quantization", method]
    if settings.device == "cpu":
        command += ["--kv-cache-memory-bytes", str(settings.kv_cache_bytes), "--enforce-eager"]
        command += ["--max-num-seqs", str(CPU_SEQUENCES)]
    else:
        command += ["--gpu-memory-utilization", f"{settings.gpu_memory_utilization:g}"]
    return command


def vllm_quantization(settings: EngineSettings) -> str | None:
    """vLLM's word for what it should make of bf16 weights; a checkpoint of 4 bits says itself what it is."""
    return "fp8_per_tensor" if settings.quantization == "FP8" else None


def cpu_threads(setting: int, cpu_max: Path = Path("/sys/fs/cgroup/cpu.max")) -> int:
    """Threads worth starting: `setting` unless 0, else the cores that affinity and cgroup quota allow."""
    if setting:
        return setting
    cores = len(os.sched_getaffinity(0))
    try:
        quota, period = cpu_max.read_text().split()
    except (OSError, ValueError):
        return cores
    return cores if quota == "max" else max(1, min(cores, math.ceil(int(quota) / int(period))))


def child_environment(base: Mapping[str, str], engine: Mapping[str, str]) -> dict[str, str]:
    """`base` with the engine's variables on top."""
    return {**base, **engine}
