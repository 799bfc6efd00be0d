"""The training loop: a run stopped and resumed ends where an undisturbed one does, and the loss falls."""

from dataclasses import replace
from pathlib import Path

import torch
from torch import nn

from stepaudio_runtime.train.loop import Losses, Plan, step_random, train

PLAN = Plan(steps=60, rate=0.05, warmup=5)


def run(steps_each: list[int], checkpoint: Path) -> tuple[torch.Tensor, float]:
    """Train in several goes, each stopped by an error after that many steps."""
    for stop in steps_each:
        torch.manual_seed(0)
        module = nn.Linear(3, 1)

        def loss(step: int, stop: int = stop, module: nn.Module = module) -> Losses:
            if step == stop:
                raise InterruptedError
            x = torch.from_numpy(step_random(0, step).standard_normal((8, 3))).float()
            return {"total": (module(x) - x.sum(1, keepdim=True)).square().mean()}

        try:
            last = train(module, loss, replace(PLAN, save_every_s=-1), checkpoint)
        except InterruptedError:
            continue
    return module.weight.detach().clone(), last["total"]


def test_resumed_equals_undisturbed(tmp_path: Path) -> None:
    whole, end = run([1000], tmp_path / "a")
    pieces, _ = run([7, 31, 1000], tmp_path / "b")
    assert torch.equal(whole, pieces)
    assert end < 0.05
