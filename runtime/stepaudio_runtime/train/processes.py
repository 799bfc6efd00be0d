"""Lightning's Fabric under all training: one process, or several that train one model, each on some of the
batches of every step.

`torchrun` starts them and tells each its place by environment variables; without those a process is alone.
All begin with the same weights and take the same steps, for what they learn from is averaged: gloo between
CPUs, NCCL between GPUs. The first one writes.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from datetime import timedelta

import torch
from lightning_fabric import Fabric
from lightning_fabric.plugins.environments import TorchElasticEnvironment
from lightning_fabric.strategies import DDPStrategy

from stepaudio_runtime.errors import ConfigError

_PATIENCE = timedelta(hours=12)
"""The others wait so long while the first one makes the codes of a corpus."""
_VARIABLES = ("RANK", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT")

logging.getLogger("lightning_fabric").setLevel(logging.WARNING)  # it greets every process


def alone(device: str = "cpu") -> Fabric:
    """One process on one device of the kind `device`."""
    return Fabric(accelerator=device, devices=1)


def join(device: str, env: Mapping[str, str]) -> Fabric:
    """The processes that torchrun started, each on its own device of the kind `device`: cpu or cuda.

    Raises ConfigError where there is no such device, or this process was told half of its place.
    """
    if device == "cuda" and not torch.cuda.is_available():
        raise ConfigError(what="no GPU that torch can use is here", cure="leave --device cuda out")
    size = int(env.get("WORLD_SIZE", "1"))
    if size == 1:
        return alone(device)
    if missing := [name for name in _VARIABLES if name not in env]:
        what = f"WORLD_SIZE is {size} and {', '.join(missing)} not set"
        raise ConfigError(what=what, cure="start the processes by torchrun")
    here = int(env.get("LOCAL_WORLD_SIZE", size))
    place = DDPStrategy(cluster_environment=TorchElasticEnvironment(), timeout=_PATIENCE)
    fabric = Fabric(accelerator=device, devices=here, num_nodes=size // here, strategy=place)
    fabric.launch()
    return fabric
