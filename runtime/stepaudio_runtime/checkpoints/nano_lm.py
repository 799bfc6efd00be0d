"""The nano preset's language models: Step-1 folders of a few million weights.

Random ones: one direction of the residual stream is constant, and the output layer uses it as a bias: it
makes the chat model speak text and the TTS model audio codes, and both end their turn after a while.
"""

from __future__ import annotations

import json
import math
from pathlib import Path
from statistics import NormalDist
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import save_file
from torch import Tensor

from stepaudio_runtime.checkpoints import layout
from stepaudio_runtime.checkpoints.nano_vocabulary import FIRST_TEXT_ID, PIECES, vocabulary
from stepaudio_runtime.checkpoints.random_weights import RandomWeights
from stepaudio_runtime.contract import AUDIO_CODES, SENTENCES_KEY
from stepaudio_runtime.models.step1 import Step1Config

LM = Step1Config(
    vocab_size=PIECES + AUDIO_CODES,
    hidden_size=192,
    intermediate_size=512,
    num_hidden_layers=4,
    num_attention_heads=6,
    num_attention_groups=2,
)
HIDDEN, INNER, VOCABULARY = LM.hidden_size, LM.intermediate_size, LM.vocab_size
LAYERS, HEADS, GROUPS = LM.num_hidden_layers, LM.num_attention_heads, LM.num_attention_groups
CONTEXT = 4096
END_OF_TURN = 3
_CONSTANT = 4.0  # of the residual stream's first value; the other values are near 1
_CONSTANT_NORMED = 3.2  # what the last norm makes of it (measured)
_CHAT_TOKENS, _SPEECH_CODES = 24, 120  # mean lengths of an answer at temperature 0.7
_TEMPERATURE = 0.7
_SPREAD = 2.5  # standard deviation of the logits: enough that the likeliest token is rarely the end
_NEVER = -20.0  # logit


def random_lm(seed: int, role: Literal["chat", "tts"]) -> dict[str, Tensor]:
    """Random weights that speak their role's modality and end."""
    return _weights(RandomWeights(seed, role), role)


def write_lm(folder: Path, weights: dict[str, Tensor], sentences_at_once: int | None = None) -> None:
    """Write `config.json`, weights, vocabulary and tokenizer configuration of one model."""
    folder.mkdir(parents=True, exist_ok=True)
    bound = {} if sentences_at_once is None else {SENTENCES_KEY: sentences_at_once}
    _write_json(folder / layout.LM_CONFIG, _config() | bound)
    save_file(weights, folder / layout.LM_SINGLE, metadata={"format": "pt"})
    (folder / layout.LM_VOCABULARY).write_bytes(vocabulary())
    _write_json(folder / "tokenizer_config.json", _tokenizer_config())


def _write_json(path: Path, value: dict[str, Any]) -> None:
    path.write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def _config() -> dict[str, Any]:
    return {
        "architectures": ["Step1ForCausalLM"],
        "model_type": "step1",
        "vocab_size": VOCABULARY,
        "audio_token_offset": PIECES,
        "hidden_size": HIDDEN,
        "intermediate_size": INNER,
        "num_hidden_layers": LAYERS,
        "num_attention_heads": HEADS,
        "num_attention_groups": GROUPS,
        "max_seq_len": CONTEXT,
        "max_position_embeddings": CONTEXT,
        "rms_norm_eps": LM.rms_norm_eps,
        "bos_token_id": 1,
        "eos_token_id": END_OF_TURN,
        "pad_token_id": 0,
        "tie_word_embeddings": False,
        "torch_dtype": "bfloat16",
    }


def _tokenizer_config() -> dict[str, Any]:
    return {
        "add_bos_token": False,
        "add_eos_token": False,
        "bos_token": "<s>",
        "eos_token": "<|EOT|>",
        "unk_token": "<unk>",
        "pad_token": "<unk>",
        "model_max_length": CONTEXT,
        "clean_up_tokenization_spaces": False,
        "tokenizer_class": "LlamaTokenizer",
    }


def _weights(weights: RandomWeights, role: Literal["chat", "tts"]) -> dict[str, Tensor]:
    def linear(name: str, out: int, size_in: int, gain: float = 1.0) -> NDArray[np.float32]:
        return weights.array(name, out, size_in, std=gain / math.sqrt(size_in))

    def into_stream(name: str, size_in: int) -> NDArray[np.float32]:
        matrix = linear(name, HIDDEN, size_in, gain=0.5)
        matrix[0] = 0  # leaves the constant alone
        return matrix

    kv = HIDDEN // HEADS * GROUPS
    embeddings = weights.array("model.embed_tokens.weight", VOCABULARY, HIDDEN)
    embeddings[:, 0] = _CONSTANT
    arrays = {"model.embed_tokens.weight": embeddings, "model.norm.weight": np.ones(HIDDEN, np.float32)}
    for layer in range(LAYERS):
        p = f"model.layers.{layer}"
        arrays |= {
            f"{p}.input_layernorm.weight": np.ones(HIDDEN, np.float32),
            f"{p}.post_attention_layernorm.weight": np.ones(HIDDEN, np.float32),
            f"{p}.self_attn.q_proj.weight": linear(f"{p}.q", HIDDEN, HIDDEN),
            f"{p}.self_attn.k_proj.weight": linear(f"{p}.k", kv, HIDDEN),
            f"{p}.self_attn.v_proj.weight": linear(f"{p}.v", kv, HIDDEN),
            f"{p}.self_attn.o_proj.weight": into_stream(f"{p}.o", HIDDEN),
            f"{p}.mlp.gate_proj.weight": linear(f"{p}.gate", INNER, HIDDEN),
            f"{p}.mlp.up_proj.weight": linear(f"{p}.up", INNER, HIDDEN),
            f"{p}.mlp.down_proj.weight": into_stream(f"{p}.down", INNER),
        }
    head = linear("lm_head.weight", VOCABULARY, HIDDEN, gain=_SPREAD)
    head[:, 0] = _biases(role) / _CONSTANT_NORMED
    head[END_OF_TURN, 1:] = 0  # the same chance at every step, whatever was said
    arrays["lm_head.weight"] = head
    return {name: torch.from_numpy(array).bfloat16() for name, array in arrays.items()}


def _biases(role: Literal["chat", "tts"]) -> NDArray[np.float32]:
    """Logits that the constant adds: one modality free, the rest never, end of turn by the mean length."""
    biases = np.full(VOCABULARY, _NEVER, np.float32)
    spoken = slice(FIRST_TEXT_ID, PIECES) if role == "chat" else slice(PIECES, VOCABULARY)
    biases[spoken] = 0
    mean_length = _CHAT_TOKENS if role == "chat" else _SPEECH_CODES
    # The others' logits are normally distributed: their quantiles tell what they weigh together.
    count = spoken.stop - spoken.start
    quantiles = [NormalDist(sigma=_SPREAD).inv_cdf((i + 0.5) / count) for i in range(count)]
    weight = sum(math.exp(logit / _TEMPERATURE) for logit in quantiles)
    biases[END_OF_TURN] = _TEMPERATURE * math.log(weight / mean_length)
    return biases
