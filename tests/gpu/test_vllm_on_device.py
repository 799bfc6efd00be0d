"""vLLM with the plugin on CUDA: exact, as fast and as large as the sections of `vllm_on_device` show. Without
a GPU, that the program knows its sections and says what it could not do.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).parents[2]


def run(*sections: str) -> tuple[int, dict]:
    command = [sys.executable, "-m", "tests.gpu.vllm_on_device", *sections]
    environment = os.environ | {"PYTHONPATH": "runtime:operator:."}
    answer = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    return answer.returncode, json.loads(answer.stdout)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device, this machine has none")
@pytest.mark.parametrize("section", ["parity", "memory", "speed", "together", "faults", "nvml"])
def test_on_cuda(section):
    status, found = run(section)
    print(json.dumps(found))
    assert status == 0, found


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a CUDA device")
def test_a_section_that_cannot_be_done_says_why():
    status, found = run("nvml")
    assert status == 1
    assert "assert library is not None" in found["nvml"]["failed"]
