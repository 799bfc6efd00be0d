"""A stream of hops: one as long as the utterance is the offline decoder; time of arrival changes nothing."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from stepaudio_runtime.errors import InputError, OutputError
from stepaudio_runtime.models.flow import Flow, FlowItem, noise_at
from stepaudio_runtime.models.hift import Hift
from stepaudio_runtime.models.hift_stream import MelPiece, VocoderStream, advance
from stepaudio_runtime.tts.decoder import DecoderStream, Prompt, SpeechDecoder
from stepaudio_runtime.tts.hops import HopPlan, PromptMode
from tests.parity.small_models import known_codes, small_flow, small_hift

CPU = torch.device("cpu")
NEAR = 8  # samples on either side of a border
SMALL = HopPlan(first=15, growth=1.5, largest=30, context=10, look_ahead=5)


@pytest.fixture
def decoder(load_flow: Callable[[str], Flow], hift: Hift) -> SpeechDecoder:
    return SpeechDecoder(load_flow("chain"), hift, CPU)


def codes(decoder: SpeechDecoder, count: int, seed: int = 0) -> list[int]:
    random = torch.Generator().manual_seed(seed)
    return torch.randint(0, known_codes(decoder.flow), (count,), generator=random).tolist()


def voice(decoder: SpeechDecoder, count: int = 20, seed: int = 9) -> Prompt:
    random = torch.Generator().manual_seed(seed)
    frames = 2 * count + 3 if count else 0
    return Prompt(
        tuple(codes(decoder, count, seed)),
        torch.randn(1, frames, 80, generator=random),
        torch.randn(1, 192, generator=random),
    )


def drain(decoder: SpeechDecoder, stream: DecoderStream) -> list[np.ndarray]:
    waves = []
    while stream.ready:
        waves += decoder.advance([stream])
    return waves


def test_one_hop_is_the_flow_and_the_vocoder(decoder: SpeechDecoder) -> None:
    prompt, ids, seed = voice(decoder), codes(decoder, 37), 5
    flow = decoder.flow
    with torch.inference_mode():
        noise = noise_at(flow.config, seed, -prompt.mel.shape[1], flow.frames(len(ids)), CPU)
        item = FlowItem(torch.tensor(ids), torch.tensor(prompt.codes), prompt.mel[0], prompt.embedding[0])
        mel = flow.solve([item], [noise])[0]
        piece = MelPiece(VocoderStream(decoder.vocoder.config, seed, CPU), mel, last=True)
        expected = advance(decoder.vocoder, [piece])[0].numpy()
    assert np.array_equal(decoder.decode(ids, prompt, seed), expected)

    long = HopPlan(first=len(ids), largest=len(ids), prompt=PromptMode.ROLLING, context=len(prompt.codes))
    stream = decoder.open(prompt, seed, long)
    stream.push(ids, last=True)
    assert np.array_equal(np.concatenate(drain(decoder, stream)), expected)
    assert stream.done


@pytest.mark.parametrize("mode", PromptMode)
@pytest.mark.parametrize("prompted", [20, 0], ids=["prompt", "no prompt"])
def test_arrival_does_not_matter(decoder: SpeechDecoder, mode: PromptMode, prompted: int) -> None:
    prompt = voice(decoder, prompted)
    plan = HopPlan(first=15, growth=1.5, largest=30, context=10, look_ahead=5, prompt=mode)
    ids = codes(decoder, 73)
    at_once = decoder.open(prompt, 1, plan)
    at_once.push(ids, last=True)
    expected = np.concatenate(drain(decoder, at_once))
    assert len(expected) == decoder.vocoder.config.samples_per_frame * decoder.flow.frames(len(ids))

    dribbled, waves = decoder.open(prompt, 1, plan), []
    for i in range(0, len(ids), 7):
        dribbled.push(ids[i : i + 7], last=False)
        waves += drain(decoder, dribbled)
        assert not dribbled.done
    dribbled.push([], last=True)
    waves += drain(decoder, dribbled)
    assert dribbled.done
    assert np.array_equal(np.concatenate(waves), expected)


def test_borders_of_hops_are_free_of_clicks(shipped: Any) -> None:
    """The wave bends no more where one hop's samples meet the next one's than it does elsewhere.

    What a decoder without memory makes, the same hops each for itself, is the measure's proof: it clicks. Not
    with all weights, though: where they make a wave that bends everywhere alike, no border stands out.
    """
    flow = small_flow(shipped.configs["flow"], shipped.tensors("flow_weights"), "chain")
    vocoder = small_hift(shipped.configs["hift"], shipped.tensors("hift_weights"))
    decoder = SpeechDecoder(flow, vocoder, CPU)
    border, elsewhere, naive = [], [], []
    for seed in range(4):
        stream = decoder.open(voice(decoder), seed, SMALL)
        stream.push(codes(decoder, 120, seed), last=True)
        waves = drain(decoder, stream)
        assert len(waves) > 4
        found = bends(waves)
        border.append(found[0])
        elsewhere.append(found[1])
        naive.append(
            bends([decoder.decode(codes(decoder, 15, i), voice(decoder, 0), seed) for i in range(6)])[0]
        )
    assert np.mean(border) <= 1.1 * np.mean(elsewhere)
    assert np.mean(naive) > 1.1 * np.mean(elsewhere)


def bends(waves: list[np.ndarray]) -> tuple[float, float]:
    """The second difference's largest value at the borders of `waves`, and what it reaches elsewhere.

    The mean over the borders, and over as many samples between them as a border has.
    """
    bend = np.abs(np.diff(np.concatenate(waves), 2))
    at = np.cumsum([len(wave) for wave in waves])[:-1]
    borders = [bend[i - NEAR : i + NEAR].max() for i in at]
    others = [
        bend[i : i + 2 * NEAR].max()
        for i in range(NEAR, len(bend) - 2 * NEAR, 2 * NEAR)
        if np.abs(at - i).min() > 2 * NEAR
    ]
    return float(np.mean(borders)), float(np.mean(others))


def test_together_is_alone(decoder: SpeechDecoder) -> None:
    asked = [(codes(decoder, n, n), voice(decoder, m), n) for n, m in ((20, 20), (41, 0), (33, 50))]

    def opened() -> list[DecoderStream]:
        streams = [decoder.open(prompt, seed, SMALL) for _, prompt, seed in asked]
        for stream, (ids, _, _) in zip(streams, asked, strict=True):
            stream.push(ids, last=True)
        return streams

    alone = [np.concatenate(drain(decoder, stream)) for stream in opened()]
    streams = opened()
    together: list[list[np.ndarray]] = [[] for _ in streams]
    while ready := [i for i, stream in enumerate(streams) if stream.ready]:
        for i, wave in zip(ready, decoder.advance([streams[i] for i in ready]), strict=True):
            together[i].append(wave)
    for waves, expected in zip(together, alone, strict=True):
        assert np.concatenate(waves) == pytest.approx(expected, abs=2e-3)


def test_a_stream_without_numbers_spoils_no_other(decoder: SpeechDecoder) -> None:
    def opened() -> DecoderStream:
        stream = decoder.open(voice(decoder), 4, HopPlan.whole())
        stream.push(codes(decoder, 30), last=True)
        return stream

    broken = decoder.open(Prompt((), torch.zeros(1, 0, 80), torch.full((1, 192), torch.nan)), 4, SMALL)
    broken.push(codes(decoder, 40), last=True)
    first, wrong, second = decoder.advance([opened(), broken, opened()])
    assert isinstance(wrong, OutputError)
    [alone] = decoder.advance([opened()])
    assert first == pytest.approx(alone, abs=2e-3)
    assert second == pytest.approx(alone, abs=2e-3)
    with pytest.raises(OutputError):
        decoder.decode(codes(decoder, 5), broken.prompt, 0)


def test_a_stopped_hop_can_be_made_again(decoder: SpeechDecoder) -> None:
    def stop() -> None:
        raise InterruptedError

    stream = decoder.open(voice(decoder), 3, SMALL)
    stream.push(codes(decoder, 40), last=True)
    with pytest.raises(InterruptedError):
        decoder.advance([stream], stop)
    assert stream.spoken == 0
    again = decoder.open(voice(decoder), 3, SMALL)
    again.push(codes(decoder, 40), last=True)
    assert np.array_equal(np.concatenate(drain(decoder, stream)), np.concatenate(drain(decoder, again)))


@pytest.mark.parametrize("leaving", [{0}, {1}, {0, 2}, {0, 1, 2}], ids=str)
@pytest.mark.parametrize("after", [0, 4])
def test_a_stream_that_nobody_waits_for_leaves_its_step(
    decoder: SpeechDecoder, leaving: set[int], after: int
) -> None:
    """It costs nothing from the next of the solver's steps on; those that stay are as they would be alone."""
    asked = [
        (codes(decoder, 40, 0), voice(decoder, 20)),
        (codes(decoder, 37, 1), voice(decoder, 23)),
        (codes(decoder, 41, 2), voice(decoder, 0)),
    ]

    def opened() -> list[DecoderStream]:
        streams = [decoder.open(prompt, 7, HopPlan.whole()) for _, prompt in asked]
        for stream, (ids, _) in zip(streams, asked, strict=True):
            stream.push(ids, last=True)
        return streams

    alone = [decoder.advance([stream])[0] for stream in opened()]
    steps = 0

    def on_step() -> None:
        nonlocal steps
        steps += 1

    elements = count_elements(decoder)
    streams = opened()
    waves = SpeechDecoder(decoder.flow, decoder.vocoder, CPU, waste=1.0).advance(
        streams, on_step, lambda number: number not in leaving or steps < after
    )
    stay = len(asked) - len(leaving)
    assert sum(elements) == 2 * (len(asked) * after + stay * (10 - after))
    for number, (wave, stream, expected) in enumerate(zip(waves, streams, alone, strict=True)):
        if number in leaving:
            assert (len(wave), stream.spoken, stream.done) == (0, 0, False)
        else:
            assert wave == pytest.approx(expected, abs=2e-3)


def count_elements(decoder: SpeechDecoder) -> list[int]:
    """How many elements each call of the estimator had, from now on."""
    seen: list[int] = []
    decoder.flow.decoder.estimator.register_forward_pre_hook(lambda _, args: seen.append(len(args[0])))
    return seen


def test_what_a_stream_refuses(decoder: SpeechDecoder) -> None:
    stream = decoder.open(voice(decoder), 0, SMALL)
    unknown = decoder.flow.config.vocab_size
    with pytest.raises(InputError, match=str(unknown)):
        stream.push([1, unknown], last=False)
    with pytest.raises(InputError, match="no audio codes"):
        stream.push([], last=True)
    with pytest.raises(ValueError, match="not ready"):
        decoder.advance([stream])
    with pytest.raises(InputError, match="both its codes and its mel"):
        decoder.open(Prompt((1, 2), torch.zeros(1, 0, 80), torch.ones(1, 192)), 0, SMALL)
