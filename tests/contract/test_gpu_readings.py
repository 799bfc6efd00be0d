"""From the driver to the operator: what NVML says in a pod is what is compared with the estimate.

The driver's library is the stand-in of tests/drivers; the pod's answer is its real one.
"""

import json
from pathlib import Path

import pytest

from stepaudio_operator.polling import Answer
from stepaudio_operator.records import GpuReading, Work
from stepaudio_runtime.health.nvml import Nvml
from stepaudio_runtime.health.state import PodState
from tests.drivers.stand_ins import NVML, build


def test_the_operator_reads_what_the_driver_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    library, says = build(NVML, tmp_path), tmp_path / "gpus"
    says.write_text("NVIDIA-A100 70000000000 85899345920 64 2 0\nTesla-T4 1000 16106127360 -1 -1 0\n")
    monkeypatch.setenv("FAKE_NVML", str(says))
    nvml = Nvml.open(str(library))
    assert nvml is not None
    state = PodState("chat")
    state.load_progress(0, 100)
    state.become_ready()
    state.gpus = nvml.read()
    assert Answer.from_json(json.loads(json.dumps(state.status()))) == Answer(
        "Ready",
        0,
        bytes_loaded=100,
        bytes_total=100,
        reason="Ready",
        message="",
        work=Work(in_flight=0, lately=0.0),
        gpus=(
            GpuReading("NVIDIA-A100", 70_000_000_000, 85_899_345_920),
            GpuReading("Tesla-T4", 1_000, 16_106_127_360),
        ),
    )
