"""Several processes that train one model, each on some of the batches of every step: torch distributed.

`torchrun` starts them and tells each its place by environment variables; without those a process is alone.
All begin with the same weights and take the same steps, for what they learn from is averaged: gloo between
CPUs, NCCL between GPUs. The first one writes.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import timedelta

import torch
from torch import Tensor
from torch import distributed as dist

from stepaudio_runtime.errors import ConfigError

_PATIENCE = timedelta(hours=12)
"""The others wait so long while the first one makes the codes of a corpus."""
_VARIABLES = ("RANK", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT")


@dataclass(frozen=True)
class Group:
    """This process, number `rank` of `size`."""

    rank: int = 0
    size: int = 1

    @property
    def first(self) -> bool:
        """Whether this is the one that writes."""
        return self.rank == 0

    def average(self, tensors: Iterable[Tensor]) -> None:
        """Give every tensor, in place, the mean of its values in all processes."""
        if self.size == 1:
            return
        tensors = list(tensors)
        for work in [dist.all_reduce(tensor, async_op=True) for tensor in tensors]:
            work.wait()
        for tensor in tensors:
            tensor.div_(self.size)

    def wait(self) -> None:
        """Return when every process has come here."""
        if self.size > 1:
            dist.barrier()


ALONE = Group()


def join(device: str, env: Mapping[str, str]) -> tuple[Group, torch.device]:
    """The group that torchrun started, and this process's own device of the kind `device`: cpu or cuda.

    Raises ConfigError where there is no such device, or this process was told half of its place.
    """
    if device == "cuda" and not torch.cuda.is_available():
        raise ConfigError(what="no GPU that torch can use is here", cure="leave --device cuda out")
    size = int(env.get("WORLD_SIZE", "1"))
    if size == 1:
        return ALONE, torch.device(device)
    if missing := [name for name in _VARIABLES if name not in env]:
        what = f"WORLD_SIZE is {size} and {', '.join(missing)} not set"
        raise ConfigError(what=what, cure="start the processes by torchrun")
    own = torch.device(device, int(env["LOCAL_RANK"])) if device == "cuda" else torch.device(device)
    if own.type == "cuda":
        torch.cuda.set_device(own)
    dist.init_process_group("nccl" if own.type == "cuda" else "gloo", timeout=_PATIENCE)
    return Group(dist.get_rank(), size), own
