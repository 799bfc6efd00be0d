"""The flow and the vocoder of a golden folder: sizes from its `configs.json`, weights from its files."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields
from typing import Any

import pytest

from stepaudio_runtime.models.conformer import ConformerConfig
from stepaudio_runtime.models.estimator import EstimatorConfig
from stepaudio_runtime.models.flow import Flow, FlowConfig
from stepaudio_runtime.models.hift import Hift, HiftConfig
from stepaudio_runtime.models.weight_norm import fold_weight_norm


def flow_config(sizes: dict[str, Any], file: str) -> FlowConfig:
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


def hift_config(sizes: dict[str, Any]) -> HiftConfig:
    """The folder's words; any field of the configuration may appear under its own name."""
    given = {key.replace("f0_predictor.cond_channels", "f0_cond_channels"): sizes[key] for key in sizes}
    assert given.keys() <= {field.name for field in fields(HiftConfig)}
    return HiftConfig(**{key: tuple(v) if isinstance(v, list) else v for key, v in given.items()})


@pytest.fixture
def load_flow(golden: Any) -> Callable[[str], Flow]:
    return lambda file: _flow(golden, file)


@pytest.fixture(scope="session")
def flow_once(golden: Any) -> Flow:
    """Shared by the examples of a property test; add no hooks to it."""
    return _flow(golden, "flow_prompt")


def _flow(golden: Any, file: str) -> Flow:
    flow = Flow(flow_config(golden.configs["flow"], file)).eval()
    flow.load_state_dict(golden.tensors("flow_weights"))
    return flow


@pytest.fixture
def hift(golden: Any) -> Hift:
    return _hift(golden)


@pytest.fixture(scope="session")
def hift_once(golden: Any) -> Hift:
    """Shared by the examples of a property test; add no hooks to it."""
    return _hift(golden)


def _hift(golden: Any) -> Hift:
    model = Hift(hift_config(golden.configs["hift"])).eval()
    model.load_state_dict(fold_weight_norm(golden.tensors("hift_weights")))
    return model
