"""Several processes that train one model: two go the way of one that makes twice the batches, and only the
first one writes; one that cannot join the others says what is wrong and how to cure it."""

from __future__ import annotations

import json
import os
import socket
from multiprocessing import get_context
from pathlib import Path

import pytest
import torch
from lightning_fabric import Fabric
from torch import nn

from stepaudio_runtime.errors import ConfigError
from stepaudio_runtime.train.loop import Losses, Plan, step_random, train
from stepaudio_runtime.train.processes import alone, join

STEPS = 12


def learn(folder: Path, fabric: Fabric, accumulate: int) -> None:
    """Trains a small network; leaves its checkpoint, and what this process said."""
    torch.manual_seed(0)
    module = nn.Sequential(nn.Linear(3, 8), nn.Tanh(), nn.Linear(8, 1))

    def loss(step: int, part: int) -> Losses:
        x = torch.from_numpy(step_random(0, step, part).standard_normal((8, 3))).float()
        return {"total": (module(x) - x.sum(1, keepdim=True)).square().mean()}

    folder.mkdir(exist_ok=True)
    plan = Plan(steps=STEPS, rate=0.05, warmup=2, accumulate=accumulate, log_every=1)
    with (folder / f"log-{fabric.global_rank}").open("w") as log:
        train(module, loss, plan, folder / "checkpoint", log, fabric=fabric)


def member(rank: int, port: int, folder: Path) -> None:
    """What torchrun would start."""
    os.environ |= {"WORLD_SIZE": "2", "RANK": str(rank), "LOCAL_RANK": str(rank)}
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    torch.set_num_threads(1)
    learn(folder, join("cpu", os.environ), accumulate=1)


def totals(log: Path) -> list[float]:
    return [json.loads(line)["total"] for line in log.read_text().splitlines()]


def test_two_processes_go_the_way_of_one_with_twice_the_batches(tmp_path: Path) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    learn(one, alone(), accumulate=2)
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    spawn = get_context("spawn")
    members = [spawn.Process(target=member, args=(rank, port, two)) for rank in range(2)]
    for each in members:
        each.start()
    for each in members:
        each.join(300)
    assert [each.exitcode for each in members] == [0, 0]
    expected = totals(one / "log-0")
    assert len(expected) == STEPS and expected[-1] < expected[0]
    assert totals(two / "log-0") == pytest.approx(expected, abs=1e-5)
    assert totals(two / "log-1") == []
    ends = [torch.load(folder / "checkpoint", weights_only=True)["module"] for folder in (one, two)]
    torch.testing.assert_close(ends[0], ends[1], rtol=0, atol=1e-5)


def test_without_torchrun_a_process_is_alone() -> None:
    fabric = join("cpu", {})
    assert (fabric.world_size, fabric.global_rank, fabric.device) == (1, 0, torch.device("cpu"))


def test_half_a_place_is_refused() -> None:
    with pytest.raises(
        ConfigError, match="WORLD_SIZE is 2 and RANK, MASTER_PORT not set; start the processes"
    ):
        join("cpu", {"WORLD_SIZE": "2", "LOCAL_RANK": "0", "MASTER_ADDR": "127.0.0.1"})


@pytest.mark.skipif(torch.cuda.is_available(), reason="a GPU is here")
def test_a_gpu_that_is_not_there_is_said() -> None:
    with pytest.raises(ConfigError, match="no GPU that torch can use"):
        join("cuda", {})
