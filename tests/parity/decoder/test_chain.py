"""Flow and vocoder together: audio ids in, the reference's mel, pitch and wave out."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from stepaudio_runtime.models.flow import Flow, FlowItem
from stepaudio_runtime.models.hift import Hift

Close = Callable[..., None]


@torch.inference_mode()
def test_codes_to_wave(golden: Any, close: Close, load_flow: Callable[[str], Flow], hift: Hift) -> None:
    flow, want = load_flow("chain"), golden.tensors("chain")

    names = ("token", "prompt_token", "prompt_feat", "embedding")
    item = FlowItem(*(want[f"in.{name}"][0] for name in names))
    mel = flow.solve([item], [want["in.z"][0]])[0][None]
    close(mel, want["out.mel"], 1e-4, "mel")
    close(hift.f0_predictor(want["out.mel"]), want["out.f0"], 5e-3, "f0")
    wave = hift(mel, hift.random(mel.shape[2], None))
    close(wave, want["out.wave"], 5e-3, "wave")
    assert (wave - want["out.wave"]).norm() <= 1e-2 * want["out.wave"].norm()
