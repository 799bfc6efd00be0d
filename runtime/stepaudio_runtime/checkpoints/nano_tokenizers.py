"""The nano preset's speech tokenizers: a small Paraformer folder, centroids, and a semantic ONNX file.

Layout, names and formats are those of the published files; only the sizes are smaller.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from torch import Tensor

from stepaudio_runtime.checkpoints import layout
from stepaudio_runtime.checkpoints.random_weights import RandomWeights
from stepaudio_runtime.models.sanm import SanmConfig, SanmModel

FEATURES = 560  # 7 stacked frames of 80 bands
CENTROIDS = 1024
SANM = SanmConfig(input_size=FEATURES, output_size=64, attention_heads=4, linear_units=128, num_blocks=4)
SEMANTIC_WIDTH, SEMANTIC_LAYERS, SEMANTIC_CODES, SEMANTIC_POSITIONS, MELS = 64, 2, 4096, 1500, 128

_CONFIG = """\
# Nano: the published layout with small sizes. Weights are random.
model: ParaformerStreaming
model_conf:
    ctc_weight: 0.0
    lsm_weight: 0.1
    length_normalized_loss: true
    predictor_weight: 1.0
encoder: SANMEncoderChunkOpt
encoder_conf:
    output_size: {output_size}
    attention_heads: {attention_heads}
    linear_units: {linear_units}
    num_blocks: {num_blocks}
    dropout_rate: 0.1
    positional_dropout_rate: 0.1
    attention_dropout_rate: 0.1
    input_layer: pe_online
    pos_enc_class: SinusoidalPositionEncoder
    normalize_before: true
    kernel_size: {kernel_size}
    sanm_shfit: 0
    selfattention_layer_type: sanm
    chunk_size: [12, 15]
    stride: [8, 10]
    pad_left: [0, 0]
    encoder_att_look_back_factor: [4, 4]
    decoder_att_look_back_factor: [1, 1]
frontend: WavFrontendOnline
frontend_conf:
    fs: 16000
    window: hamming
    n_mels: 80
    frame_length: 25
    frame_shift: 10
    lfr_m: 7
    lfr_n: 6
    dither: 0.0
"""


def write_tokenizers(folder: Path, seed: int) -> None:
    """Write the whole `Step-Audio-Tokenizer` folder."""
    weights = RandomWeights(seed, "paraformer")
    (folder / layout.PARAFORMER).mkdir(parents=True, exist_ok=True)
    (folder / layout.PARAFORMER_CONFIG).write_text(
        _CONFIG.format(
            output_size=SANM.output_size,
            attention_heads=SANM.attention_heads,
            linear_units=SANM.linear_units,
            num_blocks=SANM.num_blocks,
            kernel_size=SANM.kernel_size,
        ),
        encoding="utf-8",
    )
    (folder / layout.PARAFORMER_CMVN).write_text(_cmvn(weights), encoding="utf-8")
    torch.save(_paraformer(weights), folder / layout.PARAFORMER_WEIGHTS)
    np.save(folder / layout.CENTROIDS, weights.array("centroids", CENTROIDS, SANM.output_size))
    (folder / layout.SEMANTIC).write_bytes(_semantic(RandomWeights(seed, "semantic")))


def _paraformer(weights: RandomWeights) -> dict[str, Tensor]:
    state = weights.fill(SanmModel(SANM))
    width = SANM.output_size
    # The published file also has the recogniser's decoder and predictor, which no tokenizer reads.
    state["decoder.embed.0.weight"] = weights.tensor("decoder.embed.0.weight", 32, width)
    state["decoder.output_layer.weight"] = weights.tensor("decoder.output_layer.weight", 32, width)
    state["decoder.output_layer.bias"] = torch.zeros(32)
    state["predictor.cif_output.weight"] = weights.tensor("predictor.cif_output.weight", 1, width)
    state["predictor.cif_output.bias"] = torch.zeros(1)
    return state


def _cmvn(weights: RandomWeights) -> str:
    def vector(values: NDArray[np.float32]) -> str:
        return " ".join(f"{value:.6f}" for value in values)

    # Log energies of speech in 16-bit units: means of 8 to 16, deviations near 3.
    shift = weights.array("cmvn.shift", FEATURES, mean=-11.0)
    scale = np.abs(weights.array("cmvn.scale", FEATURES, std=0.02, mean=0.3))
    size = f"{FEATURES} {FEATURES}"
    return (
        f"<Nnet> \n<Splice> {size} \n[ 0 ]\n"
        f"<AddShift> {size} \n<LearnRateCoef> 0 [ {vector(shift)} ]\n"
        f"<Rescale> {size} \n<LearnRateCoef> 0 [ {vector(scale)} ]\n</Nnet> \n"
    )


def _semantic(weights: RandomWeights) -> bytes:
    """An ONNX model whose weights are found as in the published export; its graph is not meant to run.

    Convolutions and positions are known by the initializer's name, all else by the node that uses it.
    """
    width = SEMANTIC_WIDTH
    initializers: list[TensorProto] = []
    nodes: list[onnx.NodeProto] = []

    def node(op: str, name: str, value: NDArray[np.float32], initializer: str) -> None:
        initializers.append(numpy_helper.from_array(value, initializer))
        previous = nodes[-1].output[0] if nodes else "feats"
        nodes.append(helper.make_node(op, [previous, initializer], [f"{name}_output_0"], name=name))

    def linear(name: str, size_in: int, size_out: int, *, bias: bool = True) -> None:
        matrix = weights.array(f"{name}.weight", size_in, size_out, std=size_in**-0.5)
        node("MatMul", f"{name}/MatMul", matrix, f"onnx::MatMul_{len(initializers)}")
        if bias:
            node("Add", f"{name}/Add", weights.array(f"{name}.bias", size_out, std=0.01), f"{name}.bias")

    def norm(name: str) -> None:
        node("Mul", f"{name}/Mul", np.ones(width, np.float32), f"{name}.weight")
        node("Add", f"{name}/Add_1", np.zeros(width, np.float32), f"{name}.bias")

    for conv, channels in (("conv1", MELS), ("conv2", width)):
        kernel = weights.array(f"{conv}.weight", width, channels, 3, std=(3 * channels) ** -0.5)
        bias = weights.array(f"{conv}.bias", width, std=0.01)
        initializers.append(numpy_helper.from_array(kernel, f"encoders.{conv}.weight"))
        initializers.append(numpy_helper.from_array(bias, f"encoders.{conv}.bias"))
        previous = nodes[-1].output[0] if nodes else "feats"
        inputs = [previous, f"encoders.{conv}.weight", f"encoders.{conv}.bias"]
        nodes.append(
            helper.make_node(
                "Conv", inputs, [f"/{conv}/Conv_output_0"], name=f"/{conv}/Conv", strides=[2], pads=[1, 1]
            )
        )
    node("Add", "/Add", _positions(SEMANTIC_POSITIONS, width), "encoders.positional_embedding")
    for block in range(SEMANTIC_LAYERS):
        norm(f"/blocks.{block}/attn_ln")
        for part in ("query", "key", "value", "out"):
            linear(f"/blocks.{block}/attn/{part}", width, width, bias=part != "key")
        norm(f"/blocks.{block}/mlp_ln")
        linear(f"/blocks.{block}/mlp/mlp.0", width, 4 * width)
        linear(f"/blocks.{block}/mlp/mlp.2", 4 * width, width)
    codes = weights.array("codebook", width, SEMANTIC_CODES, std=width**-0.5)
    node("Pow", "/quantizer/rq/model/layers.0/_codebook/Pow_1", codes, "onnx::Pow_0")

    graph = helper.make_graph(
        nodes,
        "main_graph",
        [
            helper.make_tensor_value_info("feats", TensorProto.FLOAT, [1, MELS, "T"]),
            helper.make_tensor_value_info("feats_length", TensorProto.INT32, [1]),
        ],
        [helper.make_tensor_value_info(nodes[-1].output[0], TensorProto.FLOAT, None)],
        initializers,
    )
    model = helper.make_model(
        graph, producer_name="step-audio-nano", opset_imports=[helper.make_opsetid("", 17)], ir_version=8
    )
    serialised: bytes = model.SerializeToString(deterministic=True)
    return serialised


def _positions(count: int, width: int) -> NDArray[np.float32]:
    """Sines, then cosines, of p · 10000^(-i / (width/2 - 1))."""
    frequencies = np.exp(-np.log(10000.0) / (width // 2 - 1) * np.arange(width // 2))
    angles = np.arange(count)[:, None] * frequencies[None, :]
    return np.concatenate((np.sin(angles), np.cos(angles)), axis=1).astype(np.float32)
