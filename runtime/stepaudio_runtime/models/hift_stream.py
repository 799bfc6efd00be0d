"""The vocoder in pieces: the same wave as at once, given the same mel.

A piece's pitch needs `f0_halo` more frames on either side, its wave `halo` more; so a stream's wave ends that
many frames before its mel, until the end is known. The phase of the harmonics is carried over in float64, the
noise is drawn by absolute sample.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from stepaudio_runtime.models.hift import Hift, HiftConfig
from stepaudio_runtime.models.hift_graphs import TOGETHER, VocoderGraphs
from stepaudio_runtime.models.hift_source import SourceNoise
from stepaudio_runtime.models.lengths import groups, stacked
from stepaudio_runtime.models.noise import normal_at, phases

_NOISE_BLOCK_FRAMES = 64


@dataclass(frozen=True, eq=False)
class MelPiece:
    """The next frames of a stream's mel (80, n), n may be 0 at the end; `last` where no more follow."""

    stream: VocoderStream
    mel: Tensor
    last: bool


class VocoderStream:
    """What one utterance leaves behind between two pieces. Frames are counted from its start.

    `seed` None means no randomness at all: phases and noise zero.
    """

    def __init__(self, config: HiftConfig, seed: int | None, device: torch.device) -> None:
        harmonics = config.nb_harmonics + 1
        self._seed = seed
        self._samples_per_frame = config.samples_per_frame
        self._phase = (
            torch.zeros(harmonics, 1, device=device)
            if seed is None
            else phases(seed, harmonics, device=device)
        )
        self.turns = torch.zeros(harmonics, dtype=torch.float64, device=device)
        self.mel = torch.empty(config.in_channels, 0, device=device)
        self.source = torch.empty(0, device=device)
        self.mel_start = 0  # the first frame of `mel`
        self.source_start = 0  # of `source`
        self.wave_stop = 0  # frames whose wave was given out

    @property
    def mel_stop(self) -> int:
        """Frames known so far."""
        return self.mel_start + self.mel.shape[1]

    @property
    def source_stop(self) -> int:
        """Frames whose source is made."""
        return self.source_start + self.source.shape[0] // self._samples_per_frame

    def random(self, start: int, stop: int) -> SourceNoise:
        """The randomness of frames start..stop-1, a batch of one."""
        first, end = start * self._samples_per_frame, stop * self._samples_per_frame
        if self._seed is None:
            noise = torch.zeros(self._phase.shape[0], end - first, device=self._phase.device)
        else:
            noise = normal_at(
                self._seed,
                "source",
                first,
                end,
                channels=self._phase.shape[0],
                block=_NOISE_BLOCK_FRAMES * self._samples_per_frame,
                device=self._phase.device,
            )
        return SourceNoise(self._phase[None], noise[None])


def advance(
    hift: Hift, pieces: Sequence[MelPiece], *, waste: float = 0.0, graphs: VocoderGraphs | None = None
) -> list[Tensor]:
    """Takes every piece in; gives the samples (n,) that are final now, in the order of `pieces`.

    Pieces of similar length are computed together; padding adds at most the share `waste`. With `graphs`,
    those that end nothing are computed by them, where a bucket is large enough.
    """
    for piece in pieces:
        piece.stream.mel = torch.cat((piece.stream.mel, piece.mel.to(piece.stream.mel)), dim=1)
    _extend_sources(hift, pieces, waste)
    return _extend_waves(hift, pieces, waste, graphs)


def _extend_sources(hift: Hift, pieces: Sequence[MelPiece], waste: float) -> None:
    halo = hift.config.f0_halo
    spans = []
    for piece in pieces:
        stream = piece.stream
        start = stream.source_stop
        stop = stream.mel_stop if piece.last else max(start, stream.mel_stop - halo)
        if stop > start:
            left = max(stream.mel_start, start - halo)
            spans.append((piece, start, stop, left))
    mels = [piece.stream.mel[:, left - piece.stream.mel_start :] for piece, _, _, left in spans]
    ends = [piece.last for piece, _, _, _ in spans]
    for group in _together([mel.shape[1] for mel in mels], ends, waste):
        pitches = hift.f0_predictor(stacked([mels[i] for i in group]))
        for i, pitch in zip(group, pitches, strict=True):
            piece, start, stop, left = spans[i]
            stream = piece.stream
            f0 = hift.upsampled(pitch[None, start - left : stop - left])
            source, stream.turns = hift.m_source.extend(f0, stream.random(start, stop), stream.turns)
            stream.source = torch.cat((stream.source, source.flatten()))


def _extend_waves(
    hift: Hift, pieces: Sequence[MelPiece], waste: float, graphs: VocoderGraphs | None
) -> list[Tensor]:
    config, size = hift.config, hift.config.samples_per_frame
    waves = [piece.stream.source.new_empty(0) for piece in pieces]
    spans = []
    for place, piece in enumerate(pieces):
        start, known = piece.stream.wave_stop, piece.stream.source_stop
        stop = known if piece.last else max(start, known - config.halo)
        if stop > start:
            spans.append((place, start, stop, max(0, start - config.halo), known))
    lengths = [known - left for _, _, _, left, known in spans]
    for group in _together(lengths, [pieces[span[0]].last for span in spans], waste):
        mels, sources = [], []
        for i in group:
            place, _, _, left, known = spans[i]
            stream = pieces[place].stream
            mels.append(stream.mel[:, left - stream.mel_start : known - stream.mel_start])
            sources.append(stream.source[None, (left - stream.source_start) * size :])
        decoded = None
        if graphs is not None and not any(pieces[spans[i][0]].last for i in group):
            decoded = graphs.decode(mels, sources)
        if decoded is None:
            decoded = hift.decode(stacked(mels), stacked(sources))
        for i, wave in zip(group, decoded, strict=True):
            place, start, stop, left, _ = spans[i]
            waves[place] = wave[(start - left) * size : (stop - left) * size]
            pieces[place].stream.wave_stop = stop
            _forget(pieces[place].stream, config)
    return waves


def _together(lengths: Sequence[int], ends: Sequence[bool], waste: float) -> list[list[int]]:
    """Which pieces to compute together: as `groups`, but one at the end of its utterance is never padded.

    What padding changes reaches a halo back, and of any other piece that much is not given out. A wave ends
    where its last piece does: there every layer must see the end.
    """
    found = []
    for group in groups(lengths, waste, TOGETHER):
        longest = lengths[group[0]]
        padded = [i for i in group if ends[i] and lengths[i] < longest]
        found.append([i for i in group if i not in padded])
        found += [[i for i in padded if lengths[i] == length] for length in {lengths[i] for i in padded}]
    return found


def _forget(stream: VocoderStream, config: HiftConfig) -> None:
    source_from = max(0, stream.wave_stop - config.halo)
    mel_from = max(0, min(source_from, stream.source_stop - config.f0_halo))
    stream.mel = stream.mel[:, mel_from - stream.mel_start :].clone()
    stream.source = stream.source[(source_from - stream.source_start) * config.samples_per_frame :].clone()
    stream.mel_start, stream.source_start = mel_from, source_from
