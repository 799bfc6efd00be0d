"""Triton kernels without a GPU: a program of its own, in which Triton interprets them."""

import importlib.util
import os
import subprocess
import sys

import pytest

needs_triton = pytest.mark.skipif(
    importlib.util.find_spec("triton") is None, reason="triton is not installed (CUDA only)"
)


def interpreted(program: str) -> str:
    """What `program` printed. In a process of its own: the switch must be set before Triton is imported."""
    switches = {"TRITON_INTERPRET": "1", "CUDA_VISIBLE_DEVICES": "", "VLLM_PLUGINS": ""}
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", program],
        env=os.environ | switches,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout
