"""What this machine's operators can do, in the same run as what is compared with it."""

from __future__ import annotations

import os
import platform
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

from stepaudio_runtime.models.kernels import Conv1d, attend, joined, linear
from tests.bench.speech.timing import interleaved

PRODUCTS, CONVOLUTIONS, ATTENTION = "products", "convolutions", "attention"
WIDTH = 64  # of a head


def about() -> dict[str, Any]:
    """Cores, processor, memory, torch."""
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    model = next(
        (line.split(":", 1)[1].strip() for line in lines if "model name" in line), platform.machine()
    )
    return {
        "cores": os.cpu_count(),
        "processor": model,
        "memory_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1),
        "torch": torch.__version__,
        "bfloat16": bfloat16_is_native(),
    }


def bfloat16_is_native() -> bool:
    """Whether the processor multiplies bfloat16 itself (AVX512-BF16 or AMX)."""
    flags = Path("/proc/cpuinfo").read_text()
    return "avx512_bf16" in flags or "amx_bf16" in flags


@torch.inference_mode()
def rates(dtype: torch.dtype, frames: int) -> dict[str, float]:
    """GFLOP a second of the flow's own shapes, for so many frames, guidance as a batch of two.

    Each by torch's own operator and by ours, whichever is faster.
    """
    rows, half = 2 * frames, (frames + 1) // 2
    x, weight = torch.randn(rows, 256, dtype=dtype), torch.randn(1024, 256, dtype=dtype)
    signal, kernel = torch.randn(2, 256, half, dtype=dtype), torch.randn(256, 256, 3, dtype=dtype)
    q = torch.randn(2, 8, half, WIDTH, dtype=dtype)
    conv = Conv1d(256, 256, 3, padding=1).to(dtype)
    with_channels_last = joined((signal,))
    ways: dict[str, tuple[tuple[Callable[[], object], ...], float]] = {
        PRODUCTS: ((lambda: F.linear(x, weight), lambda: linear(x, weight)), 2.0 * rows * 256 * 1024),
        CONVOLUTIONS: (
            (lambda: F.conv1d(signal, kernel, padding=1), lambda: conv(with_channels_last)),
            2.0 * 2 * half * 256 * 256 * 3,
        ),
        ATTENTION: (
            (lambda: F.scaled_dot_product_attention(q, q, q), lambda: attend(q, q, q, None)),
            4.0 * 2 * 8 * half * half * WIDTH,
        ),
    }
    times = interleaved(
        {f"{name} {i}": _often(way) for name, (both, _) in ways.items() for i, way in enumerate(both)},
        rounds=5,
    )
    return {
        name: REPEATS * flop / min(times[f"{name} {i}"] for i in range(len(both))) / 1e9
        for name, (both, flop) in ways.items()
    }


REPEATS = 20


def _often(way: Callable[[], object]) -> Callable[[], None]:
    def run() -> None:
        for _ in range(REPEATS):
            way()

    return run


def work(job: Callable[[], object]) -> dict[str, float]:
    """GFLOP of what `job` computes by products and convolutions; attention is counted by `attention_work`."""
    with torch.inference_mode(), FlopCounterMode(display=False) as counter:
        job()
    found = {PRODUCTS: 0.0, CONVOLUTIONS: 0.0}
    for operator, flop in counter.get_flop_counts()["Global"].items():
        found[CONVOLUTIONS if "convolution" in str(operator) else PRODUCTS] += flop / 1e9
    return found


def attention_work(frames: int, *, steps: int = 10) -> float:
    """GFLOP of the estimator's attention: 8 heads of 64, 8 blocks at full length, 56 at half, two passes."""
    half = (frames + 1) // 2
    full_blocks, half_blocks = 4 + 4, 4 + 12 * 4 + 4
    one = 4.0 * 8 * WIDTH * (full_blocks * frames**2 + half_blocks * half**2)
    return 2 * steps * one / 1e9


def limit_s(flop: dict[str, float], rate: dict[str, float]) -> float:
    """Seconds that so much work takes at these rates."""
    return sum(flop[name] / rate[name] for name in flop)
