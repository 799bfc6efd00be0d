"""Hops in the fixed shapes of captured graphs are the hops without: padding and empty places change nothing.

On a CPU nothing is captured, the same shapes are computed by calls; that a capture computes what a call does
is for `tests/gpu`.
"""

from __future__ import annotations

import copy
from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from stepaudio_runtime.errors import OutputError
from stepaudio_runtime.models.flow import Flow
from stepaudio_runtime.models.graphs import LONGEST, STREAMS, bucket, buckets
from stepaudio_runtime.models.hift import Hift
from stepaudio_runtime.tts.decoder import DecoderStream, SpeechDecoder
from stepaudio_runtime.tts.hops import HopPlan
from tests.parity.decoder.test_stream import CPU, SMALL, codes, voice

FAR = 2e-3  # of samples within ±0.99; rounding of the mel moves the phase of the harmonics


@pytest.fixture
def decoders(load_flow: Callable[[str], Flow], hift: Hift) -> tuple[SpeechDecoder, SpeechDecoder]:
    """Without graphs, and with."""
    flow = load_flow("chain")
    plain = SpeechDecoder(copy.deepcopy(flow), copy.deepcopy(hift), CPU, waste=1.0)
    return plain, SpeechDecoder(flow, hift, CPU, waste=1.0, graphs=True)


def speak(decoder: SpeechDecoder, lengths: list[int], prompts: list[int], plan: HopPlan) -> list[np.ndarray]:
    streams = [opened(decoder, i, length, prompts[i], plan) for i, length in enumerate(lengths)]
    waves: list[list[np.ndarray]] = [[] for _ in streams]
    while ready := [i for i, stream in enumerate(streams) if stream.ready]:
        for i, wave in zip(ready, decoder.advance([streams[i] for i in ready]), strict=True):
            assert isinstance(wave, np.ndarray)
            waves[i].append(wave)
    return [np.concatenate(parts) for parts in waves]


def opened(decoder: SpeechDecoder, seed: int, length: int, prompt: int, plan: HopPlan) -> DecoderStream:
    stream = decoder.open(voice(decoder, prompt, seed), seed, plan)
    stream.push(codes(decoder, length, seed), last=True)
    return stream


@pytest.mark.parametrize(
    ("lengths", "prompts"),
    [([37], [20]), ([1], [0]), ([60, 33, 90], [20, 0, 31]), ([40] * 5, [12] * 5)],
    ids=["one", "one code", "three in four places", "five in eight places"],
)
def test_with_graphs_is_without(
    decoders: tuple[SpeechDecoder, SpeechDecoder], lengths: list[int], prompts: list[int]
) -> None:
    plain, graphs = decoders
    for expected, got in zip(
        speak(plain, lengths, prompts, SMALL), speak(graphs, lengths, prompts, SMALL), strict=True
    ):
        assert got.shape == expected.shape
        assert np.abs(got - expected).max() <= FAR


def test_what_does_not_fit_is_computed_without(decoders: tuple[SpeechDecoder, SpeechDecoder]) -> None:
    plain, graphs = decoders
    length = LONGEST + 1  # codes: more than the longest bucket has, and their frames are more
    [expected], [got] = (speak(d, [length], [0], HopPlan.whole()) for d in (plain, graphs))
    assert np.array_equal(got, expected)


def test_numbers_that_are_none_do_not_stay(decoders: tuple[SpeechDecoder, SpeechDecoder]) -> None:
    plain, graphs = decoders
    sick = voice(graphs, 20)
    stream = graphs.open(type(sick)(sick.codes, sick.mel * torch.nan, sick.embedding), 1, SMALL)
    stream.push(codes(graphs, 60), last=True)
    [wave] = graphs.advance([stream])
    assert isinstance(wave, OutputError)
    [expected], [got] = (speak(d, [25], [20], SMALL) for d in (plain, graphs))
    assert np.abs(got - expected).max() <= FAR


@given(
    frames=st.integers(1, 2 * LONGEST),
    streams=st.integers(1, 2 * STREAMS[-1]),
    sizes=st.sampled_from([STREAMS, STREAMS[:-1]]),
)
def test_the_smallest_bucket_that_holds_it(frames: int, streams: int, sizes: tuple[int, ...]) -> None:
    found = bucket(frames, streams, sizes)
    large_enough = [(f, s) for f, s in buckets(sizes) if f >= frames and s >= streams]
    assert found == min(large_enough, default=None)
