"""The vocoder in pieces gives the wave that it gives at once, and needs no frame less than its halo."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from stepaudio_runtime.models.hift import Hift
from stepaudio_runtime.models.hift_graphs import TOGETHER
from stepaudio_runtime.models.hift_stream import MelPiece, VocoderStream, advance


def in_pieces(hift: Hift, mel: Tensor, cuts: list[int], seed: int | None) -> list[Tensor]:
    stream = VocoderStream(hift.config, seed, mel.device)
    bounds = [0, *sorted(cuts), mel.shape[1]]
    return [
        advance(hift, [MelPiece(stream, mel[:, a:b], last=i == len(bounds) - 2)])[0]
        for i, (a, b) in enumerate(pairwise(bounds))
    ]


@settings(max_examples=20, deadline=None)
@given(data=st.data(), frames=st.integers(1, 90), seed=st.sampled_from([None, 1, 2**63 - 1]))
@torch.inference_mode()
def test_any_cut_gives_the_same_wave(
    hift_once: Hift, data: st.DataObject, frames: int, seed: int | None
) -> None:
    cuts = data.draw(st.lists(st.integers(0, frames), max_size=6))
    mel = torch.randn(80, frames, generator=torch.Generator().manual_seed(frames)) * 2 - 4
    whole = in_pieces(hift_once, mel, [], seed)[0]
    joined = torch.cat(in_pieces(hift_once, mel, cuts, seed))
    assert whole.shape == (frames * hift_once.config.samples_per_frame,)
    assert (joined - whole).abs().max() <= 1e-5


@settings(max_examples=15, deadline=None)
@given(data=st.data(), waste=st.sampled_from([0.0, 0.5, 10.0]))
@torch.inference_mode()
def test_streams_together_give_what_each_gives_alone(
    hift_once: Hift, data: st.DataObject, waste: float
) -> None:
    """Streams of any lengths, which end at different times, in steps that all of them share."""
    cuts = data.draw(st.lists(st.lists(st.integers(0, 45), min_size=1, max_size=3), min_size=2, max_size=4))
    mels = [
        torch.randn(80, 1 + sum(sizes), generator=torch.Generator().manual_seed(i)) * 2 - 4
        for i, sizes in enumerate(cuts)
    ]
    streams = [VocoderStream(hift_once.config, i, mel.device) for i, mel in enumerate(mels)]
    given_out: list[list[Tensor]] = [[] for _ in mels]
    for step in range(3):
        pieces, owners = [], []
        for i, (mel, sizes) in enumerate(zip(mels, cuts, strict=True)):
            if step < len(sizes):
                last, start = step == len(sizes) - 1, sum(sizes[:step])
                stop = mel.shape[1] if last else start + sizes[step]
                pieces.append(MelPiece(streams[i], mel[:, start:stop], last))
                owners.append(i)
        for i, wave in zip(owners, advance(hift_once, pieces, waste=waste), strict=True):
            given_out[i].append(wave)
    for i, mel in enumerate(mels):
        alone = in_pieces(hift_once, mel, [], i)[0]
        assert torch.cat(given_out[i]).shape == alone.shape
        assert (torch.cat(given_out[i]) - alone).abs().max() <= 2e-5


@torch.inference_mode()
def test_more_pieces_than_are_computed_at_once_give_what_each_gives_alone(hift_once: Hift) -> None:
    mels = [torch.randn(80, 5 + i, generator=torch.Generator().manual_seed(i)) for i in range(TOGETHER + 2)]
    pieces = [
        MelPiece(VocoderStream(hift_once.config, i, mel.device), mel, last=True) for i, mel in enumerate(mels)
    ]
    for i, wave in enumerate(advance(hift_once, pieces, waste=10.0)):
        assert (wave - in_pieces(hift_once, mels[i], [], i)[0]).abs().max() <= 2e-5


@torch.inference_mode()
def test_at_once_is_the_plain_vocoder(golden: Any, hift: Hift) -> None:
    mel = golden.tensors("hift_quiet")["in.mel"]
    assert torch.equal(in_pieces(hift, mel[0], [], None)[0], hift(mel, hift.random(mel.shape[2], None))[0])


@torch.inference_mode()
def test_the_halo_is_what_a_perturbation_reaches(hift_once: Hift) -> None:
    hift, size = hift_once, hift_once.config.samples_per_frame
    frames, at = 80, 40
    mel = torch.randn(1, 80, frames, generator=torch.Generator().manual_seed(0))
    source = torch.randn(1, 1, frames * size, generator=torch.Generator().manual_seed(1)) * 0.1

    def reach(change: Tensor) -> tuple[int, int]:
        moved = change.flatten().nonzero()
        return at - int(moved.min()), int(moved.max()) - at

    other = mel.clone()
    other[:, :, at] += 1
    pitch = hift.f0_predictor(mel) != hift.f0_predictor(other)
    assert max(reach(pitch)) == hift.config.f0_halo

    other_source = source.clone()
    other_source[:, :, at * size : (at + 1) * size] += 0.05
    plain = hift.double().decode(mel.double(), source.double())
    both = hift.decode(other.double(), other_source.double())
    hift.float()
    moved = (plain != both).reshape(frames, size).any(dim=1)
    assert hift.config.halo - 1 <= max(reach(moved)) <= hift.config.halo
