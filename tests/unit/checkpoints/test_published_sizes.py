"""The default sizes are those of the published files: parameter counts, and a few shapes by key."""

from __future__ import annotations

import torch

from stepaudio_runtime.models.flow import Flow, FlowConfig
from stepaudio_runtime.models.hift import Hift, HiftConfig


def test_flow() -> None:
    with torch.device("meta"):
        state = Flow(FlowConfig()).state_dict()
    assert sum(tensor.numel() for tensor in state.values()) == 105_399_552
    assert state["decoder.estimator.down_blocks.0.0.block1.block.0.weight"].shape == (256, 320, 3)
    assert state["decoder.estimator.up_blocks.1.0.res_conv.weight"].shape == (256, 512, 1)
    assert state["encoder.encoders.5.self_attn.pos_bias_u"].shape == (8, 64)


def test_vocoder() -> None:
    with torch.device("meta"):
        hift = Hift(HiftConfig())
    state = hift.state_dict()
    # The published file stores one more number for each first axis of a weight-normed convolution.
    gains = sum(
        len(state[f"{name}.weight"])
        for name, part in hift.named_modules()
        if isinstance(part, torch.nn.Conv1d | torch.nn.ConvTranspose1d)
        and not name.startswith("source_downs")
    )
    assert sum(tensor.numel() for tensor in state.values()) + gains == 20_460_591
    assert state["ups.0.weight"].shape == (512, 256, 16)
    assert state["source_downs.1.weight"].shape == (128, 18, 1)
