"""Loads a CosyVoice folder: sizes from `cosyvoice.yaml`, weights from `flow.pt` and `hift.pt`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch

from stepaudio_runtime.checkpoints import layout
from stepaudio_runtime.checkpoints.files import adopt, read_state
from stepaudio_runtime.checkpoints.plain_yaml import Section, read_yaml
from stepaudio_runtime.checkpoints.presence import CURE
from stepaudio_runtime.errors import ModelFileError
from stepaudio_runtime.models.conformer import ConformerConfig
from stepaudio_runtime.models.estimator import EstimatorConfig
from stepaudio_runtime.models.flow import Flow, FlowConfig
from stepaudio_runtime.models.hift import Hift, HiftConfig
from stepaudio_runtime.models.weight_norm import fold_weight_norm


@dataclass(frozen=True, eq=False)
class DecoderModels:
    """A speech decoder's two networks, on one device, in inference mode."""

    flow: Flow
    hift: Hift


def load_decoder(folder: Path, device: torch.device | str = "cpu") -> DecoderModels:
    """The flow and the vocoder of a CosyVoice folder. Raises ModelFileError."""
    config = folder / layout.COSYVOICE_CONFIG
    top = read_yaml(config)
    flow_config, hift_config = flow_settings(top), hift_settings(top)
    try:
        with torch.device("meta"):
            flow, hift = Flow(flow_config), Hift(hift_config)
    except (ValueError, RuntimeError, IndexError) as error:
        what = f"the sizes contradict each other: {error}"
        raise ModelFileError("ModelConfigInvalid", file=config, what=what, cure=CURE) from error
    adopt(flow, read_state(folder / layout.FLOW), folder / layout.FLOW, config)
    hift_file = folder / layout.HIFT
    state = {key.removeprefix("generator."): value for key, value in read_state(hift_file).items()}
    try:
        folded = fold_weight_norm(state)
    except ValueError as error:
        raise ModelFileError("ModelShapeMismatch", file=hift_file, what=str(error), cure=CURE) from error
    adopt(hift, folded, hift_file, config)
    return DecoderModels(flow.to(device), hift.to(device))


def flow_settings(top: Section) -> FlowConfig:
    """The flow's sizes; refuses another architecture than the one computed here."""
    flow = top.section("flow")
    flow.expect_named("MaskedDiffWithXvec")
    encoder = flow.section("encoder")
    encoder.expect_named("ConformerEncoder")
    encoder.expect("input_size", flow.integer("input_size"))
    encoder.expect("normalize_before", True)
    encoder.expect("input_layer", "linear")
    encoder.expect("pos_enc_layer_type", "rel_pos_espnet")
    encoder.expect("selfattention_layer_type", "rel_selfattn")
    for absent in ("use_cnn_module", "macaron_style"):
        if absent not in encoder.data:
            raise encoder.wrong(absent, "is missing (its default is true, which is not computed here)")
        encoder.expect(absent, False)
    regulator = flow.section("length_regulator")
    regulator.expect_named("InterpolateRegulator")
    regulator.expect("channels", flow.integer("output_size"))
    ratios = regulator.integers("sampling_ratios")
    if set(ratios) != {1}:
        raise regulator.wrong("sampling_ratios", f"is {list(ratios)}, but only ones are computed here")
    decoder = flow.section("decoder")
    decoder.expect_named("ConditionalCFM")
    params = decoder.section("cfm_params")
    params = params.section("content") if "content" in params.data else params
    params.expect("solver", "euler")
    params.expect("t_scheduler", "cosine")
    estimator = decoder.section("estimator")
    estimator.expect_named("ConditionalDecoder")
    estimator.expect("act_fn", "gelu")
    return FlowConfig(
        input_size=flow.integer("input_size"),
        output_size=flow.integer("output_size"),
        spk_embed_dim=flow.integer("spk_embed_dim"),
        vocab_size=flow.integer("vocab_size"),
        input_frame_rate=flow.number("input_frame_rate"),
        regulator_stages=len(ratios),
        inference_cfg_rate=params.number("inference_cfg_rate"),
        encoder=ConformerConfig(
            output_size=encoder.integer("output_size"),
            attention_heads=encoder.integer("attention_heads"),
            linear_units=encoder.integer("linear_units"),
            num_blocks=encoder.integer("num_blocks"),
        ),
        estimator=EstimatorConfig(
            in_channels=estimator.integer("in_channels"),
            out_channels=estimator.integer("out_channels"),
            channels=estimator.integers("channels"),
            attention_head_dim=estimator.integer("attention_head_dim"),
            n_blocks=estimator.integer("n_blocks"),
            num_mid_blocks=estimator.integer("num_mid_blocks"),
            num_heads=estimator.integer("num_heads"),
        ),
    )


def hift_settings(top: Section) -> HiftConfig:
    """The vocoder's sizes; refuses another architecture than the one computed here."""
    hift = top.section("hift")
    hift.expect_named("HiFTGenerator")
    hift.expect("sampling_rate", 22050)  # another rate is another model family
    istft = hift.section("istft_params")
    predictor = hift.section("f0_predictor")
    predictor.expect_named("ConvRNNF0Predictor")
    predictor.expect("in_channels", hift.integer("in_channels"))
    return HiftConfig(
        in_channels=hift.integer("in_channels"),
        base_channels=hift.integer("base_channels"),
        nb_harmonics=hift.integer("nb_harmonics"),
        sampling_rate=hift.integer("sampling_rate"),
        nsf_alpha=hift.number("nsf_alpha"),
        nsf_sigma=hift.number("nsf_sigma"),
        nsf_voiced_threshold=hift.number("nsf_voiced_threshold"),
        upsample_rates=hift.integers("upsample_rates"),
        upsample_kernel_sizes=hift.integers("upsample_kernel_sizes"),
        n_fft=istft.integer("n_fft"),
        hop_len=istft.integer("hop_len"),
        resblock_kernel_sizes=hift.integers("resblock_kernel_sizes"),
        resblock_dilation_sizes=hift.integer_lists("resblock_dilation_sizes"),
        source_resblock_kernel_sizes=hift.integers("source_resblock_kernel_sizes"),
        source_resblock_dilation_sizes=hift.integer_lists("source_resblock_dilation_sizes"),
        lrelu_slope=hift.number("lrelu_slope"),
        audio_limit=hift.number("audio_limit"),
        f0_cond_channels=predictor.integer("cond_channels"),
    )
