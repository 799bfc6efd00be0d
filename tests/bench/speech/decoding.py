"""Flow and vocoder at their published sizes: against the plain path, in a batch, in hops, as a share of the
machine's limit."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

from stepaudio_runtime.models.hift import Hift
from stepaudio_runtime.models.hift_source import SourceNoise
from stepaudio_runtime.models.hift_stream import MelPiece, VocoderStream, advance
from stepaudio_runtime.tts.decoder import DecoderStream, Prompt, SpeechDecoder
from stepaudio_runtime.tts.hops import HopPlan
from tests.bench.speech import machine, plain
from tests.bench.speech.models import CPU, PROMPT_S, codes, item, new_flow, new_hift, voice
from tests.bench.speech.timing import interleaved

SECONDS = 10.0
STEPS = 10  # of the solver
BATCH_S = (1.5, 2.0, 2.5, 3.0)


@torch.inference_mode()
def flow_and_vocoder(rounds: int) -> dict[str, Any]:
    """10 s with a prompt of 3 s: plain float32, ours in float32, ours in bfloat16, each with its distance."""
    flow, hift = new_flow(), new_hift()
    plain_hift, low = plain.PlainVocoder(hift), new_flow()
    low.decoder.estimator.to(torch.bfloat16)
    asked, noise = item(flow, voice(flow), codes(SECONDS))
    frames = noise.shape[1]
    mels: dict[str, Tensor] = {}
    waves: dict[str, Tensor] = {}

    def way(name: str, make: Callable[[], Tensor]) -> Callable[[], None]:
        vocoder = plain_hift.wave_of if name == "plain" else hift

        def run() -> None:
            mels[name] = make()
            waves[name] = speak(hift, mels[name], vocoder)

        return run

    ways = {
        "plain": way("plain", lambda: plain.mel_of(flow, asked, noise)),
        "float32": way("float32", lambda: flow.solve([asked], [noise])[0]),
    }
    if machine.bfloat16_is_native():
        ways["bfloat16"] = way("bfloat16", lambda: low.solve([asked], [noise])[0])
    times = interleaved(ways, rounds, warm_up=False)
    vocoders = interleaved(
        {
            "plain": lambda: speak(hift, mels["plain"], plain_hift.wave_of),
            "ours": lambda: speak(hift, mels["plain"]),
        },
        rounds,
        warm_up=False,
    )
    one, two = (machine.work(lambda n=n: plain.mel_of(flow, asked, noise, steps=n)) for n in (1, 2))
    flop = {kind: one[kind] + (STEPS - 1) * (two[kind] - one[kind]) for kind in one}
    flop[machine.ATTENTION] = machine.attention_work(frames)
    vocoder_flop = machine.work(lambda: speak(hift, mels["plain"], plain_hift.wave_of))
    found: dict[str, Any] = {
        "rounds": times.as_json(),
        "vocoder_s": vocoders["ours"],
        "vocoder_faster": vocoders.ratio("plain", "ours"),
        "gflop": {"flow": flop, "vocoder": vocoder_flop},
        "seconds": SECONDS,
        "frames": frames,
        "ways": {},
    }
    exact = machine.rates(torch.float32, frames)
    for name in ways:
        rate = machine.rates(torch.bfloat16, frames) if name == "bfloat16" else exact
        limit = machine.limit_s(flop, rate) + machine.limit_s(vocoder_flop, exact)
        off = mels[name] - mels["plain"]
        found["ways"][name] = {
            "s": times[name],
            "faster": times.ratio("plain", name),
            "limit_s": limit,
            "share_of_limit": limit / times[name],
            "rates": rate,
            "wave_max": float((waves[name] - waves["plain"]).abs().max()),
            "mel_max": float(off.abs().max()),
            "mel_rms": float(off.square().mean().sqrt() / mels["plain"].square().mean().sqrt()),
        }
    return found


@torch.inference_mode()
def batch(rounds: int) -> dict[str, Any]:
    """Four utterances of different length, together and one after the other."""
    decoder = SpeechDecoder(new_flow(), new_hift(), CPU)
    prompt = voice(decoder.flow)
    asked = [codes(seconds, i) for i, seconds in enumerate(BATCH_S)]
    decoder.advance([whole(decoder, prompt, codes(0.5))])  # the first one pays for the memory of all

    def opened() -> list[DecoderStream]:
        return [whole(decoder, prompt, ids) for ids in asked]

    def alone() -> None:
        for stream in opened():
            decoder.advance([stream])

    times = interleaved(
        {"together": lambda: decoder.advance(opened()), "alone": alone}, rounds, warm_up=False
    )
    return {
        "rounds": times.as_json(),
        "seconds": BATCH_S,
        "over_sum": times.ratio("together", "alone"),
        "alone_s": times["alone"],
        "together_s": times["together"],
    }


@torch.inference_mode()
def streaming(rounds: int) -> dict[str, Any]:
    """10 s in the default hops against one hop; and one hop in the middle of a long text."""
    decoder = SpeechDecoder(new_flow(), new_hift(), CPU)
    prompt, ids, plan = voice(decoder.flow), codes(SECONDS), HopPlan()
    decoder.advance([whole(decoder, prompt, codes(0.5))])  # the first one pays for the memory of all

    def drained(stream: DecoderStream) -> None:
        while stream.ready:
            decoder.advance([stream])

    def stream(plan: HopPlan) -> DecoderStream:
        opened = decoder.open(prompt, 1, plan)
        opened.push(ids, last=True)
        return opened

    def first() -> None:
        decoder.advance([stream(plan)])

    times = interleaved(
        {
            "offline": lambda: drained(stream(HopPlan.whole())),
            "hops": lambda: drained(stream(plan)),
            "first": first,
        },
        rounds,
        warm_up=False,
    )
    hops, start = [], 0
    while (hop := plan.next_hop(len(hops), start, len(ids), last=True)) is not None:
        hops.append(hop)
        start = hop.stop
    steady = (plan.context + plan.largest + plan.look_ahead) / plan.largest
    return {
        "rounds": times.as_json(),
        "offline_s": times["offline"],
        "hops_s": times["hops"],
        "first_hop_s": times["first"],
        "first_hop_audio_s": plan.first / 41.67,
        "over_offline": times.ratio("hops", "offline"),
        "codes_over_offline": plan.cost(hops, len(prompt.codes)),
        "steady": steady,
        "prompt_s": PROMPT_S,
        "hops": [hop.stop - hop.start for hop in hops],
    }


@torch.inference_mode()
def vocoder_in_pieces(rounds: int) -> dict[str, Any]:
    """10 s of mel at once and in pieces of a second; the wave is the same."""
    hift = new_hift()
    mel = torch.randn(80, 861, generator=torch.Generator().manual_seed(0)) * 2 - 4
    waves: dict[str, Tensor] = {}

    def pieces(frames: int) -> Tensor:
        stream = VocoderStream(hift.config, 1, CPU)
        cuts = [*range(0, mel.shape[1], frames), mel.shape[1]]
        return torch.cat(
            [advance(hift, [MelPiece(stream, mel[:, a:b], b == mel.shape[1])])[0] for a, b in pairwise(cuts)]
        )

    def at_once() -> None:
        waves["whole"] = pieces(mel.shape[1])

    def by_seconds() -> None:
        waves["pieces"] = pieces(86)

    times = interleaved({"whole": at_once, "pieces": by_seconds}, rounds)
    return {
        "rounds": times.as_json(),
        "whole_s": times["whole"],
        "over_whole": times.ratio("pieces", "whole"),
        "wave_max": float((waves["whole"] - waves["pieces"]).abs().max()),
    }


def speak(hift: Hift, mel: Tensor, vocoder: Callable[[Tensor, SourceNoise], Tensor] | None = None) -> Tensor:
    """The whole wave of a mel (80, frames), by `vocoder` in the place of `hift` itself."""
    return (vocoder or hift)(mel[None], hift.random(mel.shape[1], torch.Generator().manual_seed(1)))


def whole(decoder: SpeechDecoder, prompt: Prompt, ids: list[int]) -> DecoderStream:
    """An utterance that is decoded in one hop."""
    stream = decoder.open(prompt, 1, HopPlan.whole())
    stream.push(ids, last=True)
    return stream
