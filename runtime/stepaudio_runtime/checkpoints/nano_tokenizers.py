"""The nano preset's speech tokenizers: a small Paraformer folder, centroids, and a semantic ONNX file.

Layout, names and formats are those of the published files; only the sizes are smaller.
"""

from __future__ import annotations

from dataclasses import dataclass
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
from stepaudio_runtime.models.semantic import SemanticConfig, SemanticModel

FEATURES = 560  # 7 stacked frames of 80 bands
CENTROIDS = 1024
SANM = SanmConfig(input_size=FEATURES, output_size=128, attention_heads=4, linear_units=256, num_blocks=4)
SEMANTIC = SemanticConfig(n_audio_state=128, n_audio_head=2, n_audio_layer=3)

_CONFIG = """\
# Nano: the published layout with small sizes.
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


@dataclass(frozen=True, eq=False)
class NanoTokenizers:
    """All that the tokenizer folder holds. `centroids` (1024, width); `shift` and `scale` (560,)."""

    paraformer: dict[str, Tensor]
    shift: NDArray[np.float32]
    scale: NDArray[np.float32]
    centroids: NDArray[np.float32]
    semantic: dict[str, Tensor]  # under `SemanticModel`'s names


def random_tokenizers(seed: int) -> NanoTokenizers:
    """Random weights; the same for the same seed."""
    weights = RandomWeights(seed, "paraformer")
    return NanoTokenizers(
        paraformer=with_recogniser(weights.fill(SanmModel(SANM))),
        # Log energies of speech in 16-bit units: means of 8 to 16, deviations near 3.
        shift=weights.array("cmvn.shift", FEATURES, mean=-11.0),
        scale=np.abs(weights.array("cmvn.scale", FEATURES, std=0.02, mean=0.3)),
        centroids=weights.array("centroids", CENTROIDS, SANM.output_size),
        semantic=_random_semantic(RandomWeights(seed, "semantic")),
    )


def _random_semantic(weights: RandomWeights) -> dict[str, Tensor]:
    state = weights.fill(SemanticModel(SEMANTIC))
    width, codes = SEMANTIC.n_audio_state, SEMANTIC.n_codebook_size
    state["encoder.positional_embedding"] = torch.from_numpy(_positions(SEMANTIC.n_audio_ctx, width))
    state["quantizer._codebook.embed"] = weights.tensor("codebook", codes, width, std=width**-0.5)
    return state


def write_tokenizers(folder: Path, models: NanoTokenizers) -> None:
    """Write the whole `Step-Audio-Tokenizer` folder."""
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
    (folder / layout.PARAFORMER_CMVN).write_text(_cmvn(models.shift, models.scale), encoding="utf-8")
    torch.save(models.paraformer, folder / layout.PARAFORMER_WEIGHTS)
    np.save(folder / layout.CENTROIDS, models.centroids)
    (folder / layout.SEMANTIC).write_bytes(_semantic(models.semantic))


def with_recogniser(encoder: dict[str, Tensor]) -> dict[str, Tensor]:
    """`encoder` and, as in the published file, a recogniser's other parts: zeros, read by nobody."""
    width = SANM.output_size
    return encoder | {
        "decoder.embed.0.weight": torch.zeros(32, width),
        "decoder.output_layer.weight": torch.zeros(32, width),
        "decoder.output_layer.bias": torch.zeros(32),
        "predictor.cif_output.weight": torch.zeros(1, width),
        "predictor.cif_output.bias": torch.zeros(1),
    }


def _cmvn(shift: NDArray[np.float32], scale: NDArray[np.float32]) -> str:
    def vector(values: NDArray[np.float32]) -> str:
        return " ".join(f"{value:.6f}" for value in values)

    size = f"{FEATURES} {FEATURES}"
    return (
        f"<Nnet> \n<Splice> {size} \n[ 0 ]\n"
        f"<AddShift> {size} \n<LearnRateCoef> 0 [ {vector(shift)} ]\n"
        f"<Rescale> {size} \n<LearnRateCoef> 0 [ {vector(scale)} ]\n</Nnet> \n"
    )


def _semantic(state: dict[str, Tensor]) -> bytes:
    """An ONNX model whose weights are found as in the published export; its graph is not meant to run.

    Convolutions and positions are known by the initializer's name, all else by the node that uses it.
    """
    initializers: list[TensorProto] = []
    nodes: list[onnx.NodeProto] = []

    def node(op: str, name: str, value: NDArray[np.float32], initializer: str) -> None:
        initializers.append(numpy_helper.from_array(value, initializer))
        previous = nodes[-1].output[0] if nodes else "feats"
        nodes.append(helper.make_node(op, [previous, initializer], [f"{name}_output_0"], name=name))

    def held(name: str) -> NDArray[np.float32]:
        return state[name].float().numpy()

    def linear(name: str, key: str) -> None:
        node("MatMul", f"{name}/MatMul", held(f"{key}.weight").T.copy(), f"onnx::MatMul_{len(initializers)}")
        if f"{key}.bias" in state:
            node("Add", f"{name}/Add", held(f"{key}.bias"), f"{name}.bias")

    def norm(name: str, key: str) -> None:
        node("Mul", f"{name}/Mul", held(f"{key}.weight"), f"{name}.weight")
        node("Add", f"{name}/Add_1", held(f"{key}.bias"), f"{name}.bias")

    for conv in ("conv1", "conv2"):
        names = [f"encoders.{conv}.{part}" for part in ("weight", "bias")]
        initializers += [
            numpy_helper.from_array(held(name.replace("encoders", "encoder", 1)), name) for name in names
        ]
        inputs = [nodes[-1].output[0] if nodes else "feats", *names]
        outputs = [f"/{conv}/Conv_output_0"]
        nodes.append(
            helper.make_node("Conv", inputs, outputs, name=f"/{conv}/Conv", strides=[2], pads=[1, 1])
        )
    node("Add", "/Add", held("encoder.positional_embedding"), "encoders.positional_embedding")
    for block in range(SEMANTIC.n_audio_layer):
        at, key = f"/blocks.{block}", f"encoder.blocks.{block}"
        norm(f"{at}/attn_ln", f"{key}.attn_ln")
        for part in ("query", "key", "value", "out"):
            linear(f"{at}/attn/{part}", f"{key}.attn.{part}")
        norm(f"{at}/mlp_ln", f"{key}.mlp_ln")
        linear(f"{at}/mlp/mlp.0", f"{key}.mlp.0")
        linear(f"{at}/mlp/mlp.2", f"{key}.mlp.2")
    codes = held("quantizer._codebook.embed").T.copy()
    node("Pow", "/quantizer/rq/model/layers.0/_codebook/Pow_1", codes, "onnx::Pow_0")

    graph = helper.make_graph(
        nodes,
        "main_graph",
        [
            helper.make_tensor_value_info("feats", TensorProto.FLOAT, [1, SEMANTIC.n_mels, "T"]),
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
