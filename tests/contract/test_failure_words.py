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
from tests.drivers.stand_ins import FULL_CARD, OLD_DRIVER, StandIn, build


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


@pytest.mark.vllm
def test_a_card_that_another_holds_as_vllm_says_it() -> None:
    from vllm.config import CacheConfig
    from vllm.utils.mem_utils import MemorySnapshot
    from vllm.v1.worker.utils import request_memory

    held = MemorySnapshot(free_memory=4 << 30, total_memory=80 << 30, device="cuda:0", auto_measure=False)
    with pytest.raises(ValueError) as raised:
        request_memory(held, CacheConfig(gpu_memory_utilization=0.6))
    assert reason(engine_said(raised.value)) == "CudaOutOfMemory"


def test_a_full_disk_as_the_kernel_says_it() -> None:
    with pytest.raises(OSError) as raised, Path("/dev/full").open("wb", buffering=0) as full:
        full.write(b"x")
    assert reason(engine_said(raised.value)) == "DiskFull"


def torch_on(driver: StandIn, folder: Path, statement: str, **env: str) -> str:
    """What torch says to `statement` in a process of its own, on a machine with that driver."""
    library = build(driver, folder)
    code = f"import torch\ntry: {statement}\nexcept Exception as error: print(type(error).__name__, error)"
    preload = {"LD_PRELOAD": str(library)} if driver.runtime else {}
    return subprocess.run(
        [sys.executable, "-c", code],
        env={"LD_LIBRARY_PATH": str(folder), "PATH": "/usr/bin", **preload, **env},
        capture_output=True,
        text=True,
        check=True,
    ).stdout


def test_an_allocation_beyond_the_card_as_torch_says_it(tmp_path: Path) -> None:
    said = torch_on(FULL_CARD, tmp_path, "torch.ones(1 << 28, device='cuda')")
    assert said.startswith("OutOfMemoryError CUDA out of memory. Tried to allocate 1024.00 MiB. GPU 0"), said
    assert reason(engine_said(RuntimeError(said))) == "CudaOutOfMemory"


def test_cards_that_find_no_way_to_each_other_as_nccl_says_it(tmp_path: Path) -> None:
    group = "backend='nccl', store=torch.distributed.HashStore(), rank=0, world_size=1"
    said = torch_on(
        FULL_CARD,
        tmp_path,
        f"torch.distributed.init_process_group({group}, device_id=torch.device('cuda:0'))",
        NCCL_SOCKET_IFNAME="nowhere0",
    )
    assert "no socket interface found" in said
    assert reason(engine_said(RuntimeError(said))) == "NcclFailed"


def test_a_driver_that_is_too_old_as_torch_says_it(tmp_path: Path) -> None:
    said = torch_on(OLD_DRIVER, tmp_path, "torch.cuda.init()")
    assert reason(engine_said(RuntimeError(said))) == "DriverTooOld", said
