"""GPUs through NVML, with a driver's library that is compiled here: readings, gaps in them, XIDs, silence."""

import asyncio
import os
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from stepaudio_runtime.errors import StepAudioError
from stepaudio_runtime.health.metrics import PodMetrics
from stepaudio_runtime.health.nvml import XID_WAIT_MS, Nvml, watch_gpus
from stepaudio_runtime.health.state import PodState
from tests.drivers.stand_ins import NVML, build

A100 = "NVIDIA-A100 70000000000 85899345920 64 2 0\n"
T4 = "Tesla-T4 1000 16106127360 -1 -1 0\n"
LOST = T4.replace(" 1000 ", " -15 ")


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(NVML, tmp_path_factory.mktemp("nvml"))


@pytest.fixture
def says(tmp_path: Path) -> Path:
    """The file that the library reads."""
    file = tmp_path / "gpus"
    file.write_text(A100 + T4)
    os.environ["FAKE_NVML"] = str(file)
    return file


def say(file: Path, text: str) -> None:
    """At once: the library may be reading."""
    new = file.with_suffix(".new")
    new.write_text(text)
    new.replace(file)


def hush(file: Path) -> None:
    """From now on the library has no answer."""
    file.unlink()


def opened(library: Path) -> Nvml:
    nvml = Nvml.open(str(library))
    assert nvml is not None
    return nvml


@asynccontextmanager
async def watched(
    library: Path, read_s: float = 10
) -> AsyncIterator[tuple[PodState, asyncio.Future[StepAudioError]]]:
    """A pod whose GPUs are watched, and have been read once."""
    state, failed = PodState("chat"), asyncio.get_running_loop().create_future()
    watching = asyncio.create_task(watch_gpus(state, opened(library), failed, read_s))
    await until(lambda: len(state.gpus) == 2)
    yield state, failed
    watching.cancel()
    await asyncio.sleep(XID_WAIT_MS / 1000 + 0.1)  # a thread that still waits would take the next one's XID


async def until(there: Callable[[], bool]) -> None:
    async with asyncio.timeout(30):
        while not there():  # noqa: ASYNC110 - it has no event
            await asyncio.sleep(0.01)


def test_the_whole_reading_of_two_cards(library: Path, says: Path) -> None:
    assert opened(library).read() == [
        {
            "product": "NVIDIA-A100",
            "usedBytes": 70_000_000_000,
            "totalBytes": 85_899_345_920,
            "temperature": 64,
            "eccErrors": 2,
            "xid": None,
        },
        {
            "product": "Tesla-T4",
            "usedBytes": 1000,
            "totalBytes": 16_106_127_360,
            "temperature": None,
            "eccErrors": None,
            "xid": None,
        },
    ]


def test_without_a_library_or_a_driver_there_is_nothing_to_watch(library: Path, says: Path) -> None:
    assert Nvml.open("/nowhere/libnvidia-ml.so.1") is None
    says.unlink()
    assert Nvml.open(str(library)) is None


async def test_a_fault_of_the_card_ends_the_pod_and_a_programs_own_does_not(
    library: Path, says: Path
) -> None:
    async with watched(library) as (state, failed):
        say(says, A100.replace(" 0\n", " 31\n") + T4)
        await until(lambda: any(gpu["xid"] == 31 for gpu in state.gpus))
        assert not failed.done()
        say(says, A100.replace(" 0\n", " 31\n") + T4.replace(" 0\n", " 79\n"))
        error = await asyncio.wait_for(failed, 30)
    assert (error.reason, str(error)) == ("GpuFault", "XID 79 on GPU 1 (Tesla-T4)")
    series = PodMetrics(state).text().decode()
    assert 'stepaudio_gpu_xid{gpu="1",product="Tesla-T4"} 79.0' in series
    assert 'stepaudio_gpu_temperature_celsius{gpu="0",product="NVIDIA-A100"} 64.0' in series
    assert 'stepaudio_gpu_temperature_celsius{gpu="1"' not in series


@pytest.mark.parametrize(
    ("read_s", "now", "fault"),
    [
        (60, LOST.replace(" 0\n", " 79\n"), "XID 79 on GPU 1 (Tesla-T4)"),
        (0.01, LOST, "a GPU is lost: nvmlDeviceGetMemoryInfo returned 15"),
    ],
)
async def test_a_card_that_is_lost_ends_the_pod_although_it_cannot_be_read_any_more(
    library: Path, says: Path, read_s: float, now: str, fault: str
) -> None:
    async with watched(library, read_s) as (_state, failed):
        say(says, A100 + now)
        error = await asyncio.wait_for(failed, 30)
    assert (error.reason, str(error)) == ("GpuFault", fault)


async def test_a_driver_that_does_not_answer_for_a_while_is_watched_on(
    library: Path, says: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with watched(library, 0.01) as (state, failed):
        hush(says)
        await until(lambda: len(caplog.messages) == 2)
        await asyncio.sleep(0.2)
        say(says, A100.replace(" 64 ", " 65 ") + T4)
        await until(lambda: state.gpus[0]["temperature"] == 65)
        assert sorted(caplog.messages) == [
            "the GPUs cannot be listened to now: nvmlEventSetWait_v2 returned 999",
            "the GPUs cannot be read now: nvmlDeviceGetMemoryInfo returned 999",
        ]
        say(says, A100.replace(" 0\n", " 48\n") + T4)
        assert str(await asyncio.wait_for(failed, 30)) == "XID 48 on GPU 0 (NVIDIA-A100)"
