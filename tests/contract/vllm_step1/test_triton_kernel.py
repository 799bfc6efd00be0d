"""vLLM's Triton kernel, which serves Step-1 on CUDA, computes the sqrt-ALiBi bias (interpreted here)."""

from tests.interpreted import interpreted, needs_triton

# vLLM's CPU build disables Triton where no device drives it, which the interpreter does not need.
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


@needs_triton
def test_kernel_equals_float64() -> None:
    _, sqrt_error, linear_error = interpreted(PROGRAM).splitlines()[-1].split()
    assert float(sqrt_error) < 1e-5
    assert float(linear_error) > 1e-2
