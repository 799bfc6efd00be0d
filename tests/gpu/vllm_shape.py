"""The speech model that `vllm_on_device` starts on a GPU, and what the card holds."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

VOCABULARY, OFFSET, EOT = 74752, 65536, 3
PROMPT = 300  # ids: a voice of 3 s, its words, and a sentence
UTILIZATION = 0.6  # of the preset
SHAPE = {
    "architectures": ["Step1ForCausalLM"],
    "model_type": "step1",
    "vocab_size": VOCABULARY,
    "hidden_size": 3072,
    "intermediate_size": 8192,
    "num_hidden_layers": 32,
    "num_attention_heads": 48,
    "num_attention_groups": 4,
    "max_seq_len": 32768,
    "rms_norm_eps": 1e-5,
    "bos_token_id": 1,
    "eos_token_id": EOT,
    "pad_token_id": 0,
    "tie_word_embeddings": False,
    "torch_dtype": "bfloat16",
}
"""Step-Audio-TTS-3B, in the words of its config.json."""


def engine_options(folder: str, **changes: Any) -> dict[str, Any]:
    """As a TTS pod has them, but for the weights, which are made up."""
    Path(folder, "config.json").write_text(json.dumps(SHAPE))
    options = {
        "model": folder,
        "load_format": "dummy",
        "skip_tokenizer_init": True,
        "dtype": "bfloat16",
        "max_model_len": 8192,
        "gpu_memory_utilization": UTILIZATION,
        "generation_config": "vllm",
    }
    return options | changes


def mib(size: float) -> float:
    """Of bytes, to a tenth."""
    return round(size / 2**20, 1)


def used_mib() -> float:
    """Of the whole card, by all processes."""
    import torch

    free, total = torch.cuda.mem_get_info()
    return mib(total - free)
