"""The vocoder: HiFT, a neural source-filter network that ends in an inverse STFT. Mel -> wave at 22,050 Hz.

    mel ──► f0 ──► harmonics + noise ──► source ──► STFT ─┐
    mel ──► conv ──► up 8 ──(+)──► resblocks ──► up 8 ──(+)──► resblocks ──► magnitude, phase ──► inverse STFT

Weight norm is folded before loading (`models.weight_norm`); but for that, module names are the checkpoint's.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import reduce
from math import prod

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from stepaudio_runtime.models.hift_source import F0Predictor, HarmonicSource, SourceNoise
from stepaudio_runtime.models.kernels import Conv1d, ConvTranspose1d, joined, snake


@dataclass(frozen=True)
class HiftConfig:
    """Sizes of the vocoder; the defaults are those of the published checkpoint."""

    in_channels: int = 80
    base_channels: int = 512
    nb_harmonics: int = 8  # above the fundamental
    sampling_rate: int = 22050
    nsf_alpha: float = 0.1
    nsf_sigma: float = 0.003
    nsf_voiced_threshold: float = 10.0
    upsample_rates: tuple[int, ...] = (8, 8)
    upsample_kernel_sizes: tuple[int, ...] = (16, 16)
    n_fft: int = 16
    hop_len: int = 4
    resblock_kernel_sizes: tuple[int, ...] = (3, 7, 11)
    resblock_dilation_sizes: tuple[tuple[int, ...], ...] = ((1, 3, 5), (1, 3, 5), (1, 3, 5))
    source_resblock_kernel_sizes: tuple[int, ...] = (7, 11)
    source_resblock_dilation_sizes: tuple[tuple[int, ...], ...] = ((1, 3, 5), (1, 3, 5))
    lrelu_slope: float = 0.1
    audio_limit: float = 0.99
    f0_cond_channels: int = 512

    @property
    def samples_per_frame(self) -> int:
        """Wave samples a mel frame."""
        return prod(self.upsample_rates) * self.hop_len

    @property
    def f0_halo(self) -> int:
        """Mel frames on either side that a frame's pitch depends on: five convolutions of three."""
        return 5

    @property
    def halo(self) -> int:
        """Mel frames on either side that a frame's wave depends on, its source given.

        The sum of what each layer reaches, in frames: conv_pre; every transposed convolution and, after it,
        the widest resblock of the source and the widest of the sum, which follow each other; conv_post and
        the two STFTs at the last rate. `tests/parity/decoder/test_pieces.py` finds the same by perturbation.
        """
        reach, rate = 3.0, 1.0
        for i, (up, kernel) in enumerate(zip(self.upsample_rates, self.upsample_kernel_sizes, strict=True)):
            reach += (kernel / up + 1) / 2 / rate
            rate *= up
            widest = max(
                (size - 1) // 2 * sum(d + 1 for d in dilations)
                for size, dilations in zip(
                    self.resblock_kernel_sizes, self.resblock_dilation_sizes, strict=True
                )
            )
            source = (
                (self.source_resblock_kernel_sizes[i] - 1)
                // 2
                * sum(d + 1 for d in self.source_resblock_dilation_sizes[i])
            )
            reach = max(reach, source / rate + 1 / rate) + widest / rate
        reach += (1 + 3 + 2 * self.n_fft / self.hop_len) / rate
        return math.ceil(reach)


class Snake(nn.Module):
    """x + sin²(αx) / (α + 1e-9), α per channel."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.alpha = nn.Parameter(torch.ones(channels))

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, T) -> (B, C, T)."""
        return snake(x, self.alpha)


class ResBlock(nn.Module):
    """For each dilation: x += conv2(snake2(conv1(snake1(x)))), conv1 dilated."""

    def __init__(self, channels: int, kernel: int, dilations: tuple[int, ...]) -> None:
        super().__init__()
        self.convs1 = nn.ModuleList(
            Conv1d(channels, channels, kernel, dilation=d, padding=(kernel - 1) * d // 2) for d in dilations
        )
        self.convs2 = nn.ModuleList(
            Conv1d(channels, channels, kernel, padding=(kernel - 1) // 2) for _ in dilations
        )
        self.activations1 = nn.ModuleList(Snake(channels) for _ in dilations)
        self.activations2 = nn.ModuleList(Snake(channels) for _ in dilations)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, T) -> (B, C, T)."""
        for conv1, conv2, snake1, snake2 in zip(
            self.convs1, self.convs2, self.activations1, self.activations2, strict=True
        ):
            x = conv2(snake2(conv1(snake1(x)))).add_(x)
        return x


class Hift(nn.Module):
    """Mel (1, 80, T) -> wave (1, 256 T) within ±audio_limit."""

    def __init__(self, config: HiftConfig) -> None:
        super().__init__()
        self.config = config
        widths = [config.base_channels // 2**i for i in range(len(config.upsample_rates) + 1)]
        bins = config.n_fft + 2  # real and imaginary parts of n_fft / 2 + 1 frequencies
        self.m_source = HarmonicSource(
            config.nb_harmonics + 1,
            config.sampling_rate,
            config.nsf_alpha,
            config.nsf_sigma,
            config.nsf_voiced_threshold,
        )
        self.f0_predictor = F0Predictor(config.in_channels, config.f0_cond_channels)
        self.conv_pre = Conv1d(config.in_channels, config.base_channels, 7, padding=3)
        self.ups = nn.ModuleList()
        self.source_downs = nn.ModuleList()
        self.source_resblocks = nn.ModuleList()
        self.resblocks = nn.ModuleList()
        for i, (rate, kernel) in enumerate(
            zip(config.upsample_rates, config.upsample_kernel_sizes, strict=True)
        ):
            width = widths[i + 1]
            self.ups.append(ConvTranspose1d(widths[i], width, kernel, rate, padding=(kernel - rate) // 2))
            # The source enters at the rate of this stage: its STFT runs at that of the last one.
            down = prod(config.upsample_rates[i + 1 :])
            self.source_downs.append(
                Conv1d(bins, width, 1)
                if down == 1
                else Conv1d(bins, width, 2 * down, down, padding=down // 2)
            )
            self.source_resblocks.append(
                ResBlock(
                    width, config.source_resblock_kernel_sizes[i], config.source_resblock_dilation_sizes[i]
                )
            )
            for size, dilations in zip(
                config.resblock_kernel_sizes, config.resblock_dilation_sizes, strict=True
            ):
                self.resblocks.append(ResBlock(width, size, dilations))
        self.conv_post = Conv1d(widths[-1], bins, 7, padding=3)

    def upsampled(self, f0: Tensor) -> Tensor:
        """Pitch by frame (1, T) -> by sample (1, 256 T), each value repeated."""
        return f0.repeat_interleave(self.config.samples_per_frame, dim=-1)

    def source_stft(self, source: Tensor) -> Tensor:
        """Source (1, 1, samples) -> (1, n_fft + 2, samples / hop + 1): real parts, then imaginary parts."""
        spectrum = torch.stft(
            source.squeeze(1),
            self.config.n_fft,
            self.config.hop_len,
            window=self._window(source),
            return_complex=True,
        )
        return joined((spectrum.real, spectrum.imag))

    def decode(self, mel: Tensor, source: Tensor) -> Tensor:
        """Mel (1, 80, T) and source (1, 1, 256 T) -> wave (1, 256 T)."""
        return self.to_wave(*self.to_spectrum(self.network(mel, self.source_stft(source))))

    def network(self, mel: Tensor, spectrum: Tensor) -> Tensor:
        """Mel (1, 80, T) and the source's STFT (1, n_fft + 2, F) -> the last layer (1, n_fft + 2, F)."""
        config = self.config
        x = self.conv_pre(joined((mel,)))
        kernels = len(config.resblock_kernel_sizes)
        for i, up in enumerate(self.ups):
            x = up(F.leaky_relu(x, config.lrelu_slope))
            if i == len(self.ups) - 1:
                # The centred STFT has one frame more; padded with a fourth axis, x keeps its layout.
                x = F.pad(x[:, :, None], (1, 0, 0, 0), mode="reflect").squeeze(2)
            x = x + self.source_resblocks[i](self.source_downs[i](spectrum))
            blocks = self.resblocks[i * kernels : (i + 1) * kernels]
            x = reduce(torch.add, (block(x) for block in blocks)) / kernels
        out: Tensor = self.conv_post(F.leaky_relu(x))  # slope 0.01 here, unlike above: so it was trained
        return out

    def to_spectrum(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """The last layer (1, n_fft + 2, F) -> magnitude and phase in radians, (1, n_fft / 2 + 1, F)."""
        log_magnitude, phase = x.chunk(2, dim=1)
        return log_magnitude.exp().clamp(max=100.0), torch.sin(phase)

    def to_wave(self, magnitude: Tensor, phase: Tensor) -> Tensor:
        """Magnitude and phase -> wave (1, samples), clipped."""
        wave = torch.istft(
            torch.polar(magnitude, phase),
            self.config.n_fft,
            self.config.hop_len,
            window=self._window(magnitude),
        )
        return wave.clamp(-self.config.audio_limit, self.config.audio_limit)

    def _window(self, like: Tensor) -> Tensor:
        return torch.hann_window(self.config.n_fft, device=like.device, dtype=like.dtype)

    def random(self, frames: int, generator: torch.Generator | None) -> SourceNoise:
        """Phases and noise for that many mel frames; all zero without a generator."""
        harmonics, samples = self.config.nb_harmonics + 1, frames * self.config.samples_per_frame
        if generator is None:
            return SourceNoise.none(harmonics, samples)
        return SourceNoise.draw(harmonics, samples, generator)

    def forward(self, mel: Tensor, random: SourceNoise) -> Tensor:
        """Mel (1, 80, T), float32 -> wave (1, 256 T)."""
        source = self.m_source(self.upsampled(self.f0_predictor(mel)), random)
        return self.decode(mel, source)
