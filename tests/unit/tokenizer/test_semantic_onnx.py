"""The ONNX reader names the file and what is wrong with it; a file it accepts fills a model."""

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper

from stepaudio_runtime.checkpoints.semantic_onnx import read_semantic_onnx
from stepaudio_runtime.errors import ModelFileError
from stepaudio_runtime.models.semantic import SemanticConfig, SemanticModel

CONFIG = SemanticConfig(
    n_mels=4, n_audio_ctx=10, n_audio_state=8, n_audio_head=2, n_audio_layer=2, n_codebook_size=5
)


def exported(weights):
    """A graph with `weights` under the published export's names; its nodes compute nothing."""
    nodes, initializers = [], []

    def node(name, op, value):
        weight = f"onnx::{len(nodes)}"
        initializers.append(numpy_helper.from_array(value, weight))
        initializers.append(numpy_helper.from_array(np.float32(2), f"scalar{len(nodes)}"))
        inputs = [f"scalar{len(nodes)}", "mel", weight]
        nodes.append(helper.make_node(op.partition("_")[0], inputs, [f"out{len(nodes)}"], f"{name}/{op}"))

    for key, tensor in weights.items():
        value = np.ascontiguousarray(tensor.numpy().T if tensor.ndim == 2 else tensor.numpy())
        if key.startswith(("encoder.conv", "encoder.positional")):
            initializers.append(numpy_helper.from_array(tensor.numpy(), key.replace("encoder.", "encoders.")))
        elif key.startswith("quantizer"):
            node("/quantizer/rq/model/layers.0/_codebook", "Pow_1", value)
        else:
            path = key.removeprefix("encoder.").split(".")
            where, kind = path[:-1], path[-1]
            if "mlp" in where:
                where = [*where[:-1], f"mlp.{where[-1]}"]
            norm = where[-1].endswith("_ln")
            op = {"weight": "Mul" if norm else "MatMul", "bias": "Add_1" if norm else "Add"}[kind]
            node("/" + "/".join([f"{where[0]}.{where[1]}", *where[2:]]), op, value)
    mel = helper.make_tensor_value_info("mel", TensorProto.FLOAT, [1, CONFIG.n_mels, "T"])
    ids = helper.make_tensor_value_info("ids", TensorProto.INT64, [1, "t"])
    return helper.make_model(helper.make_graph(nodes, "tokenizer", [mel], [ids], initializers))


@pytest.fixture
def weights():
    generator = torch.Generator().manual_seed(0)
    state = SemanticModel(CONFIG).state_dict()
    return {key: torch.randn(value.shape, generator=generator) for key, value in state.items()}


@pytest.fixture
def path(tmp_path):
    return tmp_path / "speech_tokenizer_v1.onnx"


def refusal(path):
    with pytest.raises(ModelFileError) as caught:
        read_semantic_onnx(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)
    return caught.value


def test_an_export_fills_a_model(weights, path):
    onnx.save(exported(weights), path)
    read = read_semantic_onnx(path)
    SemanticModel(CONFIG).load_state_dict(read, strict=True)
    torch.testing.assert_close(read, weights, atol=0, rtol=0)


def test_a_missing_file_is_named(path):
    assert refusal(path).reason == "ModelFileMissing"


@pytest.mark.parametrize("kept", [0, 1, 100, 0.5, 0.99])
def test_a_truncated_file_is_named(weights, path, kept):
    data = exported(weights).SerializeToString()
    path.write_bytes(data[: kept if isinstance(kept, int) else int(len(data) * kept)])
    assert refusal(path).reason in ("ModelFileTruncated", "ModelShapeMismatch")


def test_a_file_that_is_no_model_is_named(path):
    path.write_bytes(b"not found: see https://example.org" * 20)
    assert refusal(path).reason == "ModelFileTruncated"


@pytest.mark.parametrize(
    "lost",
    [
        "encoder.conv1.bias",
        "encoder.blocks.0.attn.key.weight",
        "encoder.blocks.1.mlp.2.bias",
        "quantizer._codebook.embed",
    ],
)
def test_a_lost_weight_is_named(weights, path, lost):
    del weights[lost]
    onnx.save(exported(weights), path)
    error = refusal(path)
    assert error.reason == "ModelShapeMismatch"
    assert lost in str(error)


def test_weights_kept_in_another_file_are_refused(weights, path):
    onnx.save(exported(weights), path, save_as_external_data=True, location="elsewhere", size_threshold=0)
    assert refusal(path).reason == "ModelConfigInvalid"
