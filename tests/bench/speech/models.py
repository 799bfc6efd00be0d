"""The published sizes with random weights, and what they are asked for."""

from __future__ import annotations

from typing import TypeVar

import torch
from torch import Tensor, nn

from stepaudio_runtime.audio.frontend import Cmvn
from stepaudio_runtime.checkpoints.random_weights import RandomWeights
from stepaudio_runtime.models.flow import Flow, FlowConfig, FlowItem, noise_at
from stepaudio_runtime.models.hift import Hift, HiftConfig
from stepaudio_runtime.models.sanm import SanmConfig, SanmModel
from stepaudio_runtime.models.semantic import SemanticConfig, SemanticModel
from stepaudio_runtime.tokenizer.linguistic import LinguisticTokenizer
from stepaudio_runtime.tokenizer.semantic import SemanticTokenizer
from stepaudio_runtime.tts.decoder import Prompt

M = TypeVar("M", bound=nn.Module)

CODE_RATE = 41.67
PROMPT_S = 3.0
CPU = torch.device("cpu")


def new_flow() -> Flow:
    """105.4 M parameters."""
    return _filled(Flow(FlowConfig()), "flow")


def new_hift() -> Hift:
    """20.5 M parameters."""
    return _filled(Hift(HiftConfig()), "hift")


def new_linguistic() -> LinguisticTokenizer:
    """158 M parameters in its encoder."""
    config = SanmConfig()
    model = _filled(SanmModel(config), "sanm")
    centroids = RandomWeights(0, "sanm").tensor("centroids", 1024, config.output_size)
    zeros = torch.zeros(config.input_size).numpy()
    return LinguisticTokenizer(model, Cmvn(zeros, zeros + 0.1), centroids)


def new_semantic() -> SemanticTokenizer:
    """130.6 M parameters."""
    model = SemanticModel(SemanticConfig())
    weights = RandomWeights(0, "semantic")
    model.quantizer._codebook.embed = weights.tensor("embed", *model.quantizer._codebook.embed.shape)
    return SemanticTokenizer(_filled(model, "semantic"))


def codes(seconds: float, seed: int = 0) -> list[int]:
    """As many random codes as make so many seconds."""
    count = round(seconds * CODE_RATE)
    return torch.randint(0, 5120, (count,), generator=torch.Generator().manual_seed(seed)).tolist()


def voice(flow: Flow, seed: int = 9) -> Prompt:
    """A prompt of 3 s."""
    random = torch.Generator().manual_seed(seed)
    ids = codes(PROMPT_S, seed)
    mel = torch.randn(1, flow.frames(len(ids)), flow.config.output_size, generator=random)
    return Prompt(tuple(ids), mel, torch.randn(1, flow.config.spk_embed_dim, generator=random))


def item(flow: Flow, prompt: Prompt, ids: list[int]) -> tuple[FlowItem, Tensor]:
    """What the flow takes for one whole utterance, and its start noise."""
    asked = FlowItem(torch.tensor(ids), torch.tensor(prompt.codes), prompt.mel[0], prompt.embedding[0])
    return asked, noise_at(flow.config, 1, -prompt.mel.shape[1], flow.frames(len(ids)), CPU)


def _filled(module: M, scope: str) -> M:
    module.load_state_dict(RandomWeights(0, scope).fill(module), strict=False)
    return module.eval()
