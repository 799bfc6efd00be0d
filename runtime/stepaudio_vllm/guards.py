"""What a Step-1 model folder must say before vLLM may load it; JSON and safetensors headers only.

vLLM's `step1.py` reads a few fields and ignores the rest. Fields that would change the mathematics and
are ignored there are refused here, so that a model is never served with other mathematics than its own.
`tie_word_embeddings` is the worst case: when it is missing, `step1.py` takes it as true and loads
`lm_head` over the embeddings, which makes every token wrong without an error.
"""

import json
import math
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any

LM_HEAD = "lm_head.weight"
EMBEDDINGS = "model.embed_tokens.weight"
_HEADER_LIMIT = 100_000_000  # bytes; safetensors' own bound on its JSON header

_SIZES = (
    "vocab_size",
    "hidden_size",
    "intermediate_size",
    "num_hidden_layers",
    "num_attention_heads",
)
# Rotary positions: Step-1 has none, its only positions are the sqrt-ALiBi bias.
_ROPE = ("rope_theta", "rope_scaling", "rope_parameters", "partial_rotary_factor", "rotary_dim")


class Step1ConfigError(RuntimeError):
    """A Step-1 model or engine configuration that must not be served; one line: where, what, cure.

    Not a ValueError: pydantic, which builds vLLM's configuration, would wrap that into several lines.
    """


def check_model_folder(folder: Path) -> bool:
    """Check the `config.json` of a Step-1 folder against this plugin's rules and the folder's weights.

    Returns whether the embeddings are tied. Raises Step1ConfigError. Reads no tensor.
    """
    path = folder / "config.json"
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise Step1ConfigError(f"{path}: is missing; copy it from the model's download") from None
    except OSError as error:
        raise Step1ConfigError(
            f"{path}: cannot be read ({error.strerror}); check the file's mode and owner"
        ) from None
    except ValueError as error:
        raise Step1ConfigError(f"{path}: is no JSON ({error}); download it again") from None
    if not isinstance(config, dict):
        raise Step1ConfigError(f"{path}: is not a JSON object; download it again")
    if config.get("model_type") != "step1":
        raise Step1ConfigError(
            f"{path}: model_type is {config.get('model_type')!r}, not 'step1'; wrong folder?"
        )
    check_config(config, str(path))
    return settle_tied_embeddings(config.get("tie_word_embeddings"), weight_names(folder), str(path))


def check_config(config: Mapping[str, Any], where: str) -> None:
    """Raise Step1ConfigError for missing sizes and for fields that vLLM's `step1.py` would ignore."""
    for name in _SIZES:
        value = config.get(name)
        if not isinstance(value, int) or isinstance(value, bool) or value <= 0:
            raise Step1ConfigError(f"{where}: {name} is {value!r}; it must be a positive integer")
    heads, hidden = config["num_attention_heads"], config["hidden_size"]
    if hidden % heads:
        raise Step1ConfigError(f"{where}: hidden_size {hidden} is no multiple of num_attention_heads {heads}")
    _check_groups(config, where)
    if config.get("alibi_slopes") is not None:
        raise Step1ConfigError(
            f"{where}: alibi_slopes is set, but vLLM computes Step-1's slopes from the number of heads and "
            "would ignore it; remove it if the model was trained with the standard slopes"
        )
    ratio = config.get("max_pos_interp_ratio")
    if ratio is not None and not _is_one(ratio):
        raise Step1ConfigError(
            f"{where}: max_pos_interp_ratio is {ratio!r}, but vLLM has no position interpolation for Step-1 "
            "and would ignore it; only 1 can be served"
        )
    for name in _ROPE:
        if config.get(name) is not None:
            raise Step1ConfigError(
                f"{where}: {name} is set, but Step-1 in vLLM has no rotary positions and would ignore it; "
                "remove it if the model is a Step-1 model"
            )
    if config.get("sliding_window") is not None:
        raise Step1ConfigError(f"{where}: sliding_window is set, but Step-1 attends to everything; remove it")
    activation = config.get("hidden_act")
    if activation not in (None, "silu", "swish"):
        raise Step1ConfigError(f"{where}: hidden_act is {activation!r}, but vLLM's Step-1 computes silu")
    head_dim = config.get("head_dim")
    if head_dim is not None and head_dim != hidden // heads:
        raise Step1ConfigError(
            f"{where}: head_dim is {head_dim!r}, but vLLM's Step-1 computes {hidden // heads} "
            "(hidden_size / num_attention_heads); remove or correct it"
        )


def _check_groups(config: Mapping[str, Any], where: str) -> None:
    """KV heads: upstream takes 1 in the model but one a head in the cache when nothing is said."""
    groups, kv_heads = config.get("num_attention_groups"), config.get("num_key_value_heads")
    if groups is None and kv_heads is None:
        raise Step1ConfigError(f"{where}: num_attention_groups is missing; set it to the number of KV heads")
    if groups is not None and kv_heads is not None and groups != kv_heads:
        raise Step1ConfigError(
            f"{where}: num_attention_groups is {groups} but num_key_value_heads is {kv_heads}; remove one"
        )
    value = groups if groups is not None else kv_heads
    heads = config["num_attention_heads"]
    if not isinstance(value, int) or isinstance(value, bool) or value <= 0 or heads % value:
        raise Step1ConfigError(
            f"{where}: num_attention_groups is {value!r}; it must divide num_attention_heads {heads}"
        )


def _is_one(value: object) -> bool:
    return isinstance(value, int | float) and math.isclose(value, 1.0)


def settle_tied_embeddings(tied: bool | None, names: frozenset[str] | None, where: str) -> bool:
    """Whether `lm_head` shares the embeddings, from the configuration and the names of the weights.

    tied: `tie_word_embeddings` as configured, None when it is missing. names: of all tensors in the
    folder, None when they are unknown. Raises Step1ConfigError where the two contradict each other and
    where neither tells.
    """
    has_head = names is not None and LM_HEAD in names
    if tied is None:
        if has_head:
            return False
        raise Step1ConfigError(
            f"{where}: tie_word_embeddings is missing and the weights hold no {LM_HEAD} to tell; set it to "
            "false (all published Step-1 models) or true"
        )
    if tied and has_head:
        raise Step1ConfigError(
            f"{where}: tie_word_embeddings is true, but the weights hold {LM_HEAD}, which vLLM would load "
            "over the embeddings; set it to false"
        )
    if not tied and names is not None and not has_head:
        raise Step1ConfigError(
            f"{where}: tie_word_embeddings is false, but the weights hold no {LM_HEAD}; download them again"
        )
    return tied


def weight_names(folder: Path) -> frozenset[str] | None:
    """Names of all tensors in a folder's safetensors files; None when it has none.

    The index (`model.safetensors.index.json`) is believed where it exists, else the files' headers are
    read. Raises Step1ConfigError for a file that cannot be read.
    """
    index = folder / "model.safetensors.index.json"
    if index.is_file():
        try:
            return frozenset(json.loads(index.read_text(encoding="utf-8"))["weight_map"])
        except OSError as error:
            raise Step1ConfigError(
                f"{index}: cannot be read ({error.strerror}); check the file's mode and owner"
            ) from None
        except (ValueError, KeyError, TypeError):
            raise Step1ConfigError(f"{index}: is no safetensors index; download it again") from None
    files = sorted(folder.glob("*.safetensors"))
    if not files:
        return None
    return frozenset(name for file in files for name in _header(file) if name != "__metadata__")


def _header(file: Path) -> dict[str, Any]:
    try:
        with file.open("rb") as stream:
            (length,) = struct.unpack("<Q", stream.read(8))
            if length > _HEADER_LIMIT:
                raise ValueError("header too long")
            header = json.loads(stream.read(length))
    except OSError as error:
        raise Step1ConfigError(
            f"{file}: cannot be read ({error.strerror}); check the file's mode and owner"
        ) from None
    except (ValueError, struct.error):
        raise Step1ConfigError(f"{file}: is no safetensors file or is cut short; download it again") from None
    if not isinstance(header, dict):
        raise Step1ConfigError(f"{file}: is no safetensors file; download it again")
    return header
