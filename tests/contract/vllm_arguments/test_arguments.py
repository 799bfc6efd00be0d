"""vLLM's own parser accepts what the chat pod starts it with, on 4x80 GB too, in both builds of vLLM 0.32.0.

The CUDA build is asked inside the runtime-cuda image, which needs no GPU for this; where that image is not
built (`make image-cuda`), that half is skipped.
"""

import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from stepaudio_cluster.images import RUNTIME_CUDA, Builder

SCRIPT = Path(__file__).parent / "show_arguments.py"
PROJECT = Path(__file__).parents[3]
COMMON = {
    "model": "Step-Audio-Chat",
    "served_model_name": ["step-audio-chat"],
    "max_model_len": 16384,
    "skip_tokenizer_init": True,
    "generation_config": "vllm",
    "uds": "/tmp/vllm.sock",
    "quantization": None,
    "nnodes": 1,
    "node_rank": 0,
    "master_addr": "127.0.0.1",
    "master_port": 29501,
    "distributed_executor_backend": None,
    "headless": False,
}
FOUR_GPUS = COMMON | {
    "dtype": "bfloat16",
    "tensor_parallel_size": 4,
    "gpu_memory_utilization": 0.92,
    "kv_cache_memory_bytes": None,
    "enforce_eager": False,
}
TWO_GPUS = FOUR_GPUS | {
    "tensor_parallel_size": 2,
    "gpu_memory_utilization": 0.95,
    "quantization": "fp8_per_tensor",
}
LEADER = FOUR_GPUS | {
    "nnodes": 2,
    "master_addr": "prod-chat-1f0c22aa-0-0.prod-chat-1f0c22aa-0.speech",
    "distributed_executor_backend": "mp",
}
WORKER = LEADER | {"node_rank": 1, "uds": None, "headless": True}
CPU = COMMON | {
    "dtype": "float32",
    "tensor_parallel_size": 1,
    "kv_cache_memory_bytes": 1 << 28,
    "enforce_eager": True,
}


def check(found: dict[str, Any]) -> None:
    assert (found["vllm"], found["step1"], found["cuda"]) == ("0.32.0", "step1", True)
    assert found["4x80"] == FOUR_GPUS
    assert found["2x80-fp8"] == TWO_GPUS
    assert found["2x2x80-leader"] == LEADER
    assert found["2x2x80-worker"] == WORKER
    assert {k: v for k, v in found["cpu"].items() if k != "gpu_memory_utilization"} == CPU


def last_line(command: list[str]) -> dict[str, Any]:
    result = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)
    assert result.returncode == 0, result.stderr[-2000:]
    found: dict[str, Any] = json.loads(result.stdout.splitlines()[-1])
    return found


@pytest.mark.vllm
def test_the_cpu_build_accepts_the_arguments() -> None:
    check(last_line([sys.executable, str(SCRIPT)]))


@pytest.fixture
def container() -> Iterator[str]:
    """A container of the runtime-cuda image of this checkout."""
    if shutil.which("buildah") is None:
        pytest.skip("the runtime-cuda image is looked for with buildah, which is not installed")
    builder = Builder(PROJECT, Path("/nonexistent"), "buildah")
    reference = builder.reference(RUNTIME_CUDA)
    if not builder.exists(reference):
        pytest.skip("the runtime-cuda image of this checkout is not built; `make image-cuda` builds it")
    name = subprocess.run(
        ["buildah", "from", reference], capture_output=True, text=True, check=True
    ).stdout.strip()
    yield name
    subprocess.run(["buildah", "rm", name], capture_output=True, check=True)


@pytest.mark.vllm
def test_the_cuda_image_accepts_the_arguments_without_a_gpu(container: str) -> None:
    mount = f"{SCRIPT}:/check.py:ro"
    command = [
        "buildah",
        "run",
        "--isolation",
        "chroot",
        "--volume",
        mount,
        container,
        "python3",
        "-B",
        "/check.py",
    ]
    check(last_line(command))
