"""The flow gives the reference's mel, and every tensor on the way to it.

Bounds are those of the golden README. Intermediate tensors are read with forward hooks, by the checkpoint's
own module names; the solver's states are its own steps.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from stepaudio_runtime.models.conformer import relative_positions
from stepaudio_runtime.models.estimator import time_sinusoid
from stepaudio_runtime.models.flow import Flow, FlowItem
from stepaudio_runtime.models.length_regulator import stretch

Close = Callable[..., None]
Tensors = dict[str, Tensor]


def record(model: nn.Module, *names: str) -> Tensors:
    """The outputs of the named modules, filled in when the model runs."""
    seen: Tensors = {}
    for name in names:

        def keep(_module: nn.Module, _args: object, output: Tensor, name: str = name) -> None:
            seen[name] = output

        model.get_submodule(name).register_forward_hook(keep)
    return seen


def item(golden: Tensors) -> FlowItem:
    names = ("token", "prompt_token", "prompt_feat", "embedding")
    return FlowItem(*(golden[f"in.{name}"][0] for name in names))


@pytest.mark.parametrize("file", ["flow_prompt", "flow_noprompt"])
@torch.inference_mode()
def test_condition_and_mel(golden: Any, close: Close, load_flow: Callable[[str], Flow], file: str) -> None:
    flow, want = load_flow(file), golden.tensors(file)
    layers = [f"encoder.encoders.{i}" for i in range(flow.config.encoder.num_blocks)]
    seen = record(flow, "input_embedding", "encoder.embed", *layers, "encoder", "encoder_proj")
    condition = flow.prepare([item(want)])
    mel = flow.solve([item(want)], [want["in.z"][0]])[0][None]

    got = {
        "token_emb": (seen["input_embedding"], 0),
        "embed_out": (seen["encoder.embed"], 1e-4),
        **{f"enc_layer_{i}": (seen[name], 1e-4) for i, name in enumerate(layers)},
        "enc_out": (seen["encoder"], 5e-5),
        "enc_proj": (seen["encoder_proj"], 5e-5),
        "spks": (condition.spks, 5e-5),
        "mu": (condition.mu, 5e-5),
        "mel": (mel, 1e-4),
    }
    if "out.pos_emb" in want:
        length, dim = seen["encoder.embed"].shape[1:]
        positions = relative_positions(length, dim, device=torch.device("cpu"), dtype=torch.float32)
        # Angles reach 100s of radians in float32, so the last bits of a table differ between machines.
        got["pos_emb"] = (positions, 5e-5)
    solver = {"out.x_steps", "out.t_steps", "out.v_cond", "out.v_uncond"}
    expected = {name.removeprefix("out.") for name in want if name.startswith("out.") and name not in solver}
    for name in expected - {"bf16_mu", "bf16_mel"}:
        close(*((got[name][0], want[f"out.{name}"], got[name][1], name)))
    assert condition.frames == (want["in.z"].shape[2],)
    assert not condition.cond[:, :, condition.prompt_frames[0] :].any()


@torch.inference_mode()
def test_solver_steps(golden: Any, close: Close, load_flow: Callable[[str], Flow]) -> None:
    flow, want = load_flow("flow_prompt"), golden.tensors("flow_prompt")
    condition = flow.prepare([item(want)])
    steps = list(flow.decoder.steps(want["in.z"], condition, steps=len(want["out.t_steps"])))
    close(torch.stack([step.t for step in steps]), want["out.t_steps"], 1e-6, "t_steps")
    close(torch.cat([step.x for step in steps]), want["out.x_steps"], 1e-4, "x_steps")
    close(torch.cat([step.v_cond for step in steps]), want["out.v_cond"], 3e-4, "v_cond")
    close(torch.cat([step.v_uncond for step in steps]), want["out.v_uncond"], 3e-4, "v_uncond")


@torch.inference_mode()
def test_bfloat16_stays_as_close_as_the_reference(golden: Any, load_flow: Callable[[str], Flow]) -> None:
    """The reference's own bfloat16 run is 2.4 % off; ours, of the estimator alone, is no worse."""
    flow, want = load_flow("flow_prompt"), golden.tensors("flow_prompt")
    flow.decoder.estimator.bfloat16()
    mel = flow.solve([item(want)], [want["in.z"][0]])[0]
    exact = want["out.mel"][0]
    theirs = (want["out.bf16_mel"][0] - exact).norm() / exact.norm()
    ours = (mel - exact).norm() / exact.norm()
    assert ours <= theirs, f"{ours:.4f} of the signal, the reference's own is {theirs:.4f}"


@torch.inference_mode()
def test_estimator(golden: Any, close: Close, load_flow: Callable[[str], Flow]) -> None:
    estimator = load_flow("flow_prompt").decoder.estimator
    want = golden.tensors("flow_estimator")
    levels = {
        "down": len(estimator.down_blocks),
        "mid": len(estimator.mid_blocks),
        "up": len(estimator.up_blocks),
    }
    last_block = estimator.config.n_blocks - 1
    modules = {"time_mlp": "time_mlp", "final_block": "final_block"}
    for kind, count in levels.items():
        for i in range(count):
            modules[f"{kind}_{i}.resnet"] = f"{kind}_blocks.{i}.0"
            modules[f"{kind}_{i}.transformer"] = f"{kind}_blocks.{i}.1.{last_block}"
            if kind != "mid":
                modules[f"{kind}_{i}.resample"] = f"{kind}_blocks.{i}.2"
    seen = record(estimator, *modules.values())
    velocity = estimator(*(want[f"in.{name}"] for name in ("x", "mu", "t", "spks", "cond")))
    got = {name: seen[module] for name, module in modules.items()}
    got["velocity"] = velocity
    got["time_sinusoid"] = time_sinusoid(want["in.t"], estimator.config.in_channels)

    expected = {name.removeprefix("out.") for name in want if name.startswith("out.")}
    assert expected <= got.keys()
    for name in expected:
        close(got[name], want[f"out.{name}"], 3e-4, name)


@pytest.mark.cases("length_regulator", r"\d+")
@torch.inference_mode()
def test_length_regulator(case: Tensors, close: Close, load_flow: Callable[[str], Flow]) -> None:
    regulator = load_flow("flow_prompt").length_regulator
    prompt_frames, frames = case["in.lens"].tolist()
    stretched = stretch(case["in.h1"][0], case["in.h2"][0], prompt_frames, frames)
    got = regulator(stretched[None], [prompt_frames + frames]).transpose(1, 2)
    close(got, case["out"], 5e-5)
