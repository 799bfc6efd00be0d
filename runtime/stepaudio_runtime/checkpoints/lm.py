"""Checks a Step-1 folder and reads what its users need to know of it. No torch: vLLM loads the weights.

Weights are checked by the headers of the safetensors files: every tensor of the architecture is there with
its shape, and every file is as long as its header says.
"""

from __future__ import annotations

import json
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from google.protobuf.message import DecodeError  # type: ignore[import-untyped]
from sentencepiece import sentencepiece_model_pb2

from stepaudio_runtime.checkpoints import layout
from stepaudio_runtime.checkpoints.presence import CURE, not_a, require
from stepaudio_runtime.contract import AUDIO_CODES, AUDIO_OFFSET, AUDIO_OFFSET_KEY, SENTENCES_KEY
from stepaudio_runtime.errors import ModelFileError

_LM_HEAD = "lm_head.weight"
_BOS, _EOT, _BOT = 1, 3, 4
_MARKERS = {_BOS: "<s>", _EOT: "<|EOT|>", _BOT: "<|BOT|>"}
_MAX_HEADER = 100_000_000  # bytes, the format's own bound
Shape = tuple[int, ...]


@dataclass(frozen=True)
class LmFolder:
    """A Step-1 folder that was checked."""

    folder: Path
    config: dict[str, Any]
    vocab_size: int
    audio_offset: int  # id of the first audio code
    max_seq_len: int
    sentences_at_once: int | None  # that one answer of a TTS model speaks; None: as many as fit
    eot: int  # end of turn
    bot: int  # begin of turn
    tied: bool  # whether the output layer is the embedding; as the weights have it
    vocabulary: Path  # the SentencePiece file
    files: tuple[Path, ...]  # the weights
    bytes_total: int  # of the weights
    bits: int | None  # of a quantised checkpoint's matrices; None where they are as they were trained


def read_lm(folder: Path) -> LmFolder:
    """Check a Step-1 folder. Raises ModelFileError."""
    config_file = folder / layout.LM_CONFIG
    config = _read_json(config_file)
    sizes = _sizes(config, config_file)
    files = _weight_files(folder)
    held: dict[str, tuple[Shape, Path]] = {}
    for file in files:
        held |= {name: (shape, file) for name, shape in _header(file).items()}
    # A missing `tie_word_embeddings` means true to vLLM, which would load lm_head over the embeddings.
    # The weights know: they hold lm_head or they do not.
    tied = _LM_HEAD not in held
    if config.get("tie_word_embeddings", tied) is not tied:
        what = f"tie_word_embeddings is {config['tie_word_embeddings']}, but the weights "
        what += f"hold {'no ' if tied else ''}{_LM_HEAD}"
        cure = f"set it to {str(tied).lower()}, or download the weights again"
        raise ModelFileError("ModelConfigInvalid", file=config_file, what=what, cure=cure)
    bits = _bits(config, config_file)
    expected = _expected(sizes, tied)
    if bits is not None:  # how matrices are packed differs by method, and vLLM checks it
        expected = {name: shape for name, shape in expected.items() if "_proj" not in name}
    _check_shapes(held, expected, folder, files)
    vocabulary = folder / layout.LM_VOCABULARY
    _check_vocabulary(vocabulary)
    return LmFolder(
        folder=folder,
        config=config,
        vocab_size=sizes["vocab_size"],
        audio_offset=sizes["audio_offset"],
        max_seq_len=sizes["max_seq_len"],
        sentences_at_once=sizes.get("sentences_at_once"),
        eot=_EOT,
        bot=_BOT,
        tied=tied,
        vocabulary=vocabulary,
        files=files,
        bytes_total=sum(file.stat().st_size for file in files),
        bits=bits,
    )


def _read_json(path: Path) -> dict[str, Any]:
    require(path)
    try:
        value = json.loads(path.read_bytes())
    except ValueError as error:
        raise not_a(path, "JSON file", error) from error
    if not isinstance(value, dict):
        raise ModelFileError("ModelConfigInvalid", file=path, what="not a JSON object", cure=CURE)
    return value


def _sizes(config: dict[str, Any], path: Path) -> dict[str, int]:
    def invalid(what: str) -> ModelFileError:
        cure = f"{CURE}, or correct it"
        return ModelFileError("ModelConfigInvalid", file=path, what=what, cure=cure)

    if config.get("model_type") != "step1":
        raise invalid(f"model_type is {config.get('model_type')!r}, not 'step1'")
    sizes: dict[str, int] = {}
    for key in (
        "vocab_size",
        "hidden_size",
        "intermediate_size",
        "num_hidden_layers",
        "num_attention_heads",
        "num_attention_groups",
    ):
        value = config.get(key)
        if type(value) is not int or value <= 0:
            raise invalid(f"{key} is {value!r}, not a positive integer")
        sizes[key] = value
    heads, groups = sizes["num_attention_heads"], sizes["num_attention_groups"]
    if sizes["hidden_size"] % heads or heads % groups:
        raise invalid(f"{heads} heads in {groups} groups do not fit hidden_size {sizes['hidden_size']}")
    for key, value in (
        ("max_seq_len", config.get("max_seq_len", config.get("max_position_embeddings"))),
        ("audio_offset", config.get(AUDIO_OFFSET_KEY, AUDIO_OFFSET)),
        *([("sentences_at_once", config[SENTENCES_KEY])] if SENTENCES_KEY in config else []),
    ):
        if type(value) is not int or value <= 0:
            raise invalid(f"{key} is {value!r}, not a positive integer")
        sizes[key] = value
    if sizes["audio_offset"] + AUDIO_CODES > sizes["vocab_size"]:
        raise invalid(
            f"a vocabulary of {sizes['vocab_size']} has no room for {AUDIO_CODES} audio codes from "
            f"{sizes['audio_offset']} on"
        )
    return sizes


def _bits(config: dict[str, Any], path: Path) -> int | None:
    """Bits a weight by `quantization_config`, in the words of GPTQ, AWQ, compressed-tensors or fp8."""
    said = config.get("quantization_config")
    if said is None:
        return None
    found: list[Any] = []
    if isinstance(said, dict):
        groups = said.get("config_groups")
        weights = [g.get("weights") for g in groups.values()] if isinstance(groups, dict) else []
        found = [said.get("bits")] + [w.get("num_bits") for w in weights if isinstance(w, dict)]
        found += [8] if said.get("quant_method") == "fp8" else []
    bits = {value for value in found if type(value) is int}
    if len(bits) != 1:
        what = "quantization_config does not say how many bits a weight has"
        raise ModelFileError("ModelConfigInvalid", file=path, what=what, cure=CURE)
    return bits.pop()


def _weight_files(folder: Path) -> tuple[Path, ...]:
    index = folder / layout.LM_INDEX
    if not index.exists():
        found = sorted(folder.glob("*.safetensors"))
        return tuple(found) or (require(folder / layout.LM_SINGLE),)
    names = _read_json(index).get("weight_map")
    if not isinstance(names, dict) or not names or not all(isinstance(name, str) for name in names.values()):
        raise ModelFileError("ModelConfigInvalid", file=index, what="no weight_map", cure=CURE)
    for name in names.values():
        if "/" in name or name in (".", ".."):
            what = f"weight_map names {name!r}, which is not a file of this folder"
            raise ModelFileError("ModelConfigInvalid", file=index, what=what, cure=CURE)
    return tuple(require(folder / name) for name in sorted(set(names.values())))


def _header(path: Path) -> dict[str, Shape]:
    """Shapes by name; raises ModelFileError unless the file is as long as its header says."""
    require(path)
    size = path.stat().st_size
    try:
        with path.open("rb") as file:
            (length,) = struct.unpack("<Q", file.read(8))
            if length > min(size, _MAX_HEADER):
                raise ValueError("the header is longer than the file")
            header = json.loads(file.read(length))
        tensors = {name: entry for name, entry in header.items() if name != "__metadata__"}
        end = 8 + length + max((entry["data_offsets"][1] for entry in tensors.values()), default=0)
        shapes = {name: tuple(int(axis) for axis in entry["shape"]) for name, entry in tensors.items()}
    except (ValueError, KeyError, TypeError, AttributeError, IndexError, struct.error) as error:
        raise not_a(path, "whole safetensors file", error) from error
    if size != end:
        what = f"{size:,} bytes long, its header says {end:,}"
        raise ModelFileError("ModelFileTruncated", file=path, what=what, cure=CURE)
    return shapes


def _expected(sizes: dict[str, int], tied: bool) -> dict[str, Shape]:
    hidden, inner = sizes["hidden_size"], sizes["intermediate_size"]
    kv = hidden // sizes["num_attention_heads"] * sizes["num_attention_groups"]
    shapes: dict[str, Shape] = {
        "model.embed_tokens.weight": (sizes["vocab_size"], hidden),
        "model.norm.weight": (hidden,),
    }
    if not tied:
        shapes[_LM_HEAD] = (sizes["vocab_size"], hidden)
    for layer in range(sizes["num_hidden_layers"]):
        shapes |= {
            f"model.layers.{layer}.{name}.weight": shape
            for name, shape in (
                ("input_layernorm", (hidden,)),
                ("post_attention_layernorm", (hidden,)),
                ("self_attn.q_proj", (hidden, hidden)),
                ("self_attn.k_proj", (kv, hidden)),
                ("self_attn.v_proj", (kv, hidden)),
                ("self_attn.o_proj", (hidden, hidden)),
                ("mlp.gate_proj", (inner, hidden)),
                ("mlp.up_proj", (inner, hidden)),
                ("mlp.down_proj", (hidden, inner)),
            )
        }
    return shapes


def _check_shapes(
    held: dict[str, tuple[Shape, Path]], expected: dict[str, Shape], folder: Path, files: tuple[Path, ...]
) -> None:
    for name, shape in expected.items():
        found, file = held.get(name, (None, files[0] if len(files) == 1 else folder / layout.LM_INDEX))
        if found == shape:
            continue
        what = f"no {name}" if found is None else f"{name} is {list(found)}, not {list(shape)}"
        what += f" as {layout.LM_CONFIG} says"
        raise ModelFileError("ModelShapeMismatch", file=file, what=what, cure=CURE)


def _check_vocabulary(path: Path) -> None:
    require(path)
    model = sentencepiece_model_pb2.ModelProto()
    try:
        model.ParseFromString(path.read_bytes())
    except DecodeError as error:
        raise not_a(path, "whole SentencePiece model", error) from error
    # The trainer's words stand behind the pieces: without them the file was cut between two pieces.
    if not model.HasField("trainer_spec") or not model.HasField("normalizer_spec"):
        what = f"ends after {len(model.pieces)} pieces, not a whole SentencePiece model"
        raise ModelFileError("ModelFileTruncated", file=path, what=what, cure=CURE)
    for id_, piece in _MARKERS.items():
        held = model.pieces[id_].piece if id_ < len(model.pieces) else None
        if held != piece:
            what = f"piece {id_} is {held!r}, not {piece!r}: another model's vocabulary"
            raise ModelFileError("ModelConfigInvalid", file=path, what=what, cure=CURE)
