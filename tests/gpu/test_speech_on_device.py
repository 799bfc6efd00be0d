"""The speech models on CUDA: golden vectors within the same bounds as on a CPU. Without a GPU, that the same
program is right about a CPU, and that it needs nothing that a bare GPU machine lacks."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).parents[2]
ALLOWED = {"torch", "numpy", "safetensors", "triton", "stepaudio_runtime", "tests"}


def run(*arguments: str) -> dict:
    command = [sys.executable, "-m", "tests.gpu.speech_on_device", *arguments]
    answer = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert answer.returncode == 0, answer.stdout + answer.stderr
    return json.loads(answer.stdout)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device, this machine has none")
def test_parity_and_speed_on_cuda():
    found = run("--device", "cuda")
    assert found["parity"]["wrong"] == []
    print(json.dumps(found["speed"]))


def test_the_same_program_finds_parity_on_a_cpu():
    found = run("--device", "cpu", "--parity-only")
    assert found["parity"]["wrong"] == []
    assert found["parity"]["tensors"] > 15


def test_it_imports_only_what_a_bare_gpu_machine_has():
    script = f"""
import sys, sysconfig
import torch, numpy, safetensors.torch
before = set(sys.modules)
import tests.gpu.speech_on_device
new = {{name.partition('.')[0] for name in set(sys.modules) - before}}
print(sorted(new - set(sys.stdlib_module_names) - {ALLOWED!r}))
"""
    answer = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert answer.stdout == "[]\n"


def test_the_speed_of_small_models_is_measured_for_every_number_of_streams():
    from stepaudio_runtime.models.conformer import ConformerConfig
    from stepaudio_runtime.models.estimator import EstimatorConfig
    from stepaudio_runtime.models.flow import FlowConfig
    from stepaudio_runtime.models.hift import HiftConfig
    from tests.gpu.speed import new_decoder, speed

    estimator = EstimatorConfig(
        channels=(16, 16), attention_head_dim=8, n_blocks=1, num_mid_blocks=1, num_heads=2
    )
    encoder = ConformerConfig(output_size=16, attention_heads=2, linear_units=32, num_blocks=1)
    decoder = new_decoder(
        torch.device("cpu"),
        torch.float32,
        FlowConfig(input_size=16, encoder=encoder, estimator=estimator),
        HiftConfig(base_channels=32, f0_cond_channels=16),
    )
    found = speed(decoder, (1, 2), seconds=2.0, rounds=1)
    assert found.keys() == {"1", "2"}
    assert all(0 < run["first_chunk_s"] <= run["real_time_factor"] * 2.0 for run in found.values())
