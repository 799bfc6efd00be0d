"""The same modules, computed as the reference does: one utterance, float32, torch's own operators one by one,
guidance in two passes. It is what the speech stack is compared with, for speed and for numbers.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from stepaudio_runtime.models.estimator import ConditionalDecoder, ResnetBlock, time_sinusoid
from stepaudio_runtime.models.flow import Flow, FlowItem, cosine_times
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
        h = resample(h)
    for resnet, blocks in net.mid_blocks:
        h = _transformed(_resnet(resnet, h, time), blocks)
    for resnet, blocks, resample in net.up_blocks:
        skip = skips.pop()
        h = _transformed(_resnet(resnet, torch.cat((h[:, :, : skip.shape[2]], skip), dim=1), time), blocks)
        h = resample(h)
    out: Tensor = net.final_proj(net.final_block.block(h))
    return out


def _resnet(block: ResnetBlock, x: Tensor, time: Tensor) -> Tensor:
    h = block.block1.block(x) + block.mlp(time)[:, :, None]
    out: Tensor = block.block2.block(h) + block.res_conv(x)
    return out


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


def chunk_by_chunk(model: SanmModel, features: Tensor) -> Tensor:
    """The linguistic encoder over a whole file, a window of 240 ms at a time: rows (n, output_size)."""
    return torch.cat(list(_chunks(model, features)))


def _chunks(model: SanmModel, features: Tensor) -> Iterator[Tensor]:
    state = model.start()
    for chunk in features.split(model.config.chunk):
        rows, state = model(chunk, state)
        yield rows
