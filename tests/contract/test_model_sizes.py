"""The operator's sizes of the models are those of the modules that the runtime loads them into."""

import torch
from torch import nn

from stepaudio_operator import names
from stepaudio_operator.gpus.model_sizes import FP32, SIZES
from stepaudio_operator.presets import STEP_AUDIO
from stepaudio_runtime.models.flow import Flow, FlowConfig
from stepaudio_runtime.models.hift import Hift, HiftConfig
from stepaudio_runtime.models.sanm import SanmConfig, SanmModel
from stepaudio_runtime.models.semantic import SemanticConfig, SemanticModel
from stepaudio_runtime.models.step1 import Step1, Step1Config


def parameters(*modules: nn.Module) -> int:
    return sum(tensor.numel() for module in modules for tensor in module.state_dict().values())


def test_language_models() -> None:
    for component in (names.CHAT, names.TTS):
        lm = SIZES[(STEP_AUDIO, component)].lm
        assert lm is not None
        with torch.device("meta"):
            model = Step1(Step1Config(lm.vocab, lm.hidden, lm.ffn, lm.layers, lm.heads, lm.groups))
        assert lm.parameters == parameters(model)


def test_the_models_beside_them() -> None:
    with torch.device("meta"):
        decoder = parameters(Flow(FlowConfig()), Hift(HiftConfig())) * FP32
        linguistic = parameters(SanmModel(SanmConfig())) * FP32
        semantic = parameters(SemanticModel(SemanticConfig())) * FP32
    beside = {component: sizes.beside for (_, component), sizes in SIZES.items() if sizes.beside}
    assert {component: list(sizes.values()) for component, sizes in beside.items()} == {
        names.TTS: [decoder, decoder],
        names.TOKENIZER: [linguistic, semantic],
    }
