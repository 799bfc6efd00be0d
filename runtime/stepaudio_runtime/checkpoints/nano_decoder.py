"""The nano preset's speech decoder: one CosyVoice folder with `cosyvoice.yaml`, flow, vocoder and CAM++."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from torch import Tensor, nn

from stepaudio_runtime.checkpoints import layout
from stepaudio_runtime.checkpoints.random_weights import RandomWeights
from stepaudio_runtime.models.conformer import ConformerConfig
from stepaudio_runtime.models.estimator import EstimatorConfig
from stepaudio_runtime.models.flow import Flow, FlowConfig
from stepaudio_runtime.models.hift import Hift, HiftConfig

FLOW = FlowConfig(
    input_size=128,
    encoder=ConformerConfig(output_size=128, attention_heads=4, linear_units=256, num_blocks=2),
    estimator=EstimatorConfig(
        channels=(128, 128), attention_head_dim=32, n_blocks=1, num_mid_blocks=2, num_heads=4
    ),
)
HIFT = HiftConfig(base_channels=64, f0_cond_channels=64)
_PITCH_HZ = 170.0

# The published file's structure: tags name classes of the reference, references name earlier values.
_YAML = """\
# Nano: the published layout with small sizes.
__set_seed1: !apply:random.seed [1986]
__set_seed2: !apply:numpy.random.seed [1986]
__set_seed3: !apply:torch.manual_seed [1986]

sample_rate: 22050
text_encoder_input_size: 512
llm_input_size: 1024
llm_output_size: 1024
spk_embed_dim: 192

flow: !new:cosyvoice.flow.flow.MaskedDiffWithXvec
    input_size: {flow.input_size}
    output_size: {flow.output_size}
    spk_embed_dim: !ref <spk_embed_dim>
    output_type: 'mel'
    vocab_size: {flow.vocab_size}
    input_frame_rate: {flow.input_frame_rate}
    only_mask_loss: True
    encoder: !new:cosyvoice.transformer.encoder.ConformerEncoder
        output_size: {flow.encoder.output_size}
        attention_heads: {flow.encoder.attention_heads}
        linear_units: {flow.encoder.linear_units}
        num_blocks: {flow.encoder.num_blocks}
        dropout_rate: 0.1
        positional_dropout_rate: 0.1
        attention_dropout_rate: 0.1
        normalize_before: True
        input_layer: 'linear'
        pos_enc_layer_type: 'rel_pos_espnet'
        selfattention_layer_type: 'rel_selfattn'
        input_size: {flow.input_size}
        use_cnn_module: False
        macaron_style: False
    length_regulator: !new:cosyvoice.flow.length_regulator.InterpolateRegulator
        channels: {flow.output_size}
        sampling_ratios: [1, 1, 1, 1]
    decoder: !new:cosyvoice.flow.flow_matching.ConditionalCFM
        in_channels: 240
        n_spks: 1
        spk_emb_dim: 80
        cfm_params: !new:omegaconf.DictConfig
            content:
                sigma_min: 1e-06
                solver: 'euler'
                t_scheduler: 'cosine'
                training_cfg_rate: 0.2
                inference_cfg_rate: {flow.inference_cfg_rate}
                reg_loss_type: 'l1'
        estimator: !new:cosyvoice.flow.decoder.ConditionalDecoder
            in_channels: {flow.estimator.in_channels}
            out_channels: {flow.estimator.out_channels}
            channels: {channels}
            dropout: 0.0
            attention_head_dim: {flow.estimator.attention_head_dim}
            n_blocks: {flow.estimator.n_blocks}
            num_mid_blocks: {flow.estimator.num_mid_blocks}
            num_heads: {flow.estimator.num_heads}
            act_fn: 'gelu'

hift: !new:cosyvoice.hifigan.generator.HiFTGenerator
    in_channels: {hift.in_channels}
    base_channels: {hift.base_channels}
    nb_harmonics: {hift.nb_harmonics}
    sampling_rate: !ref <sample_rate>
    nsf_alpha: {hift.nsf_alpha}
    nsf_sigma: {hift.nsf_sigma}
    nsf_voiced_threshold: {hift.nsf_voiced_threshold}
    upsample_rates: [8, 8]
    upsample_kernel_sizes: [16, 16]
    istft_params:
        n_fft: {hift.n_fft}
        hop_len: {hift.hop_len}
    resblock_kernel_sizes: [3, 7, 11]
    resblock_dilation_sizes: [[1, 3, 5], [1, 3, 5], [1, 3, 5]]
    source_resblock_kernel_sizes: [7, 11]
    source_resblock_dilation_sizes: [[1, 3, 5], [1, 3, 5]]
    lrelu_slope: {hift.lrelu_slope}
    audio_limit: {hift.audio_limit}
    f0_predictor: !new:cosyvoice.hifigan.f0_predictor.ConvRNNF0Predictor
        num_class: 1
        in_channels: {hift.in_channels}
        cond_channels: {hift.f0_cond_channels}
"""


@dataclass(frozen=True, eq=False)
class NanoDecoder:
    """What a CosyVoice folder holds: the vocoder folded, the speaker's network as `first` and `second`."""

    flow: dict[str, Tensor]
    hift: dict[str, Tensor]
    speaker: dict[str, NDArray[np.float32]]


def random_decoder(seed: int, name: str) -> NanoDecoder:
    """Random weights; decoders of different names differ, but for the speaker's network."""
    speaker = RandomWeights(seed, "campplus")
    return NanoDecoder(
        flow=_flow(RandomWeights(seed, f"{name}/flow")),
        hift=_hift(RandomWeights(seed, f"{name}/hift")),
        speaker={
            "first.weight": speaker.array("first.weight", 80, 192, std=80**-0.5),
            "first.bias": speaker.array("first.bias", 192, std=0.5),
            "second.weight": speaker.array("second.weight", 192, 192, std=192**-0.5),
        },
    )


def write_decoder(folder: Path, models: NanoDecoder) -> None:
    """Write one CosyVoice folder."""
    folder.mkdir(parents=True, exist_ok=True)
    yaml = _YAML.format(flow=FLOW, hift=HIFT, channels=list(FLOW.estimator.channels))
    (folder / layout.COSYVOICE_CONFIG).write_text(yaml, encoding="utf-8")
    torch.save(_half(models.flow), folder / layout.FLOW)
    torch.save(_half(_with_weight_norm(models.hift)), folder / layout.HIFT)
    (folder / layout.CAMPPLUS).write_bytes(_campplus(models.speaker))


def _half(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Half the bytes; loading widens them again."""
    return {name: value.half() for name, value in state.items()}


def _flow(weights: RandomWeights) -> dict[str, Tensor]:
    with torch.device("meta"):
        flow = Flow(FLOW)
    return weights.fill(flow)


def _hift(weights: RandomWeights) -> dict[str, Tensor]:
    with torch.device("meta"):
        hift = Hift(HIFT)
    state = weights.fill(hift)
    # A pitch that wanders around a speaking voice's, harmonics that fall off, and a spectrum that does too.
    state["f0_predictor.classifier.weight"] *= 40.0
    state["f0_predictor.classifier.bias"] = torch.tensor([_PITCH_HZ])
    harmonics = torch.arange(1, HIFT.nb_harmonics + 2, dtype=torch.float32)
    state["m_source.l_linear.weight"] = (2.0 / harmonics)[None]
    bins = HIFT.n_fft // 2 + 1
    state["conv_post.weight"] *= 0.5
    state["conv_post.bias"][:bins] = -3.5 - 0.4 * torch.arange(bins)
    return state


def _with_weight_norm(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """The published form: every convolution but those of the source stores g and v instead of its weight."""
    with torch.device("meta"):
        hift = Hift(HIFT)
    unfolded = dict(state)
    for name, part in hift.named_modules():
        if isinstance(part, nn.Conv1d | nn.ConvTranspose1d) and not name.startswith("source_downs"):
            weight = unfolded.pop(f"{name}.weight")
            norm = weight.flatten(1).norm(dim=1).reshape(-1, 1, 1)
            unfolded[f"{name}.weight_g"], unfolded[f"{name}.weight_v"] = norm, weight
    return unfolded


def _campplus(weights: dict[str, NDArray[np.float32]]) -> bytes:
    """A small network of CAM++'s shape: filter bank (1, F, 80) to 192 values, independent of F."""
    arrays: dict[str, NDArray[Any]] = {**weights, "time": np.array([1], np.int64)}
    graph = helper.make_graph(
        [
            helper.make_node("MatMul", ["input", "first.weight"], ["projected"]),
            helper.make_node("Add", ["projected", "first.bias"], ["shifted"]),
            helper.make_node("Tanh", ["shifted"], ["bounded"]),
            helper.make_node("ReduceMean", ["bounded", "time"], ["pooled"], keepdims=0),
            helper.make_node("MatMul", ["pooled", "second.weight"], ["output"]),
        ],
        "main_graph",
        [helper.make_tensor_value_info("input", TensorProto.FLOAT, ["B", "T", 80])],
        [helper.make_tensor_value_info("output", TensorProto.FLOAT, ["B", 192])],
        [numpy_helper.from_array(array, name) for name, array in arrays.items()],
    )
    model = helper.make_model(
        graph, producer_name="step-audio-nano", opset_imports=[helper.make_opsetid("", 18)], ir_version=8
    )
    serialised: bytes = model.SerializeToString(deterministic=True)
    return serialised
