"""The vocoder's network as captured graphs, for pieces that do not end their utterance."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from stepaudio_runtime.models.graphs import STREAMS, Buckets, Captured
from stepaudio_runtime.models.hift import Hift

TOGETHER = 8
"""Pieces of a batch: more of them take as much longer as they are more, and hold as much more memory."""


class VocoderGraphs:
    """For batches that fit into a bucket. What padding changes of such a piece is not given out."""

    def __init__(self, hift: Hift) -> None:
        device = hift.conv_post.weight.device
        self._buckets = Buckets(
            lambda frames, streams: _Network(hift, frames, streams, device),
            [streams for streams in STREAMS if streams <= TOGETHER],
        )

    def warm(self) -> None:
        """Capture all of them now."""
        self._buckets.warm()

    def decode(self, mels: Sequence[Tensor], sources: Sequence[Tensor]) -> Tensor | None:
        """As `Hift.decode`, of mels (80, T) and sources (1, 256 T) of any lengths, padded. None where no
        bucket is large enough.
        """
        found = self._buckets.fitting(max(mel.shape[1] for mel in mels), len(mels))
        return None if found is None else found.decode(mels, sources)


class _Network:
    def __init__(self, hift: Hift, frames: int, streams: int, device: torch.device) -> None:
        self._hift = hift
        self._mel = torch.zeros(streams, hift.config.in_channels, frames, device=device)
        self._source = torch.zeros(streams, 1, frames * hift.config.samples_per_frame, device=device)
        self._spectrum = hift.source_stft(self._source)
        # The STFTs stay outside: the inverse one looks at numbers on the host.
        self._run = Captured(lambda: hift.network(self._mel, self._spectrum), device)

    def decode(self, mels: Sequence[Tensor], sources: Sequence[Tensor]) -> Tensor:
        for parts, into in ((mels, self._mel), (sources, self._source)):
            into.zero_()
            for part, row in zip(parts, into, strict=False):
                row[:, : part.shape[1]] = part
        self._spectrum.copy_(self._hift.source_stft(self._source))
        return self._hift.to_wave(*self._hift.to_spectrum(self._run()))[: len(mels)]
