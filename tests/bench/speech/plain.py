"""The same modules, computed as the reference does: one utterance, float32, torch's own operators one by one,
guidance in two passes. It is what the speech stack is compared with, for speed and for numbers.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from stepaudio_runtime.models.estimator import Block, ConditionalDecoder, ResnetBlock, time_sinusoid
from stepaudio_runtime.models.flow import Flow, FlowItem, cosine_times
from stepaudio_runtime.models.hift import Hift, ResBlock, Snake
from stepaudio_runtime.models.hift_source import F0Predictor, SourceNoise
from stepaudio_runtime.models.sanm import SanmModel


def mel_of(flow: Flow, item: FlowItem, noise: Tensor, steps: int = 10) -> Tensor:
    """Mel (80, frames of the item's ids)."""
    condition = flow.prepare([item])
    x, guidance = noise[None], flow.config.inference_cfg_rate
    mu, spks, cond = condition.mu, condition.spks, condition.cond
    nothing = torch.zeros_like(mu), torch.zeros_like(spks), torch.zeros_like(cond)
    for now, then in pairwise(cosine_times(steps)):
        t = now[None]
        with_all = velocity(flow.decoder.estimator, x, t, mu, spks, cond)
        with_none = velocity(flow.decoder.estimator, x, t, *nothing)
        x = x + (then - now) * ((1 + guidance) * with_all - guidance * with_none)
    return x[0, :, condition.prompt_frames[0] :]


def velocity(net: ConditionalDecoder, x: Tensor, t: Tensor, mu: Tensor, spks: Tensor, cond: Tensor) -> Tensor:
    """The estimator, (1, 80, T) -> (1, 80, T)."""
    time = net.time_mlp(time_sinusoid(t, net.config.in_channels))
    h = torch.cat((x, mu, spks[:, :, None].expand(-1, -1, x.shape[2]), cond), dim=1)
    skips = []
    for resnet, blocks, resample in net.down_blocks:
        h = _transformed(_resnet(resnet, h, time), blocks)
        skips.append(h)
        h = _conv(getattr(resample, "conv", resample), h)
    for resnet, blocks in net.mid_blocks:
        h = _transformed(_resnet(resnet, h, time), blocks)
    for resnet, blocks, resample in net.up_blocks:
        skip = skips.pop()
        h = _transformed(_resnet(resnet, torch.cat((h[:, :, : skip.shape[2]], skip), dim=1), time), blocks)
        h = _conv(getattr(resample, "conv", resample), h)
    return _conv(net.final_proj, _block(net.final_block, h))


def _conv(conv: nn.Module, x: Tensor) -> Tensor:
    kind = nn.ConvTranspose1d if isinstance(conv, nn.ConvTranspose1d) else nn.Conv1d
    out: Tensor = kind.forward(conv, x)
    return out


def _block(block: Block, x: Tensor) -> Tensor:
    conv, norm, mish = block.block
    out: Tensor = mish(norm(_conv(conv, x)))
    return out


def _resnet(block: ResnetBlock, x: Tensor, time: Tensor) -> Tensor:
    h = _block(block.block1, x) + block.mlp(time)[:, :, None]
    return _block(block.block2, h) + _conv(block.res_conv, x)


def _transformed(x: Tensor, blocks: nn.ModuleList) -> Tensor:
    x = x.transpose(1, 2)
    for block in blocks:
        attention, (inner, _, outer) = block.attn1, block.ff.net
        normed = block.norm1(x)
        q, k, v = (
            part(normed).unflatten(-1, (attention.heads, -1)).transpose(1, 2)
            for part in (attention.to_q, attention.to_k, attention.to_v)
        )
        attended = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)
        x = x + attention.to_out[0](attended)
        x = x + outer(F.gelu(inner.proj(block.norm3(x))))
    return x.transpose(1, 2)


class PlainVocoder:
    """`hift`'s layers; the pitch in float32 too."""

    def __init__(self, hift: Hift) -> None:
        self._hift = hift
        self._pitch: F0Predictor = copy.deepcopy(hift.f0_predictor).float()

    def wave_of(self, mel: Tensor, random: SourceNoise) -> Tensor:
        """Mel (1, 80, T) -> wave (1, 256 T)."""
        hift, config = self._hift, self._hift.config
        source = hift.m_source(hift.upsampled(self._pitch(mel)), random)
        spectrum = hift.source_stft(source).contiguous()
        x = _conv(hift.conv_pre, mel)
        kernels = len(config.resblock_kernel_sizes)
        for i, up in enumerate(hift.ups):
            x = _conv(up, F.leaky_relu(x, config.lrelu_slope))
            if i == len(hift.ups) - 1:
                x = F.pad(x, (1, 0), mode="reflect")
            x = x + _resblock(hift.source_resblocks[i], _conv(hift.source_downs[i], spectrum))
            first, *others = hift.resblocks[i * kernels : (i + 1) * kernels]
            total = _resblock(first, x)
            for block in others:
                total += _resblock(block, x)
            x = total / kernels
        x = _conv(hift.conv_post, F.leaky_relu(x))
        return hift.to_wave(*hift.to_spectrum(x))


def _resblock(block: ResBlock, x: Tensor) -> Tensor:
    for conv1, conv2, snake1, snake2 in zip(
        block.convs1, block.convs2, block.activations1, block.activations2, strict=True
    ):
        x = x + _conv(conv2, _snake(snake2, _conv(conv1, _snake(snake1, x))))
    return x


def _snake(snake: Snake, x: Tensor) -> Tensor:
    alpha = snake.alpha[:, None]
    return x + (1.0 / (alpha + 1e-9)) * torch.sin(x * alpha).pow(2)


def chunk_by_chunk(model: SanmModel, features: Tensor) -> Tensor:
    """The linguistic encoder over a whole file, a window of 240 ms at a time: rows (n, output_size)."""
    return torch.cat(list(_chunks(model, features)))


def _chunks(model: SanmModel, features: Tensor) -> Iterator[Tensor]:
    state = model.start()
    for chunk in features.split(model.config.chunk):
        rows, state = model(chunk, state)
        yield rows
