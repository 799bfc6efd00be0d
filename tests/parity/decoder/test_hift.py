"""The vocoder gives the reference's wave; in pieces, since phases amplify the last bits of the pitch.

Pitch from the mel, source from the stored pitch, layers and wave from the stored source.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from stepaudio_runtime.models.hift import Hift
from stepaudio_runtime.models.hift_source import SourceNoise
from stepaudio_runtime.models.weight_norm import fold_weight_norm

Close = Callable[..., None]
Tensors = dict[str, Tensor]


def randomness(hift: Hift, want: Tensors) -> SourceNoise:
    zero = hift.random(want["in.mel"].shape[2], None)
    return SourceNoise(want.get("in.phase", zero.phase), want.get("in.noise", zero.noise))


@pytest.mark.parametrize("file", ["hift_quiet", "hift_noise"])
@torch.inference_mode()
def test_pitch_source_and_wave(golden: Any, close: Close, hift: Hift, file: str) -> None:
    want = golden.tensors(file)
    close(hift.f0_predictor(want["in.mel"]), want["out.f0"], 5e-3, "f0")

    f0, random = hift.upsampled(want["out.f0"]), randomness(hift, want)
    close(hift.m_source.sines(f0, random), want["out.sine"], 5e-4, "sine")
    close(hift.m_source(f0, random), want["out.source"], 5e-4, "source")

    close(hift.decode(want["in.mel"], want["out.source"]), want["out.wave"], 2e-5, "wave from the source")
    wave = hift(want["in.mel"], random)
    close(wave, want["out.wave"], 5e-3, "wave from the mel")
    assert (wave - want["out.wave"]).norm() <= 1e-2 * want["out.wave"].norm()


@torch.inference_mode()
def test_layers(golden: Any, close: Close, hift: Hift) -> None:
    want = golden.tensors("hift_quiet")
    stages = range(len(hift.ups))
    modules = {"conv_pre": "conv_pre", "conv_post": "conv_post"}
    modules |= {f"resblock_{i}": f"resblocks.{i}" for i in range(len(hift.resblocks))}
    for i in stages:
        modules[f"up_{i}"] = f"ups.{i}"
        modules[f"source_down_{i}"] = f"source_downs.{i}"
        modules[f"source_res_{i}"] = f"source_resblocks.{i}"
    seen: Tensors = {}
    for name, module in modules.items():

        def keep(_module: nn.Module, _args: object, output: Tensor, name: str = name) -> None:
            seen[name] = output

        hift.get_submodule(module).register_forward_hook(keep)
    hift.decode(want["in.mel"], want["out.source"])
    seen["magnitude"], seen["phase"] = hift.to_spectrum(seen["conv_post"])

    close(hift.source_stft(want["out.source"]), want["out.source_stft"], 1e-5, "source_stft")
    expected = {name.removeprefix("out.") for name in want if name.startswith("out.")}
    elsewhere = {"f0", "sine", "source", "source_stft", "wave", "decode_wave", "uv_sum"}
    assert expected - elsewhere <= seen.keys()
    for name in expected - elsewhere:
        close(seen[name], want[f"out.{name}"], 1e-4, name)


@torch.inference_mode()
def test_voiced_samples(golden: Any, hift: Hift) -> None:
    want = golden.tensors("hift_quiet")
    voiced = hift.upsampled(want["out.f0"]) > hift.config.nsf_voiced_threshold
    assert voiced.sum().float() == want["out.uv_sum"][0]


@torch.inference_mode()
def test_decode_with_a_given_source(golden: Any, close: Close, hift: Hift) -> None:
    want = golden.tensors("hift_quiet")
    close(hift.decode(want["in.mel"], want["in.decode_source"]), want["out.decode_wave"], 2e-5)


def test_both_forms_of_weight_norm(golden: Any) -> None:
    old = golden.tensors("hift_weights")
    new = {
        key.replace("weight_g", "parametrizations.weight.original0").replace(
            "weight_v", "parametrizations.weight.original1"
        ): tensor
        for key, tensor in old.items()
    }
    assert new.keys() != old.keys()
    from_old, from_new = fold_weight_norm(old), fold_weight_norm(new)
    assert from_old.keys() == from_new.keys()
    assert all(torch.equal(from_old[key], from_new[key]) for key in from_old)
