"""Language model, flow and vocoder on one GPU: the section `together` of `vllm_on_device`."""

from __future__ import annotations

import asyncio
import contextlib
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass
from statistics import median
from typing import TYPE_CHECKING, Any

from tests.gpu.vllm_shape import OFFSET, PROMPT, engine_options, used_mib

if TYPE_CHECKING:
    from stepaudio_runtime.tts.decoder import Prompt, SpeechDecoder
    from stepaudio_runtime.tts.scheduler import Scheduler
    from stepaudio_runtime.tts.speech_lm import SpeechLm

STREAMS = (1, 4, 8, 16, 32)
CODES = 417  # 10 s of speech
FIRST_HOP = 45  # codes that must be there, and one more
ROUNDS = 3


@dataclass(frozen=True)
class Spoken:
    """One answer: seconds to its first samples, its last, and the language model's end; codes, s of audio."""

    first: float
    last: float
    written: float
    codes: tuple[int, ...]
    audio: float


def together() -> dict[str, Any]:
    """As a TTS pod has it: the language model in a process of its own, flow and vocoder in this one."""
    import torch
    from vllm import AsyncEngineArgs
    from vllm.v1.engine.async_llm import AsyncLLM

    from stepaudio_runtime.tts.speech_lm import SpeechLm
    from tests.gpu.speed import new_decoder

    async def run() -> dict[str, Any]:
        clock = _Progress()
        decoder = new_decoder(torch.device("cuda"), torch.bfloat16)
        decoder.warm()
        found: dict[str, Any] = {
            "flow_vocoder_and_graphs_mib": used_mib(),
            "warm_s": clock.says("decoders warm"),
        }
        with tempfile.TemporaryDirectory() as folder:
            options = engine_options(folder, disable_log_stats=True, enable_log_requests=False)
            lm = SpeechLm(AsyncLLM.from_engine_args(AsyncEngineArgs(**options)), OFFSET, 8192)
        found |= {"all_mib": used_mib(), "engine_s": clock.says("language model loaded")}
        try:
            found["language_model_alone"] = await _alone(lm)
            clock.says("language model alone")
            found |= await streams(decoder, lm, STREAMS, clock.says)
        finally:
            lm.close()
        return found | {"peak_mib": used_mib()}

    return asyncio.run(run())


async def _alone(lm: SpeechLm) -> dict[str, float]:
    """With no decoder at work beside it: seconds to the codes of a first hop, ids a second."""

    async def write(seed: int) -> tuple[float, float]:
        started, seen, first = time.perf_counter(), 0, 0.0
        async for codes in lm.stream(_prompt(seed), max_codes=CODES, seed=seed):
            seen += len(codes)
            first = first or (time.perf_counter() - started if seen > FIRST_HOP else 0.0)
        return first, seen / (time.perf_counter() - started)

    await write(0)
    every = [await write(seed) for seed in range(1, 4)]
    return {
        "codes_of_a_first_hop_s": median(first for first, _ in every),
        "ids_a_second": median(rate for _, rate in every),
    }


async def streams(
    decoder: SpeechDecoder,
    lm: SpeechLm,
    counts: Sequence[int],
    says: Callable[[str], object],
    codes: int = CODES,
) -> dict[str, Any]:
    """By number of utterances that begin together: first audio, real-time factor, audio a second."""
    from stepaudio_vllm.audio_rule import CODES as KNOWN

    found: dict[str, Any] = {}
    voice = _voice(decoder)
    async with _scheduler() as scheduler:

        async def speak(seed: int) -> Spoken:
            return await _speak(decoder, lm, scheduler, voice, seed, codes)

        await asyncio.gather(*(speak(seed) for seed in range(4)))  # warm
        for count in counts:
            rounds = [
                await asyncio.gather(*(speak(100 * turn + seed) for seed in range(count)))
                for turn in range(1, ROUNDS + 1)
            ]
            every = [one for some in rounds for one in some]
            found[str(count)] = {
                "first_audio_s": median(one.first for one in every),
                "first_audio_worst_s": max(one.first for one in every),
                "real_time_factor": median(one.last / one.audio for one in every),
                "audio_a_second": sum(one.audio for one in every)
                / sum(max(one.last for one in some) for some in rounds),
                "language_model_ids_a_second_of_each": median(len(one.codes) / one.written for one in every),
                "codes_that_are_none": sum(not 0 <= code < KNOWN for one in every for code in one.codes),
            }
            says(f"{count} together")
    return found


def _voice(decoder: SpeechDecoder) -> Prompt:
    import torch

    from stepaudio_runtime.tts.decoder import Prompt
    from tests.gpu.speed import PROMPT_CODES

    random, config = torch.Generator().manual_seed(1), decoder.flow.config
    mel = torch.randn(1, decoder.flow.frames(PROMPT_CODES), config.output_size, generator=random)
    embedding = torch.randn(1, config.spk_embed_dim, generator=random)
    return Prompt(tuple(range(PROMPT_CODES)), mel, embedding)


async def _speak(
    decoder: SpeechDecoder, lm: SpeechLm, scheduler: Scheduler, voice: Prompt, seed: int, most: int
) -> Spoken:
    from stepaudio_runtime.tts.hops import HopPlan

    started, first, written, samples = time.perf_counter(), 0.0, 0.0, 0
    said: list[int] = []
    utterance = scheduler.open()

    async def write() -> None:
        nonlocal written
        try:
            part = utterance.begin(decoder, decoder.open(voice, seed, HopPlan()))
            async for codes in lm.stream(_prompt(seed), max_codes=most, seed=seed):
                said.extend(codes)
                part.add(codes)
            written = time.perf_counter() - started
            part.end()
            utterance.end()
        except Exception as error:  # else the reader would wait for ever
            utterance.fail(error)

    writing = asyncio.create_task(write())
    try:
        while (wave := await utterance.read()) is not None:
            first = first or time.perf_counter() - started
            samples += len(wave)
    finally:
        await writing
        scheduler.close(utterance)
    return Spoken(first, time.perf_counter() - started, written, tuple(said), samples / 22_050)


@contextlib.asynccontextmanager
async def _scheduler() -> AsyncIterator[Scheduler]:
    from prometheus_client import CollectorRegistry

    from stepaudio_runtime.service.worker import Worker
    from stepaudio_runtime.tts.metrics import SpeechMetrics
    from stepaudio_runtime.tts.scheduler import Scheduler

    scheduler = Scheduler(
        Worker("decoder", bound=64),
        bound=64,
        batch=16,
        clock=time.monotonic,
        metrics=SpeechMetrics(CollectorRegistry()),
    )
    running = asyncio.create_task(scheduler.run())
    try:
        yield scheduler
    finally:
        running.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await running


def _prompt(seed: int) -> list[int]:
    return [(7 * seed + 13 * k) % 60000 + 5 for k in range(PROMPT)]


class _Progress:
    def __init__(self) -> None:
        self._since = time.perf_counter()

    def says(self, what: str) -> float:
        """Seconds since it was last called, which it says too."""
        now = time.perf_counter()
        took, self._since = now - self._since, now
        print(f"{what}: {took:.1f} s", file=sys.stderr, flush=True)
        return took
