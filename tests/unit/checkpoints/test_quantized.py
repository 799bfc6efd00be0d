"""A quantised checkpoint is known by its config.json, and has to be what the setting says."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from stepaudio_runtime.checkpoints.lm import read_lm
from stepaudio_runtime.contract import CHAT_FOLDER
from stepaudio_runtime.errors import ConfigError, ModelFileError
from stepaudio_runtime.pods.loading import check_quantization
from stepaudio_runtime.settings import EngineSettings

GPTQ = {"quant_method": "gptq", "bits": 4, "group_size": 128}
COMPRESSED = {
    "quant_method": "compressed-tensors",
    "config_groups": {"group_0": {"targets": ["Linear"], "weights": {"num_bits": 4, "type": "int"}}},
}


def folder(copy: Path, quantization: Any) -> Path:
    config = copy / CHAT_FOLDER / "config.json"
    said = {**json.loads(config.read_text()), "quantization_config": quantization}
    config.unlink()
    config.write_text(json.dumps(said))
    return config.parent


@pytest.mark.parametrize(
    ("said", "bits"), [(None, None), (GPTQ, 4), (COMPRESSED, 4), ({"quant_method": "fp8"}, 8)]
)
def test_the_bits_are_read(copy: Path, said: Any, bits: int | None) -> None:
    assert read_lm(folder(copy, said)).bits == bits


@pytest.mark.parametrize("said", ["int4", {}, {"bits": "4"}, {"bits": 4, "quant_method": "fp8"}])
def test_a_config_that_does_not_say_is_refused(copy: Path, said: Any) -> None:
    with pytest.raises(ModelFileError, match=r"quantization_config .* \(.*config\.json\)"):
        read_lm(folder(copy, said))


@pytest.mark.parametrize(
    ("setting", "said", "wrong"),
    [
        (None, None, ""),
        (None, GPTQ, ""),
        ("FP8", None, ""),
        ("FP8", GPTQ, "is quantised already"),
        ("INT4", COMPRESSED, ""),
        ("INT4", None, "is not quantised"),
        ("INT4", {"quant_method": "fp8"}, "has 8 bits"),
    ],
)
def test_setting_and_checkpoint_mean_the_same(copy: Path, setting: Any, said: Any, wrong: str) -> None:
    lm, engine = read_lm(folder(copy, said)), EngineSettings(quantization=setting)
    if not wrong:
        return check_quantization(lm, engine)
    with pytest.raises(ConfigError, match=wrong):
        check_quantization(lm, engine)
    return None
