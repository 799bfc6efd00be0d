"""The forms that a CPU computes fastest give what torch's own operators give, in any layout, at any length.

The golden models are too small for some of them to be taken at all.
"""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional as F

from stepaudio_runtime.models.kernels import (
    Conv1d,
    ConvTranspose1d,
    Linear,
    attend,
    group_norm,
    joined,
    snake,
)

LONG = 800  # frames; scores of so many are made in more than one piece


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("frames", [1, 255, 257, LONG])
@pytest.mark.parametrize("known", [None, 0.6])
@torch.inference_mode()
def test_attention(dtype: torch.dtype, frames: int, known: float | None) -> None:
    q, k, v = (normal(2, frames, 3, 16, seed=i).transpose(1, 2) for i in range(3))
    keys = None
    if known is not None:
        ends = torch.tensor([frames, math.ceil(known * frames)])
        keys = torch.arange(frames)[None, None, None] < ends[:, None, None, None]
    expected = F.scaled_dot_product_attention(q.double(), k.double(), v.double(), attn_mask=keys)
    found = attend(q.to(dtype), k.to(dtype), v.to(dtype), keys)
    assert (found.shape, found.dtype) == (q.shape, dtype)
    assert (found - expected).abs().max() <= (2e-6 if dtype is torch.float32 else 5e-2)


@settings(max_examples=30, deadline=None)
@given(
    batch=st.integers(1, 3),
    frames=st.integers(1, 40),
    kernel=st.sampled_from([1, 3, 7, 11]),
    dilation=st.sampled_from([1, 3, 5]),
    stride=st.sampled_from([1, 2]),
    laid_out=st.booleans(),
)
@torch.inference_mode()
def test_convolutions(
    batch: int, frames: int, kernel: int, dilation: int, stride: int, laid_out: bool
) -> None:
    padding = (kernel - 1) * dilation // 2
    forward = Conv1d(16, 24, kernel, stride, padding, dilation)
    back = ConvTranspose1d(16, 24, 2 * stride, stride, padding=stride // 2)
    x = normal(batch, 16, frames)
    for module, plain in ((forward, nn.Conv1d), (back, nn.ConvTranspose1d)):
        expected = plain.forward(module.double(), x.double())  # type: ignore[arg-type]
        found = module.float()(joined((x,)) if laid_out else x)
        assert found.shape == expected.shape
        assert (found - expected).abs().max() <= 1e-5


@settings(max_examples=20, deadline=None)
@given(batch=st.integers(1, 3), frames=st.integers(2, 300), masked=st.booleans())
@torch.inference_mode()
def test_what_goes_between_convolutions(batch: int, frames: int, masked: bool) -> None:
    x, norm = normal(batch, 32, frames), nn.GroupNorm(8, 32)
    mask = torch.ones(batch, 1, frames) if masked else None
    assert (group_norm(joined((x,)), norm, mask) - norm(x)).abs().max() <= 2e-5
    alpha = normal(32, seed=1)
    column = alpha.double()[:, None]
    bent = x + torch.sin(x * column).square() / (column + 1e-9)
    assert (snake(joined((x,)), alpha) - bent).abs().max() <= 1e-5
    assert torch.equal(joined((x[:, :5], x[:, 5:])), x)
    rows, linear = x.transpose(1, 2), Linear(32, 8)
    assert (linear(rows) - F.linear(rows, linear.weight, linear.bias)).abs().max() <= 1e-5


def test_a_long_snake_in_pieces() -> None:
    x, alpha = normal(1, 64, 5000), normal(64, seed=1)
    with torch.inference_mode():
        pieces = snake(joined((x,)), alpha)
    assert (pieces - snake(x, alpha)).abs().max() <= 1e-5  # with gradients: at once


def test_gradients_are_torch_s_own() -> None:
    x = normal(1, 16, 30).requires_grad_()
    y = snake(Conv1d(16, 16, 3, padding=1)(x), torch.ones(16))
    q = y.unflatten(1, (2, 8)).transpose(2, 3)
    attend(q, q, q, None).sum().backward()
    assert x.grad is not None
    assert x.grad.abs().sum() > 0
