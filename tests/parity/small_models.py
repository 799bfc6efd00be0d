"""The flow and the vocoder of a golden folder: its sizes in our words, its weights in our modules.

Imports torch alone, so that a machine with little else can compare too (`tests/gpu`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from typing import Any

from torch import Tensor

from stepaudio_runtime.contract import AUDIO_CODES
from stepaudio_runtime.models.conformer import ConformerConfig
from stepaudio_runtime.models.estimator import EstimatorConfig
from stepaudio_runtime.models.flow import Flow, FlowConfig
from stepaudio_runtime.models.hift import Hift, HiftConfig
from stepaudio_runtime.models.weight_norm import fold_weight_norm

FLOW_WORDS = frozenset(
    (
        *("input_size", "vocab_size", "input_frame_rate", "encoder.output_size", "attention_heads"),
        *("linear_units", "num_blocks", "channels", "attention_head_dim", "n_blocks", "num_mid_blocks"),
        "num_heads",
    )
)


def flow_config(sizes: Mapping[str, Any], file: str) -> FlowConfig:
    """Of `configs.json`'s words under "flow", all of them known, at the rate of the vectors in `file`."""
    assert sizes.keys() <= FLOW_WORDS
    return FlowConfig(
        input_size=sizes["input_size"],
        vocab_size=sizes["vocab_size"],
        input_frame_rate=sizes["input_frame_rate"][file],
        encoder=ConformerConfig(
            output_size=sizes["encoder.output_size"],
            attention_heads=sizes["attention_heads"],
            linear_units=sizes["linear_units"],
            num_blocks=sizes["num_blocks"],
        ),
        estimator=EstimatorConfig(
            channels=tuple(sizes["channels"]),
            attention_head_dim=sizes["attention_head_dim"],
            n_blocks=sizes["n_blocks"],
            num_mid_blocks=sizes["num_mid_blocks"],
            num_heads=sizes["num_heads"],
        ),
    )


def known_codes(flow: Flow) -> int:
    """How many audio codes there are to draw from: a small flow knows fewer than there are."""
    return min(AUDIO_CODES, flow.config.vocab_size)


def hift_config(sizes: Mapping[str, Any]) -> HiftConfig:
    """The folder's words; any field of the configuration may appear under its own name."""
    given = {key.replace("f0_predictor.cond_channels", "f0_cond_channels"): sizes[key] for key in sizes}
    assert given.keys() <= {field.name for field in fields(HiftConfig)}
    return HiftConfig(**{key: tuple(v) if isinstance(v, list) else v for key, v in given.items()})


def small_flow(sizes: Mapping[str, Any], weights: Mapping[str, Tensor], file: str) -> Flow:
    """The flow of `flow_weights`."""
    flow = Flow(flow_config(sizes, file)).eval()
    flow.load_state_dict(weights)
    return flow


def small_hift(sizes: Mapping[str, Any], weights: Mapping[str, Tensor]) -> Hift:
    """The vocoder of `hift_weights`."""
    hift = Hift(hift_config(sizes)).eval()
    hift.load_state_dict(fold_weight_norm(dict(weights)))
    return hift
