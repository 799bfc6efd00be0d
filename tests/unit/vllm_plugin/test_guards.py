"""A Step-1 folder that vLLM would load wrongly is refused in one line that names the file and the cure."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from stepaudio_vllm import Step1ConfigError, check_model_folder

CONFIG: dict[str, Any] = {
    "model_type": "step1",
    "architectures": ["Step1ForCausalLM"],
    "vocab_size": 32,
    "hidden_size": 64,
    "intermediate_size": 64,
    "num_hidden_layers": 1,
    "num_attention_heads": 4,
    "num_attention_groups": 2,
    "tie_word_embeddings": False,
}
UNTIED = ("model.embed_tokens.weight", "lm_head.weight")
TIED = ("model.embed_tokens.weight",)


def folder(path: Path, config: dict[str, Any], names: tuple[str, ...] = UNTIED) -> Path:
    (path / "config.json").write_text(json.dumps({k: v for k, v in config.items() if v != "absent"}))
    if names:
        save_file({name: torch.zeros(1) for name in names}, path / "model.safetensors")
    return path


def refusal(path: Path) -> str:
    with pytest.raises(Step1ConfigError) as caught:
        check_model_folder(path)
    message = str(caught.value)
    assert "\n" not in message
    assert message.startswith(str(path))
    return message


@pytest.mark.parametrize(
    ("tied", "names", "verdict"),
    [
        (False, UNTIED, False),
        (True, TIED, True),
        ("absent", UNTIED, False),
        (None, UNTIED, False),
        (False, (), False),
        (True, (), True),
    ],
)
def test_tied_embeddings_are_settled(
    tmp_path: Path, tied: Any, names: tuple[str, ...], verdict: bool
) -> None:
    assert check_model_folder(folder(tmp_path, CONFIG | {"tie_word_embeddings": tied}, names)) is verdict


@pytest.mark.parametrize(
    ("tied", "names", "said"),
    [
        ("absent", TIED, "tie_word_embeddings is missing"),
        ("absent", (), "tie_word_embeddings is missing"),
        (True, UNTIED, "would load over the embeddings"),
        (False, TIED, "the weights hold no lm_head.weight"),
    ],
)
def test_contradictions_about_tied_embeddings(
    tmp_path: Path, tied: Any, names: tuple[str, ...], said: str
) -> None:
    assert said in refusal(folder(tmp_path, CONFIG | {"tie_word_embeddings": tied}, names))


def test_the_index_tells_of_sharded_weights(tmp_path: Path) -> None:
    folder(tmp_path, CONFIG | {"tie_word_embeddings": "absent"}, names=())
    index = {"weight_map": dict.fromkeys(UNTIED, "model-00001-of-00001.safetensors")}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index))
    assert check_model_folder(tmp_path) is False


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"alibi_slopes": [0.5, 0.25, 0.1, 0.05]}, "alibi_slopes is set"),
        ({"max_pos_interp_ratio": 4.0}, "max_pos_interp_ratio is 4.0"),
        ({"rope_theta": 10000.0}, "rope_theta is set"),
        ({"rope_scaling": {"rope_type": "yarn", "factor": 2.0}}, "rope_scaling is set"),
        ({"rope_parameters": {"rope_theta": 1e4, "rope_type": "default"}}, "rope_parameters is set"),
        ({"sliding_window": 512}, "sliding_window is set"),
        ({"hidden_act": "gelu"}, "hidden_act is 'gelu'"),
        ({"head_dim": 32}, "head_dim is 32"),
        ({"hidden_size": 66}, "hidden_size 66"),
        ({"vocab_size": "absent"}, "vocab_size is None"),
        ({"num_attention_groups": "absent"}, "num_attention_groups is missing"),
        ({"num_attention_groups": 3}, "must divide num_attention_heads 4"),
        ({"num_key_value_heads": 4}, "num_key_value_heads is 4"),
        ({"model_type": "llama"}, "model_type is 'llama'"),
    ],
)
def test_fields_that_vllm_would_ignore_or_cannot_serve(
    tmp_path: Path, changes: dict[str, Any], said: str
) -> None:
    assert said in refusal(folder(tmp_path, CONFIG | changes))


@pytest.mark.parametrize(
    "changes",
    [
        {"alibi_slopes": None, "max_pos_interp_ratio": 1.0, "rope_scaling": None, "sliding_window": None},
        {"hidden_act": "silu", "head_dim": 16},
        {"num_attention_groups": "absent", "num_key_value_heads": 2},
    ],
)
def test_neutral_values_pass(tmp_path: Path, changes: dict[str, Any]) -> None:
    assert check_model_folder(folder(tmp_path, CONFIG | changes)) is False


def test_missing_broken_and_truncated_files(tmp_path: Path) -> None:
    assert "config.json: is missing" in refusal(tmp_path)
    (tmp_path / "config.json").write_text("{")
    assert "is no JSON" in refusal(tmp_path)
    folder(tmp_path, CONFIG)
    weights = tmp_path / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:20])
    assert "model.safetensors: is no safetensors file or is cut short" in refusal(tmp_path)
