"""The golden vectors on a device: how far each tensor is off, and what is allowed."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor

from stepaudio_runtime.models.flow import FlowItem
from stepaudio_runtime.models.flow_graphs import FlowGraphs
from stepaudio_runtime.models.hift_source import SourceNoise
from stepaudio_runtime.models.sanm import SanmConfig, SanmModel
from stepaudio_runtime.models.semantic import SemanticConfig, SemanticModel
from tests.parity.small_models import small_flow, small_hift

GOLDEN = Path(__file__).parents[1] / "parity" / "golden"


@dataclass(frozen=True)
class Check:
    """One tensor: the largest difference, and the README's bound."""

    what: str
    off: float
    allow: float

    @property
    def holds(self) -> bool:
        """False for NaN too."""
        return self.off <= self.allow


@torch.inference_mode()
def checks(device: torch.device) -> list[Check]:
    """All of them. TF32 is off: it rounds to ten bits."""
    torch.backends.cuda.matmul.allow_tf32 = False
    torch.backends.cudnn.allow_tf32 = False
    return [*_flow(device), *_vocoder(device), *_tokenizers(device)]


def _flow(device: torch.device) -> Iterator[Check]:
    sizes, weights = _sizes()["flow"], _tensors("flow_weights")
    for file in ("flow_prompt", "flow_noprompt"):
        flow, want = small_flow(sizes, weights, file).to(device), _tensors(file)
        names = ("token", "prompt_token", "prompt_feat", "embedding")
        item = FlowItem(*(want[f"in.{name}"][0].to(device) for name in names))
        noise = want["in.z"][0].to(device)
        condition = flow.prepare([item])
        yield _check(f"{file} mu", condition.mu, want["out.mu"], 5e-5)
        yield _check(f"{file} spks", condition.spks, want["out.spks"], 5e-5)
        yield _check(f"{file} mel", flow.solve([item], [noise])[0][None], want["out.mel"], 1e-4)
        short = FlowItem(item.ids[:-3], item.prompt_ids, item.prompt_mel, item.embedding)
        frames = flow.frames(len(short.ids)) + len(short.prompt_mel)
        together = flow.solve([item, short], [noise, noise[:, :frames]])
        yield _check(f"{file} mel in a batch", together[0][None], want["out.mel"], 1e-4)
        alone = flow.solve([short], [noise[:, :frames]])[0]
        yield _check(f"{file} the shorter one in a batch", together[1], alone.cpu(), 1e-4)
        flow.graphs = FlowGraphs(flow)
        for again in range(2):
            mel = flow.solve([item], [noise])[0][None]
            yield _check(f"{file} mel by graphs, {again + 1}", mel, want["out.mel"], 1e-4)
        yield _check(
            f"{file} the shorter one by graphs",
            flow.solve([short], [noise[:, :frames]])[0],
            alone.cpu(),
            1e-4,
        )
        flow.decoder.estimator.to(torch.bfloat16).fuse()
        flow.graphs = FlowGraphs(flow)
        for name, graphs in (("eager", None), ("by graphs", FlowGraphs(flow))):
            flow.graphs = graphs
            off = flow.solve([item], [noise])[0][None].cpu() - want["out.mel"]
            share = off.square().mean().sqrt() / want["out.mel"].square().mean().sqrt()
            yield Check(f"{file} mel in bfloat16, {name}: relative rms", float(share), 0.04)


def _vocoder(device: torch.device) -> Iterator[Check]:
    hift = small_hift(_sizes()["hift"], _tensors("hift_weights")).to(device)
    for file in ("hift_quiet", "hift_noise"):
        want = {name: tensor.to(device) for name, tensor in _tensors(file).items()}
        zero = hift.random(want["in.mel"].shape[2], None)
        random = SourceNoise(want.get("in.phase", zero.phase), want.get("in.noise", zero.noise))
        yield _check(f"{file} f0", hift.f0_predictor(want["in.mel"]), want["out.f0"], 5e-3)
        source = hift.m_source(hift.upsampled(want["out.f0"]), random)
        yield _check(f"{file} source", source, want["out.source"], 5e-4)
        wave = hift.decode(want["in.mel"], want["out.source"])
        yield _check(f"{file} wave", wave, want["out.wave"], 2e-5)


def _tokenizers(device: torch.device) -> Iterator[Check]:
    sizes, weights = dict(_sizes()["sanm"]), _tensors("sanm_weights")
    sanm = SanmModel(SanmConfig(**{**sizes, "chunk_size": tuple(sizes["chunk_size"])})).eval()
    sanm.load_state_dict({key: value for key, value in weights.items() if key.startswith("encoder.")})
    want = _tensors("sanm")
    rows = sanm.to(device).encode(want["out.online_feats"][0].to(device))
    yield _check("linguistic encoder", rows[None], want["out.encoder"], 5e-5)
    weights = _tensors("s3tok_weights")
    config = SemanticConfig(
        n_mels=weights["encoder.conv1.weight"].shape[1],
        n_audio_ctx=len(weights["encoder.positional_embedding"]),
        **_sizes()["s3tok"],
    )
    semantic = SemanticModel(config).eval()
    semantic.load_state_dict(weights)
    want = _tensors("s3tok")
    for name in sorted(name for name in want if name.endswith("in.mel")):
        hidden = semantic.to(device)([want[name][0].to(device)])[0]
        yield _check(
            f"semantic encoder, {name}", hidden[None], want[name.replace("in.mel", "out.hidden")], 5e-5
        )


def _check(what: str, found: Tensor, expected: Tensor, allow: float) -> Check:
    if found.shape != expected.shape:
        return Check(f"{what}: shape {tuple(found.shape)}, not {tuple(expected.shape)}", float("inf"), allow)
    return Check(what, float((found.cpu().double() - expected.cpu().double()).abs().max()), allow)


def _sizes() -> dict:
    return json.loads((GOLDEN / "configs.json").read_text())


def _tensors(stem: str) -> dict[str, Tensor]:
    return load_file(GOLDEN / f"{stem}.safetensors")
