"""A small random Step-1 folder, the plain torch reference of the model, and an in-process engine."""

import contextlib
import gc
import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

# Before vLLM is imported: one process, no network, nothing reported anywhere.
os.environ.setdefault("VLLM_ENABLE_V1_MULTIPROCESSING", "0")
os.environ.setdefault("VLLM_CPU_KVCACHE_SPACE", "1")
os.environ.setdefault("VLLM_NO_USAGE_STATS", "1")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("VLLM_LOGGING_LEVEL", "WARNING")
# vLLM compiles its logprob helpers with g++ on first use: seconds, and nothing that is tested here.
os.environ.setdefault("TORCHDYNAMO_DISABLE", "1")

VOCABULARY = 512
HEAD_SIZE = 32


def write_step1(folder: Path, heads: int, groups: int, layers: int = 2, **changes: Any) -> Path:
    """Write a Step-1 model with random float32 weights; `changes` go into its config.json."""
    hidden, inner = heads * HEAD_SIZE, heads * 48
    config = {
        "architectures": ["Step1ForCausalLM"],
        "model_type": "step1",
        "vocab_size": VOCABULARY,
        "hidden_size": hidden,
        "intermediate_size": inner,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "num_attention_groups": groups,
        "max_seq_len": 1024,
        "rms_norm_eps": 1e-5,
        "bos_token_id": 1,
        "eos_token_id": 3,
        "pad_token_id": 0,
        "tie_word_embeddings": False,
        "torch_dtype": "float32",
    }
    random = torch.Generator().manual_seed(heads)

    def weight(rows: int, columns: int, scale: float = 1.0) -> torch.Tensor:
        return torch.randn(rows, columns, generator=random) * scale / columns**0.5

    tensors = {
        "model.embed_tokens.weight": torch.randn(VOCABULARY, hidden, generator=random),
        "lm_head.weight": weight(VOCABULARY, hidden, 3.0),
        "model.norm.weight": 1 + 0.1 * torch.randn(hidden, generator=random),
    }
    for layer in range(layers):
        at = f"model.layers.{layer}."
        tensors |= {
            # Large queries, so that the attention is far from uniform and its bias matters.
            at + "self_attn.q_proj.weight": weight(hidden, hidden, 2.0),
            at + "self_attn.k_proj.weight": weight(groups * HEAD_SIZE, hidden),
            at + "self_attn.v_proj.weight": weight(groups * HEAD_SIZE, hidden),
            at + "self_attn.o_proj.weight": weight(hidden, hidden),
            at + "mlp.gate_proj.weight": weight(inner, hidden),
            at + "mlp.up_proj.weight": weight(inner, hidden),
            at + "mlp.down_proj.weight": weight(hidden, inner),
            at + "input_layernorm.weight": 1 + 0.1 * torch.randn(hidden, generator=random),
            at + "post_attention_layernorm.weight": 1 + 0.1 * torch.randn(hidden, generator=random),
        }
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(config | changes))
    save_file(tensors, folder / "model.safetensors")
    return folder


class Step1Reference:
    """Step-1 written out in plain torch float32: no cache, no batch, the bias as a matrix."""

    def __init__(self, folder: Path, power: float = 0.5) -> None:
        self.config = json.loads((folder / "config.json").read_text())
        self.weights = load_file(folder / "model.safetensors")
        self.power = power  # of the distance in the bias; 1 would be ordinary ALiBi

    def logprobs(self, ids: list[int]) -> torch.Tensor:
        """ids (n) -> (n, vocabulary) log probabilities of the next token after each."""
        w, heads = self.weights, self.config["num_attention_heads"]
        groups, n = self.config["num_attention_groups"], len(ids)
        distance = (torch.arange(n)[:, None] - torch.arange(n)).float()
        bias = -self.slopes(heads)[:, None, None] * distance.clamp(min=0) ** self.power
        bias = bias.masked_fill(distance < 0, float("-inf"))
        x = w["model.embed_tokens.weight"][torch.tensor(ids)]
        for layer in range(self.config["num_hidden_layers"]):
            at = f"model.layers.{layer}."
            h = self.norm(x, w[at + "input_layernorm.weight"])
            q, k, v = (
                (h @ w[f"{at}self_attn.{name}_proj.weight"].T).view(n, count, -1).transpose(0, 1)
                for name, count in (("q", heads), ("k", groups), ("v", groups))
            )
            k, v = (t.repeat_interleave(heads // groups, dim=0) for t in (k, v))
            attended = torch.softmax(q @ k.mT / q.shape[-1] ** 0.5 + bias, dim=-1) @ v
            x = x + attended.transpose(0, 1).reshape(n, -1) @ w[at + "self_attn.o_proj.weight"].T
            h = self.norm(x, w[at + "post_attention_layernorm.weight"])
            gate, up = (h @ w[f"{at}mlp.{name}_proj.weight"].T for name in ("gate", "up"))
            x = x + (torch.nn.functional.silu(gate) * up) @ w[at + "mlp.down_proj.weight"].T
        return torch.log_softmax(self.norm(x, w["model.norm.weight"]) @ w["lm_head.weight"].T, dim=-1)

    def norm(self, x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
        return x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + self.config["rms_norm_eps"]) * weight

    @staticmethod
    def slopes(heads: int) -> torch.Tensor:
        n = 2 ** (heads.bit_length() - 1)
        first = [2 ** (-8 * h / n) for h in range(1, n + 1)]
        return torch.tensor(first + [2 ** (-4 * (2 * r - 1) / n) for r in range(1, heads - n + 1)])

    def greedy(self, ids: list[int], count: int) -> list[int]:
        answer: list[int] = []
        for _ in range(count):
            answer.append(int(self.logprobs([*ids, *answer])[-1].argmax()))
        return answer


def prompt_ids(length: int, seed: int) -> list[int]:
    return torch.randint(4, VOCABULARY, (length,), generator=torch.Generator().manual_seed(seed)).tolist()


@contextlib.contextmanager
def running(folder: Path, **options: Any) -> Iterator[Any]:
    """A vLLM engine in this process; float32, eager, all log probabilities on request."""
    from vllm import LLM

    llm = LLM(
        str(folder),
        **{
            "skip_tokenizer_init": True,
            "dtype": "float32",
            "enforce_eager": True,
            "max_model_len": 512,
            "max_logprobs": VOCABULARY,
            "max_num_seqs": 8,
            "block_size": 32,
            "disable_log_stats": True,
        }
        | options,
    )
    try:
        yield llm
    finally:
        llm.llm_engine.engine_core.shutdown()
        del llm
        gc.collect()


@pytest.fixture(scope="session")
def step1_folder(tmp_path_factory: pytest.TempPathFactory) -> Callable[[int, int], Path]:
    """Folder of the model with this many heads and groups, written once."""
    root = tmp_path_factory.mktemp("step1")

    def folder(heads: int, groups: int) -> Path:
        path = root / f"{heads}-{groups}"
        return path if path.exists() else write_step1(path, heads, groups)

    return folder
