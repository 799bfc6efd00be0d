"""Flow and vocoder on a device: time to the first chunk and real-time factor by number of streams."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Sequence
from statistics import median
from typing import Any

import torch

from stepaudio_runtime.checkpoints.random_weights import RandomWeights
from stepaudio_runtime.models.flow import Flow, FlowConfig, FlowItem
from stepaudio_runtime.models.hift import Hift, HiftConfig
from stepaudio_runtime.tts.decoder import DecoderStream, Prompt, SpeechDecoder
from stepaudio_runtime.tts.hops import HopPlan

CODE_RATE = 41.67
PROMPT_CODES = 125  # 3 s


def new_decoder(
    device: torch.device,
    dtype: torch.dtype,
    flow: FlowConfig | None = None,
    hift: HiftConfig | None = None,
    *,
    graphs: bool | None = None,
) -> SpeechDecoder:
    """Random weights; the published sizes unless others are given."""
    models = Flow(flow or FlowConfig()), Hift(hift or HiftConfig())
    for scope, model in zip(("flow", "hift"), models, strict=True):
        model.load_state_dict(RandomWeights(0, scope).fill(model))
    return SpeechDecoder(*models, device, dtype=dtype, graphs=graphs)


def speed(
    decoder: SpeechDecoder, streams: Sequence[int], seconds: float, rounds: int = 3
) -> dict[str, dict[str, float]]:
    """By number of streams that begin together: `first_chunk_s`, `real_time_factor` (of each of them: wall
    seconds a second of its audio), `peak_mib` of the device in it, and `offline_real_time_factor` of one hop
    for all.
    """
    found = {}
    for count in streams:
        _run(decoder, count, seconds, HopPlan())  # warm
        _free(decoder.device)
        hops = [_run(decoder, count, seconds, HopPlan()) for _ in range(rounds)]
        peak = _peak_mib(decoder.device)
        whole = [_run(decoder, count, seconds, HopPlan.whole()) for _ in range(rounds)]
        found[str(count)] = {
            "first_chunk_s": median(first for first, _ in hops),
            "real_time_factor": median(total for _, total in hops) / seconds,
            "offline_real_time_factor": median(total for _, total in whole) / seconds,
            "peak_mib": peak,
        }
    return found


def warm(decoder: SpeechDecoder) -> dict[str, float]:
    """What capturing all graphs takes: `seconds`, and `mib` of the device for as long as they are there."""
    _free(decoder.device)
    before, started = _held_mib(decoder.device), time.perf_counter()
    decoder.warm()
    _free(decoder.device)
    _wait(decoder.device)
    return {"seconds": time.perf_counter() - started, "mib": _held_mib(decoder.device) - before}


@torch.inference_mode()
def parts(decoder: SpeechDecoder, rounds: int = 10) -> dict[str, float]:
    """Seconds of the parts of a first hop of one stream: `prepare`, `solve` (with it), `hop` (with that)."""
    stream = _opened(decoder, 0, 10, HopPlan())
    hop = stream.hop
    assert hop is not None
    prompt, frames = stream.prompt, decoder.flow.frames(hop.seen)
    item = FlowItem(
        torch.tensor(stream.codes[: hop.seen], device=decoder.device),
        torch.tensor(prompt.codes, device=decoder.device),
        prompt.mel[0].to(decoder.device),
        prompt.embedding[0].to(decoder.device),
    )
    noise = torch.randn(80, frames + prompt.mel.shape[1], device=decoder.device)
    return {
        "prepare": _seconds(decoder.device, rounds, lambda: decoder.flow.prepare([item])),
        "solve": _seconds(decoder.device, rounds, lambda: decoder.flow.solve([item], [noise])),
        "hop": median(_run(decoder, 1, 10, HopPlan())[0] for _ in range(rounds)),
    }


def _seconds(device: torch.device, rounds: int, work: Callable[[], object]) -> float:
    taken = []
    for _ in range(rounds):
        _wait(device)
        started = time.perf_counter()
        work()
        _wait(device)
        taken.append(time.perf_counter() - started)
    return median(taken)


@torch.inference_mode()
def _run(decoder: SpeechDecoder, count: int, seconds: float, plan: HopPlan) -> tuple[float, float]:
    """Seconds to the first samples of all, and to the last."""
    opened = [_opened(decoder, seed, seconds, plan) for seed in range(count)]
    started = time.perf_counter()
    first = 0.0
    while ready := [stream for stream in opened if stream.ready]:
        decoder.advance(ready)  # gives samples on the host: nothing is left running
        first = first or time.perf_counter() - started
    return first, time.perf_counter() - started


def _opened(decoder: SpeechDecoder, seed: int, seconds: float, plan: HopPlan) -> DecoderStream:
    random, config = torch.Generator().manual_seed(seed), decoder.flow.config
    ids = torch.randint(0, 5120, (PROMPT_CODES + round(seconds * CODE_RATE),), generator=random).tolist()
    mel = torch.randn(1, decoder.flow.frames(PROMPT_CODES), config.output_size, generator=random)
    embedding = torch.randn(1, config.spk_embed_dim, generator=random)
    stream = decoder.open(Prompt(tuple(ids[:PROMPT_CODES]), mel, embedding), seed, plan)
    stream.push(ids[PROMPT_CODES:], last=True)
    return stream


def _free(device: torch.device) -> None:
    """Give back what is cached, and count the peak from here on."""
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(device)


def _peak_mib(device: torch.device) -> float:
    return torch.cuda.max_memory_reserved(device) / 2**20 if device.type == "cuda" else 0.0


def _held_mib(device: torch.device) -> float:
    return torch.cuda.memory_reserved(device) / 2**20 if device.type == "cuda" else 0.0


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def about(device: torch.device) -> dict[str, Any]:
    """The device and what runs on it."""
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu"
    return {"device": name, "torch": torch.__version__, "cuda": torch.version.cuda}
