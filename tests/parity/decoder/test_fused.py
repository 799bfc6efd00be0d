"""The Triton kernels of the speech models compute torch's formulas (interpreted here, compiled on a GPU)."""

import importlib.util
import os
import subprocess
import sys

import pytest

# In a process of its own: TRITON_INTERPRET must be set before Triton is imported.
PROGRAM = """
import torch
from torch import nn
from torch.nn import functional as F
from stepaudio_runtime.models import fused
from stepaudio_runtime.models.kernels import group_norm, snake

random, worst = torch.Generator().manual_seed(0), 0.0
with torch.inference_mode():
    for batch, channels, groups, frames in ((1, 16, 8, 1), (3, 16, 8, 37), (2, 24, 4, 130)):
        norm = nn.GroupNorm(groups, channels, eps=1e-5)
        norm.weight.copy_(torch.randn(channels, generator=random))
        norm.bias.copy_(torch.randn(channels, generator=random))
        x = 9 * torch.randn(batch, channels, frames, generator=random) + 3
        ends = torch.randint(1, frames + 1, (batch, 1, 1), generator=random)
        mask = (torch.arange(frames) < ends).float()
        for given in (None, mask):
            off = fused.group_norm_mish(x, norm, given) - F.mish(group_norm(x, norm, given))
            worst = max(worst, float(off.abs().max()))
        alpha = torch.rand(channels, generator=random)
        worst = max(worst, float((fused.snake(x, alpha) - snake(x, alpha)).abs().max()))
print("RESULT", worst)
"""


@pytest.mark.skipif(importlib.util.find_spec("triton") is None, reason="triton is not installed (CUDA only)")
def test_kernels_are_the_formulas() -> None:
    environment = os.environ | {"TRITON_INTERPRET": "1", "CUDA_VISIBLE_DEVICES": ""}
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", PROGRAM],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert float(done.stdout.split()[1]) <= 2e-5, done.stdout
