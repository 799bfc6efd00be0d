"""The one training loop of all stages: AdamW, a warm-up and a cosine, clipped gradients, checkpoints.

A stage gives the loss of part k of step n as a function of n and k alone (its batches are drawn from
`step_random`), so a run that was killed and resumed goes through the same steps as an undisturbed one, and
the parts of a step may be made one after another or by several processes. A checkpoint is written beside its
place and renamed, so that a kill at any moment leaves the last whole one.

It stands on Lightning's Fabric, which knows devices, processes and checkpoints; the steps are here, for the
stages' batches are their own to draw.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

import numpy as np
import torch
from lightning_fabric import Fabric
from torch import Tensor, nn

from stepaudio_runtime.errors import JobError
from stepaudio_runtime.train.processes import alone

Losses = dict[str, Tensor]
"""The parts of a loss by name, each a scalar; what is minimised is `total`."""

BETAS = (0.9, 0.98)


@dataclass(frozen=True)
class Plan:
    """How long and how fast to train. `steps` also sets the learning rate's fall, so it is not to be cut."""

    steps: int
    rate: float  # highest learning rate
    warmup: int = 100  # steps
    seed: int = 0
    weight_decay: float = 0.01
    clip: float = 1.0  # norm of all gradients together
    bfloat16: bool = False  # products in bfloat16, weights and sums in float32
    accumulate: int = 1  # batches that each process takes a step's gradients from
    log_every: int = 50  # steps
    save_every_s: float = 120.0


def step_random(seed: int, step: int, part: int) -> np.random.Generator:
    """The randomness of one part of a step; that of part 0 is the step's where it has one part."""
    return np.random.default_rng([seed, step, part] if part else [seed, step])


def rate_at(plan: Plan, step: int) -> float:
    """Learning rate of `step`: linear to `rate`, then a half cosine to a hundredth of it."""
    if step < plan.warmup:
        return plan.rate * (step + 1) / plan.warmup
    done = (step - plan.warmup) / max(1, plan.steps - plan.warmup)
    return plan.rate * (0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * min(1.0, done))))


def train(
    module: nn.Module,
    loss: Callable[[int, int], Losses],
    plan: Plan,
    checkpoint: Path,
    log: TextIO | None = None,
    *,
    fabric: Fabric | None = None,
    until: float = math.inf,
    clock: Callable[[], float] = time.monotonic,
) -> dict[str, float]:
    """Train `module` to the end of `plan`, from `checkpoint` if it exists; the last logged means.

    `loss` is of a step and one of its parts, of which each process of `fabric` (by default this one alone)
    takes `plan.accumulate`: N processes go the way of one that takes N times as many. Their checkpoint has to
    be the same file.

    One JSON line goes to `log` every `log_every` steps. Raises FloatingPointError where a loss is not finite,
    and JobError where `until` (by `clock`) comes before the end; the checkpoint is of the last step then.
    """
    fabric = fabric or alone()
    trained = [p for p in module.parameters() if p.requires_grad]
    decayed, others = [p for p in trained if p.dim() > 1], [p for p in trained if p.dim() <= 1]
    optimiser = torch.optim.AdamW(
        [{"params": decayed, "weight_decay": plan.weight_decay}, {"params": others, "weight_decay": 0.0}],
        lr=plan.rate,
        betas=BETAS,
    )
    first, means = _resume(fabric, module, optimiser, checkpoint)
    started = saved = clock()
    sums: dict[str, float] = {}
    counted = 0
    module.train()
    for step in range(first, plan.steps):
        for parameters in optimiser.param_groups:
            parameters["lr"] = rate_at(plan, step)
        optimiser.zero_grad(set_to_none=True)
        losses = _gradients(loss, step, plan, fabric, trained)
        if not math.isfinite(losses["total"]):
            raise FloatingPointError(f"the loss of step {step} is not finite")
        fabric.clip_gradients(module, optimiser, max_norm=plan.clip)
        optimiser.step()
        counted += 1
        for name, value in losses.items():
            sums[name] = sums.get(name, 0.0) + value
        if (step + 1) % plan.log_every == 0 or step + 1 == plan.steps:
            means = {name: value / counted for name, value in sums.items()}
            sums, counted = {}, 0
            if log is not None and fabric.is_global_zero:
                line = {"step": step + 1, "seconds": round(clock() - started, 1)}
                rounded = {name: round(value, 5) for name, value in means.items()}
                print(json.dumps({**line, **rounded}), file=log, flush=True)
        last = step + 1 == plan.steps
        due, over = fabric.broadcast((clock() - saved > plan.save_every_s, clock() >= until and not last))
        if due or over or last:
            state = {"step": step + 1, "means": means, "module": module, "optimiser": optimiser}
            save(fabric, state, checkpoint)
            saved = clock()
        if over:
            raise _not_finished(step + 1, plan)
    module.eval()
    fabric.barrier()
    return means


def _not_finished(step: int, plan: Plan) -> JobError:
    what = f"the time is up after step {step:,} of {plan.steps:,}"
    return JobError("NotFinished", what=what, cure="the same command goes on from there", for_a_person=False)


def _gradients(
    loss: Callable[[int, int], Losses], step: int, plan: Plan, fabric: Fabric, trained: list[nn.Parameter]
) -> dict[str, float]:
    """Leave in the parameters the mean gradient of all parts of a step, in every process; the mean losses."""
    device, rank = trained[0].device, fabric.global_rank
    sums: dict[str, Tensor] = {}
    for part in range(rank * plan.accumulate, (rank + 1) * plan.accumulate):
        torch.manual_seed(plan.seed * 1_000_003 + step + part * 1_000_000_007)
        with torch.autocast(device.type, torch.bfloat16, enabled=plan.bfloat16):
            losses = loss(step, part)
        fabric.backward(losses["total"] / plan.accumulate)
        for name, value in losses.items():
            sums[name] = sums.get(name, torch.zeros(())) + value.detach().float().cpu() / plan.accumulate
    means = torch.stack([sums[name] for name in sorted(sums)]).to(device)
    if fabric.world_size > 1:
        for parameter in trained:
            gradient = torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
            parameter.grad = fabric.all_reduce(gradient, reduce_op="mean")
        means = fabric.all_reduce(means, reduce_op="mean")
    return dict(zip(sorted(sums), means.tolist(), strict=True))


def save(fabric: Fabric, state: Mapping[str, Any], path: Path) -> None:
    """Write a checkpoint whole or not at all; for every process to call."""
    beside = path.with_name(path.name + ".part")
    fabric.save(beside, dict(state))
    if fabric.is_global_zero:
        beside.replace(path)


def _resume(
    fabric: Fabric, module: nn.Module, optimiser: torch.optim.Optimizer, path: Path
) -> tuple[int, dict[str, float]]:
    """The step to go on from, and the last means that were logged; 0 and none without a checkpoint."""
    if not path.exists():
        return 0, {}
    rest = fabric.load(path, {"module": module, "optimiser": optimiser}, weights_only=True)
    return int(rest["step"]), rest.get("means", {})  # none in checkpoints of before they were kept
