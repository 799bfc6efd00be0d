"""Reads the weights of `speech_tokenizer_v1.onnx` under the names that `SemanticModel` has.

The file is an exported graph: some weights kept their names, the others are known by the node that uses them.
Matrices stand transposed. Only initializers are read; the graph is never run.
"""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import onnx
import torch
from google.protobuf.message import DecodeError  # type: ignore[import-untyped]
from onnx import numpy_helper
from onnx.external_data_helper import uses_external_data
from torch import Tensor

from stepaudio_runtime.errors import ModelFileError

_CURE = "download Step-Audio-Tokenizer/speech_tokenizer_v1.onnx again"
_POSITIONS = "encoder.positional_embedding"
_CODEBOOK = "quantizer._codebook.embed"

_BY_INITIALIZER = {
    **{
        f"encoders.{conv}.{part}": f"encoder.{conv}.{part}"
        for conv in ("conv1", "conv2")
        for part in ("weight", "bias")
    },
    "encoders.positional_embedding": _POSITIONS,
}
_LINEAR = {"MatMul": "weight", "Add": "bias"}
_NORM = {"Mul": "weight", "Add_1": "bias"}
_NODE = re.compile(
    r"/blocks\.(?P<block>\d+)/(?:"
    r"attn/(?P<attn>query|key|value|out)/(?P<attn_op>MatMul|Add)"
    r"|(?P<norm>attn_ln|mlp_ln)/(?P<norm_op>Mul|Add_1)"
    r"|mlp/mlp\.(?P<mlp>[02])/(?P<mlp_op>MatMul|Add)"
    r")"
)
_CODEBOOK_NODE = "/quantizer/rq/model/layers.0/_codebook/Pow_1"


def read_semantic_onnx(path: Path) -> dict[str, Tensor]:
    """State dict (float32) of `path`, complete for a `SemanticModel` of the file's sizes.

    Raises ModelFileError when the file is missing, is not a whole ONNX model, or lacks a weight.
    """
    try:
        model = onnx.load(path, load_external_data=False)
    except FileNotFoundError:
        raise ModelFileError(
            "ModelFileMissing", file=path, what="the file is not there", cure=_CURE
        ) from None
    except (DecodeError, ValueError, OSError) as error:
        what = f"not a whole ONNX model: {error}"
        raise ModelFileError("ModelFileTruncated", file=path, what=what, cure=_CURE) from error
    initializers = {initializer.name: initializer for initializer in model.graph.initializer}
    found: dict[str, onnx.TensorProto] = {
        key: initializers[name] for name, key in _BY_INITIALIZER.items() if name in initializers
    }
    for node in model.graph.node:
        if key := _key_of(node.name):
            used = [initializers[name] for name in node.input if name in initializers]
            if used:  # beside a weight, a node may take a scalar
                found[key] = max(used, key=lambda initializer: int(np.prod(initializer.dims)))
    if missing := sorted(_expected(found) - found.keys()):
        what = f"no weights for {missing[0]}" + (f" and {len(missing) - 1} more" if len(missing) > 1 else "")
        raise ModelFileError("ModelShapeMismatch", file=path, what=what, cure=_CURE)
    return {key: _tensor(key, initializer, path) for key, initializer in sorted(found.items())}


def _key_of(node: str) -> str | None:
    """Our name of the weight that the node named `node` uses; None for any other node."""
    if node == _CODEBOOK_NODE:
        return _CODEBOOK
    match = _NODE.fullmatch(node)
    if match is None:
        return None
    block = f"encoder.blocks.{match['block']}"
    if match["attn"]:
        return f"{block}.attn.{match['attn']}.{_LINEAR[match['attn_op']]}"
    if match["norm"]:
        return f"{block}.{match['norm']}.{_NORM[match['norm_op']]}"
    return f"{block}.mlp.{match['mlp']}.{_LINEAR[match['mlp_op']]}"


def _expected(found: dict[str, onnx.TensorProto]) -> set[str]:
    """Every key of a model with as many blocks as `found` mentions, and at least one."""
    blocks = [int(key.split(".")[2]) for key in found if key.startswith("encoder.blocks.")]
    keys = {*_BY_INITIALIZER.values(), _CODEBOOK}
    for block in range(max(blocks, default=0) + 1):
        names = [
            f"attn.{part}.{kind}" for part in ("query", "key", "value", "out") for kind in ("weight", "bias")
        ]
        names.remove("attn.key.bias")
        names += [
            f"{part}.{kind}"
            for part in ("attn_ln", "mlp_ln", "mlp.0", "mlp.2")
            for kind in ("weight", "bias")
        ]
        keys |= {f"encoder.blocks.{block}.{name}" for name in names}
    return keys


def _tensor(key: str, initializer: onnx.TensorProto, path: Path) -> Tensor:
    if uses_external_data(initializer):
        what = f"{key} is kept in another file, which is not followed"
        raise ModelFileError("ModelConfigInvalid", file=path, what=what, cure=_CURE)
    try:
        array = numpy_helper.to_array(initializer)
    except (ValueError, TypeError) as error:
        what = f"{key} cannot be read: {error}"
        raise ModelFileError("ModelFileTruncated", file=path, what=what, cure=_CURE) from error
    if array.ndim == 2 and key != _POSITIONS:
        array = array.T
    return torch.from_numpy(np.ascontiguousarray(array, np.float32).copy())
