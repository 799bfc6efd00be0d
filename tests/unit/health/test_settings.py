"""Settings of the pods from the environment: defaults, every variable, and one line for each wrong value."""

from pathlib import Path

import pytest

from stepaudio_runtime.contract import Component
from stepaudio_runtime.errors import ConfigError
from stepaudio_runtime.settings import EngineSettings, PodSettings, TokenizerSettings, TtsSettings


def test_an_empty_environment_gives_the_defaults():
    assert PodSettings.from_env({}, Component.TTS) == PodSettings(Component.TTS, Path("/models"))
    assert EngineSettings.from_env({}) == EngineSettings()
    assert TokenizerSettings.from_env({}) == TokenizerSettings()
    assert TtsSettings.from_env({}) == TtsSettings()


def test_every_variable_is_read():
    env = {
        "STEPAUDIO_MODELS_DIR": "/m",
        "STEPAUDIO_REVISION": "9d3e77b1",
        "STEPAUDIO_HOST": "127.0.0.1",
        "STEPAUDIO_PORT": "8100",
        "STEPAUDIO_DRAIN_TIMEOUT_S": "600",
        "STEPAUDIO_STALL_TIMEOUT_S": "30",
        "STEPAUDIO_MAX_IN_FLIGHT": "8",
        "STEPAUDIO_THREADS": "2",
        "STEPAUDIO_TERMINATION_LOG": "/tmp/words",
        "STEPAUDIO_RUN_DIR": "/tmp/run",
        "STEPAUDIO_DEVICE": "cuda",
        "STEPAUDIO_DTYPE": "bfloat16",
        "STEPAUDIO_TENSOR_PARALLEL": "4",
        "STEPAUDIO_MAX_MODEL_LEN": "16384",
        "STEPAUDIO_GPU_MEMORY_UTILIZATION": "0.85",
        "STEPAUDIO_KV_CACHE_GIB": "0.5",
        "STEPAUDIO_QUANTIZATION": "INT4",
        "STEPAUDIO_CANARY_INTERVAL_S": "15",
        "STEPAUDIO_LOAD_STALL_TIMEOUT_S": "300",
        "STEPAUDIO_MAX_AUDIO_S": "60",
        "STEPAUDIO_MAX_SPEECH_CODES": "100",
        "STEPAUDIO_MAX_INPUT_CHARS": "50",
    }
    assert PodSettings.from_env(env, Component.CHAT) == PodSettings(
        component=Component.CHAT,
        models_dir=Path("/m"),
        revision="9d3e77b1",
        host="127.0.0.1",
        port=8100,
        drain_timeout_s=600,
        stall_timeout_s=30,
        canary_interval_s=15,
        load_stall_timeout_s=300,
        max_in_flight=8,
        threads=2,
        termination_log=Path("/tmp/words"),
        run_dir=Path("/tmp/run"),
    )
    assert EngineSettings.from_env(env) == EngineSettings("cuda", "bfloat16", 4, 16384, 0.85, 0.5, "INT4")
    assert TokenizerSettings.from_env(env) == TokenizerSettings(60)
    assert TtsSettings.from_env(env) == TtsSettings(100, 50)


@pytest.mark.parametrize(
    ("name", "value", "line"),
    [
        ("STEPAUDIO_TENSOR_PARALLEL", "two", "STEPAUDIO_TENSOR_PARALLEL='two' is not a number"),
        ("STEPAUDIO_TENSOR_PARALLEL", "1.5", "STEPAUDIO_TENSOR_PARALLEL='1.5' is not a whole number"),
        ("STEPAUDIO_TENSOR_PARALLEL", "0", "STEPAUDIO_TENSOR_PARALLEL=0 is outside 1 to 64"),
        ("STEPAUDIO_KV_CACHE_GIB", "nan", "STEPAUDIO_KV_CACHE_GIB=nan is outside 0.001 to 4096"),
        ("STEPAUDIO_DTYPE", "float16", "STEPAUDIO_DTYPE='float16' is unknown; use one of float32, bfloat16"),
        ("STEPAUDIO_QUANTIZATION", "INT8", "STEPAUDIO_QUANTIZATION='INT8' is unknown; use one of FP8, INT4"),
    ],
)
def test_a_wrong_value_is_named(name, value, line):
    with pytest.raises(ConfigError) as error:
        EngineSettings.from_env({name: value})
    assert str(error.value).startswith(f"ConfigInvalid: {line}")
    assert "\n" not in str(error.value)
