"""The Triton kernels of the speech models compute torch's formulas (interpreted here, compiled on a GPU)."""

from tests.interpreted import interpreted, needs_triton

PROGRAM = """
import torch
from torch import nn
from torch.nn import functional as F
from stepaudio_runtime.checkpoints.random_weights import RandomWeights
from stepaudio_runtime.models import fused, fused_attention, kernels
from stepaudio_runtime.models.estimator import ConditionalDecoder, EstimatorConfig

random = torch.Generator().manual_seed(0)
def normal(*shape):
    return torch.randn(*shape, generator=random)

worst = {}
def compare(what, got, expected):
    assert got.shape == expected.shape, what
    worst[what] = max(worst.get(what, 0.0), float((got - expected).abs().max()))

with torch.inference_mode():
    for batch, width, groups, frames in ((1, 16, 8, 1), (3, 16, 8, 37), (2, 32, 4, 70)):
        x = 3 * normal(batch, frames, width) + 1
        ends = torch.randint(1, frames + 1, (batch, 1, 1), generator=random)
        mask = (torch.arange(frames) < ends).float()
        weight, bias, add = normal(40, width), normal(40), normal(batch, frames, 40)
        norm = nn.LayerNorm(width)
        norm.weight.copy_(normal(width)); norm.bias.copy_(normal(width))
        compare("linear", fused.linear(x, weight, bias), F.linear(x, weight, bias))
        compare("linear, added", fused.linear(x, weight, bias, add=add), add + F.linear(x, weight, bias))
        compare("norm, linear", fused.linear(x, weight, None, norm=norm), F.linear(norm(x), weight))
        gelu = F.gelu(F.linear(norm(x), weight, bias))
        compare("norm, linear, gelu", fused.linear(x, weight, bias, norm=norm, gelu=True), gelu)
        taps = normal(24, width, 3)
        for given in (None, mask):
            held = x.mT if given is None else x.mT * given
            conv = F.conv1d(held, taps, bias[:24], padding=1).mT
            compare("convolution", fused.convolve(x, taps.permute(2, 0, 1), bias[:24], given), conv)
            gn, shift = nn.GroupNorm(groups, width, eps=1e-5), normal(batch, width)
            gn.weight.copy_(normal(width)); gn.bias.copy_(normal(width))
            expected = F.mish(kernels.group_norm(x.mT, gn, given)) + shift[:, :, None]
            compare("group norm, mish", fused.group_norm_mish(x, gn, given, shift), expected.mT)
        joint = normal(batch, frames, 96).split(32, -1)
        q, k, v = (part.unflatten(-1, (2, 16)).transpose(1, 2) for part in joint)
        for keys in (None, mask[:, None].log()):
            got = fused_attention.attend(q, k, v, keys)
            expected = F.scaled_dot_product_attention(q, k, v, attn_mask=keys)
            compare("attention", got, expected)
        alpha = torch.rand(width, generator=random)
        compare("snake", fused.snake(x.mT, alpha), kernels.snake(x.mT, alpha))
    config = EstimatorConfig(40, 10, (16, 16), 16, 1, 1, 2)
    estimator = ConditionalDecoder(config).eval()
    estimator.load_state_dict(RandomWeights(0, "flow").fill(estimator))
    x, spks, time = normal(3, 10, 21), normal(3, 10), torch.tensor([0.1, 0.5, 0.9])
    for masks in (None, estimator.masks((21, 4, 17), like=x)):
        kernels.FUSED.clear()
        expected = estimator(x, x, time, spks, x, masks)
        kernels.FUSED.add(("cpu", torch.float32))
        estimator.fuse()
        got = estimator(x, x, time, spks, x, masks)
        ends = torch.ones(3, 1, 21) if masks is None else masks[0]
        compare("the estimator", got * ends, expected * ends)
for what, off in worst.items():
    print(f"{off:.1e} {what}")
"""


@needs_triton
def test_kernels_are_the_formulas() -> None:
    lines = interpreted(PROGRAM).splitlines()
    found = {what: float(off) for off, what in (line.split(" ", 1) for line in lines)}
    assert len(found) == 9
    assert max(found.values()) <= 1e-4, found
