"""Both tokenizers at small sizes with random weights: quick, as sensitive to wrong numbers as large ones."""

import numpy as np
import pytest
import torch

from stepaudio_runtime.audio.frontend import Cmvn
from stepaudio_runtime.models.sanm import SanmConfig, SanmModel
from stepaudio_runtime.models.semantic import SemanticConfig, SemanticModel
from stepaudio_runtime.tokenizer.dual import DualTokenizer
from stepaudio_runtime.tokenizer.linguistic import LinguisticTokenizer
from stepaudio_runtime.tokenizer.semantic import SemanticTokenizer


def fill(model, seed):
    generator = torch.Generator().manual_seed(seed)
    for name, tensor in model.state_dict().items():
        norm = tensor.ndim == 1 and name.endswith("weight")
        tensor.copy_(torch.randn(tensor.shape, generator=generator) * 0.1 + float(norm))
    return model


@pytest.fixture(scope="session")
def randomised():
    """`randomised(model, seed)` gives `model` random weights."""
    return fill


@pytest.fixture(scope="session")
def linguistic():
    sizes = {"output_size": 24, "attention_heads": 3, "linear_units": 32, "num_blocks": 3}
    model = fill(SanmModel(SanmConfig(**sizes)), 1)
    cmvn = Cmvn(np.full(560, -8, np.float32), np.full(560, 0.1, np.float32))
    return LinguisticTokenizer(model, cmvn, torch.randn(64, 24, generator=torch.Generator().manual_seed(2)))


@pytest.fixture(scope="session")
def semantic():
    sizes = {"n_audio_state": 32, "n_audio_head": 4, "n_audio_layer": 2, "n_codebook_size": 50}
    return SemanticTokenizer(fill(SemanticModel(SemanticConfig(**sizes)), 3))


@pytest.fixture(scope="session")
def dual(linguistic, semantic):
    return DualTokenizer(linguistic, semantic)
