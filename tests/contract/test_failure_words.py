"""What pods and libraries really say is recognised by the operator's table of failures.

Texts are not written here: they come from the exceptions of the runtime, of vLLM and of torch, and from the
kernel, raised as they are in a pod and brought into a pod's last words by the runtime's own code.
"""

import subprocess
import sys
from pathlib import Path

import pytest

from stepaudio_operator.failures import FAILURES, diagnose
from stepaudio_operator.records import PodRecord
from stepaudio_runtime import volume
from stepaudio_runtime.contract import StartReason
from stepaudio_runtime.download import retries
from stepaudio_runtime.errors import ConfigError
from stepaudio_runtime.health.canary import CanaryFailed
from stepaudio_runtime.health.load_watch import LoadStalled
from stepaudio_runtime.health.nvml import GpuFault
from stepaudio_runtime.health.process import EngineStalled, last_words
from stepaudio_runtime.service.engine import EngineFailed
from tests.drivers.stand_ins import CUDA, build


def reason(words: str) -> str | None:
    ended = {"exitCode": 1, "reason": "Error", "message": words + "\n"}
    container = {"name": "main", "lastState": {"terminated": ended}}
    raw = {"metadata": {"name": "p"}, "status": {"containerStatuses": [container]}}
    row = diagnose(PodRecord.from_raw(raw))
    return row.reason if row else None


def engine_said(error: BaseException) -> str:
    """Last words of a pod whose engine has ended by `error`."""
    return last_words(EngineFailed(f"vLLM exited with status 1: {type(error).__name__}: {error}"))


def test_every_word_of_the_runtime_has_a_row() -> None:
    own = {EngineStalled, LoadStalled, CanaryFailed, GpuFault, EngineFailed, ConfigError}
    words = {kind.reason for kind in own} | set(StartReason)
    words |= {retries.UNAUTHORIZED, retries.NOT_FOUND, retries.RATE_LIMITED, retries.UNAVAILABLE}
    words |= {retries.CHECKSUM, volume.FULL, volume.NOT_WRITABLE}
    assert words == {row.word for row in FAILURES if row.word}
    for word in words:
        assert reason(f"{word}: what; cure") == word


@pytest.mark.vllm
def test_no_room_for_the_cache_as_vllm_says_it() -> None:
    from vllm.v1.core.kv_cache_utils import _check_enough_kv_cache_memory as check

    for available in (0, 1 << 20):
        with pytest.raises(ValueError) as raised:
            check(available, lambda: 1 << 30, 16384, lambda memory: 16)
        assert reason(engine_said(raised.value)) == "NoCacheBlocks"


def test_a_full_disk_as_the_kernel_says_it() -> None:
    with pytest.raises(OSError) as raised, Path("/dev/full").open("wb", buffering=0) as full:
        full.write(b"x")
    assert reason(engine_said(raised.value)) == "DiskFull"


def test_an_allocation_beyond_the_card_as_torch_names_it() -> None:
    # The class is torch's own; that CUDA raises it with these words is not shown without a card.
    import torch

    error = torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")
    assert reason(engine_said(error)) == "CudaOutOfMemory"


def test_a_driver_that_is_too_old_as_torch_says_it(tmp_path: Path) -> None:
    build(CUDA, tmp_path)
    code = "import torch\ntry: torch.cuda.init()\nexcept Exception as error: print(error)"
    said = subprocess.run(
        [sys.executable, "-c", code],
        env={"LD_LIBRARY_PATH": str(tmp_path), "PATH": "/usr/bin"},
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    assert reason(engine_said(RuntimeError(said))) == "DriverTooOld", said
