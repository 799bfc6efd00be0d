"""vLLM's Triton kernel, which serves Step-1 on CUDA, computes the sqrt-ALiBi bias (interpreted here)."""

import importlib.util
import os
import subprocess
import sys

import pytest

# In a process of its own: TRITON_INTERPRET must be set before Triton is imported, and vLLM's CPU build
# disables Triton where no device drives it, which the interpreter does not need.
PROGRAM = """
import vllm.platforms
vllm.platforms.vllm_version_matches_substr = lambda name: False
vllm.platforms.current_platform.is_cpu()
import torch
from vllm.v1.attention.ops.triton_unified_attention import unified_attention

HEADS, GROUPS, SIZE, BLOCK = 12, 4, 32, 16
slopes = torch.tensor([2.0**-h for h in range(1, 9)] + [2.0 ** -(r - 0.5) for r in range(1, 5)])
new, total = [1, 5, 20], [38, 16, 20]  # query tokens and keys of three requests
blocks = [-(-n // BLOCK) for n in total]
torch.manual_seed(0)
keys, values = (torch.randn(sum(blocks), BLOCK, GROUPS, SIZE) for _ in range(2))
order = torch.randperm(sum(blocks)).int()
table = torch.zeros(3, max(blocks), dtype=torch.int32)
for row, part in enumerate(order.split(blocks)):
    table[row, : len(part)] = part
query, out = torch.randn(sum(new), HEADS, SIZE), torch.empty(sum(new), HEADS, SIZE)
starts = torch.tensor([0, *new]).cumsum(0).int()
scales = torch.ones(3, GROUPS)
unified_attention(
    q=query, k=keys, v=values, out=out, cu_seqlens_q=starts, max_seqlen_q=max(new),
    seqused_k=torch.tensor(total).int(), max_seqlen_k=max(total), softmax_scale=SIZE**-0.5, causal=True,
    window_size=(-1, -1), block_table=table, softcap=0, q_descale=None, k_descale=scales, v_descale=scales,
    alibi_slopes=slopes, use_alibi_sqrt=True,
)
worst = {0.5: 0.0, 1.0: 0.0}
for row in range(3):
    q = query[starts[row] : starts[row + 1]].double().transpose(0, 1)
    rows = table[row, : blocks[row]].long()
    k, v = (t[rows].flatten(0, 1)[: total[row]].double().transpose(0, 1) for t in (keys, values))
    k, v = (t.repeat_interleave(HEADS // GROUPS, 0) for t in (k, v))
    gap = (torch.arange(total[row] - new[row], total[row])[:, None] - torch.arange(total[row])).double()
    for power in worst:
        bias = (-slopes.double()[:, None, None] * gap.clamp(min=0) ** power).masked_fill(gap < 0, -torch.inf)
        exact = torch.softmax(q @ k.mT / SIZE**0.5 + bias, -1) @ v
        error = (out[starts[row] : starts[row + 1]].transpose(0, 1) - exact).abs().max().item()
        worst[power] = max(worst[power], error)
print("RESULT", worst[0.5], worst[1.0])
"""


@pytest.mark.skipif(importlib.util.find_spec("triton") is None, reason="triton is not installed (CUDA only)")
def test_kernel_equals_float64() -> None:
    environment = os.environ | {"TRITON_INTERPRET": "1", "CUDA_VISIBLE_DEVICES": "", "VLLM_PLUGINS": ""}
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", PROGRAM],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    _, sqrt_error, linear_error = done.stdout.splitlines()[-1].split()
    assert float(sqrt_error) < 1e-5
    assert float(linear_error) > 1e-2
