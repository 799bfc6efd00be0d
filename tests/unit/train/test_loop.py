"""The training loop: a run stopped and resumed ends where an undisturbed one does, killed or out of time; the
loss falls; a step of several batches goes the way of one large batch; products in bfloat16 learn alike."""

from dataclasses import replace
from pathlib import Path

import torch
from torch import nn

from stepaudio_runtime.errors import JobError
from stepaudio_runtime.train.loop import Losses, Plan, step_random, train

PLAN = Plan(steps=60, rate=0.05, warmup=5)


def run(steps_each: list[int], checkpoint: Path) -> tuple[torch.Tensor, float]:
    """Train in several goes, each stopped by an error after that many steps."""
    for stop in steps_each:
        torch.manual_seed(0)
        module = nn.Linear(3, 1)

        def loss(step: int, part: int, stop: int = stop, module: nn.Module = module) -> Losses:
            if step == stop:
                raise InterruptedError
            x = torch.from_numpy(step_random(0, step, part).standard_normal((8, 3))).float()
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


def test_out_of_time_it_says_how_far_it_is_and_goes_on_from_there(tmp_path: Path) -> None:
    def trained(until: float, checkpoint: Path) -> tuple[torch.Tensor, list[int]]:
        torch.manual_seed(0)
        module = nn.Linear(3, 1)
        steps: list[int] = []

        def loss(step: int, part: int) -> Losses:
            steps.append(step)
            x = torch.from_numpy(step_random(0, step, part).standard_normal((8, 3))).float()
            return {"total": (module(x) - x.sum(1, keepdim=True)).square().mean()}

        try:
            train(module, loss, PLAN, checkpoint, until=until, clock=lambda: float(len(steps)))
        except JobError as error:
            stopped.append(str(error))
        return module.weight.detach().clone(), steps

    stopped: list[str] = []
    whole, _ = trained(float(PLAN.steps), tmp_path / "a")
    assert not stopped, "time that is up with the last step stops nothing"
    _, first = trained(20.0, tmp_path / "b")
    pieces, rest = trained(float(PLAN.steps), tmp_path / "b")
    assert stopped == ["NotFinished: the time is up after step 20 of 60; the same command goes on from there"]
    assert [*first, *rest] == list(range(PLAN.steps))
    assert torch.equal(whole, pieces)


def test_a_step_of_two_batches_is_one_of_twice_the_size(tmp_path: Path) -> None:
    def trained(accumulate: int, parts: tuple[int, ...]) -> torch.Tensor:
        """`parts` are what a batch is drawn from, beside those of the loop."""
        torch.manual_seed(0)
        module = nn.Linear(3, 1)

        def loss(step: int, part: int) -> Losses:
            drawn = (step_random(0, step, part + more).standard_normal((8, 3)) for more in parts)
            x = torch.cat([torch.from_numpy(each).float() for each in drawn])
            return {"total": (module(x) - x.sum(1, keepdim=True)).square().mean()}

        train(module, loss, replace(PLAN, accumulate=accumulate), tmp_path / str(accumulate))
        return module.weight.detach().clone()

    torch.testing.assert_close(trained(2, (0,)), trained(1, (0, 1)))


def test_products_in_bfloat16_learn_alike(tmp_path: Path) -> None:
    def trained(bfloat16: bool) -> torch.Tensor:
        torch.manual_seed(0)
        module = nn.Linear(3, 1)

        def loss(step: int, part: int) -> Losses:
            x = torch.from_numpy(step_random(0, step, part).standard_normal((8, 3))).float()
            found = module(x)
            assert found.dtype == (torch.bfloat16 if bfloat16 else torch.float32)
            return {"total": (found.float() - x.sum(1, keepdim=True)).square().mean()}

        train(module, loss, replace(PLAN, bfloat16=bfloat16), tmp_path / str(bfloat16))
        return module.weight.detach().clone()

    half, whole = trained(True), trained(False)
    assert half.dtype == torch.float32
    assert not torch.equal(half, whole)
    torch.testing.assert_close(half, whole, rtol=0, atol=0.02)
