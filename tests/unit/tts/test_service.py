"""How the TTS pod ends: its engine's process has died, or its speech decoder is beyond cure. Fake models."""

import asyncio
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from stepaudio_runtime.health.canary import CanaryPlan, Record
from stepaudio_runtime.health.state import PodState
from stepaudio_runtime.settings import TtsSettings
from stepaudio_runtime.tts.service import TtsService
from tests.unit.tts.fakes import PLAN, FakeDecoder, new_scheduler

HANGS_S = 60


class Speaks:
    """What the service needs of a Speaker: a loop, and a language model that lives until `lm.dead`."""

    def __init__(self) -> None:
        self.scheduler = new_scheduler()
        self.broken = FakeDecoder(lambda: RuntimeError("CUDA out of memory. Tried to allocate 2 GiB"))
        heard = SimpleNamespace(last_error=lambda: "RuntimeError: shm_open")
        self.lm = SimpleNamespace(dead=False, heard=heard, series=lambda: b"", close=lambda: None)

    async def canary(self) -> tuple[int, ...]:
        return (1, 2)

    async def say(self) -> np.ndarray | None:
        utterance = self.scheduler.open()
        part = utterance.begin(self.broken, self.broken.open(None, 0, PLAN))
        part.add([1, 2, 3])
        part.end()
        return await utterance.read()


@pytest.fixture
async def pod(tmp_path: Path):
    speaker, plan = Speaks(), CanaryPlan(Record(tmp_path / "canary.json"), interval_s=60, timeout_s=60)

    async def load(_metrics: object) -> Speaks:
        return speaker

    service = TtsService(PodState("tts"), load, TtsSettings(), plan)
    await service.start()
    yield speaker, service
    await service.stop()


async def test_a_decoder_beyond_cure_ends_the_pod_with_its_own_words(pod):
    speaker, service = pod
    for _ in range(3):
        with pytest.raises(RuntimeError, match="CUDA out of memory"):
            await speaker.say()
    assert repr(await asyncio.wait_for(service.failed, HANGS_S)) == (
        "EngineFailed('3 steps of the speech decoder in a row failed, the last of RuntimeError:"
        " CUDA out of memory. Tried to allocate 2 GiB')"
    )


async def test_an_engine_that_has_died_ends_the_pod_with_its_last_error(pod):
    speaker, service = pod
    speaker.lm.dead = True
    assert repr(await asyncio.wait_for(service.failed, HANGS_S)) == (
        "EngineFailed(\"vLLM's engine process has died: RuntimeError: shm_open; the pod's log has the rest\")"
    )
