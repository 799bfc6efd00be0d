"""Random weights that are the same on every machine: each tensor is drawn from its own name and one seed."""

from __future__ import annotations

import math
import zlib
from collections.abc import Iterator

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn


class RandomWeights:
    """A source of tensors by name. The order of the calls does not matter; `scope` keeps models apart."""

    def __init__(self, seed: int, scope: str) -> None:
        self._seed = seed
        self._scope = scope

    def array(self, name: str, *shape: int, std: float = 1.0, mean: float = 0.0) -> NDArray[np.float32]:
        """Normally distributed float32 of that shape."""
        key = zlib.crc32(f"{self._scope}/{name}".encode())
        drawn = np.random.Generator(np.random.PCG64([self._seed, key])).standard_normal(shape)
        return (drawn * std + mean).astype(np.float32)

    def tensor(self, name: str, *shape: int, std: float = 1.0, mean: float = 0.0) -> Tensor:
        """The same as a tensor."""
        return torch.from_numpy(self.array(name, *shape, std=std, mean=mean))

    def fill(self, module: nn.Module) -> dict[str, Tensor]:
        """A state dict for `module` (which may be on the meta device): outputs keep the size of inputs.

        Norms are the identity; linear layers and convolutions have a variance of 1 / fan-in and small biases;
        what is left (position biases, snake's α) is near 0.1 or, for names ending in `alpha`, near 1.
        """
        return dict(self._filled(module))

    def _filled(self, module: nn.Module) -> Iterator[tuple[str, Tensor]]:
        for prefix, part in module.named_modules():
            for own, parameter in part.named_parameters(recurse=False):
                name, shape = f"{prefix}.{own}" if prefix else own, tuple(parameter.shape)
                if isinstance(part, nn.LayerNorm | nn.GroupNorm):
                    yield name, torch.ones(shape) if own == "weight" else torch.zeros(shape)
                elif isinstance(part, nn.Linear | nn.Conv1d | nn.ConvTranspose1d):
                    std = 0.01 if own == "bias" else 1 / math.sqrt(_fan_in(part))
                    yield name, self.tensor(name, *shape, std=std)
                elif isinstance(part, nn.Embedding):
                    yield name, self.tensor(name, *shape)
                else:
                    yield name, self.tensor(name, *shape, std=0.1, mean=1.0 if own == "alpha" else 0.0)


def _fan_in(layer: nn.Linear | nn.Conv1d | nn.ConvTranspose1d) -> float:
    if isinstance(layer, nn.Linear):
        return layer.in_features
    if isinstance(layer, nn.ConvTranspose1d):
        return layer.in_channels * layer.kernel_size[0] / layer.stride[0]
    return layer.in_channels * layer.kernel_size[0]
