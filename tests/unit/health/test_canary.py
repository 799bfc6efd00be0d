"""The canary: recorded once, compared after, asked only of an idle pod, fatal only in a row."""

import asyncio
from pathlib import Path

import pytest

from stepaudio_runtime.errors import OutputError
from stepaudio_runtime.health.canary import Canary, CanaryFailed, CanaryPlan, Record, check_ids
from stepaudio_runtime.health.state import PodState

GOOD = (5, 6, 7, 8)


class Model:
    """Answers as told; `asked` counts."""

    def __init__(self, *answers: object) -> None:
        self.answers = list(answers)
        self.asked = 0
        self.hook = lambda: None
        self.enough = asyncio.Event()
        self.until = 0

    async def __call__(self) -> tuple[int, ...]:
        self.asked += 1
        self.hook()
        if self.asked == self.until:
            self.enough.set()
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if isinstance(answer, Exception):
            raise answer
        if answer is None:
            await asyncio.sleep(600)
        return answer  # type: ignore[return-value]


def make(tmp_path: Path, model: Model) -> tuple[PodState, Canary, asyncio.Future]:
    state = PodState("chat")
    state.become_ready()
    plan = CanaryPlan(Record(tmp_path / "canary.json"), interval_s=0.001, timeout_s=0.05, retry_s=0.001)
    return state, Canary(state, model, plan), asyncio.get_running_loop().create_future()


def test_the_first_good_answer_is_kept_and_later_ones_begin_like_it(tmp_path: Path) -> None:
    record = Record(tmp_path / "new" / "canary.json")
    record.check(GOOD)
    record.check((5, 6, 9, 9))  # the second half may go another way
    with pytest.raises(CanaryFailed, match=r"begins \[5, 9\], the first good one began \[5, 6\]"):
        Record(tmp_path / "new" / "canary.json").check((5, 9, 7, 8))
    (tmp_path / "new" / "canary.json").write_text("{")  # cut by a full disk
    record.check(GOOD)


def test_ids_beyond_the_vocabulary_and_too_few_are_refused() -> None:
    assert check_ids(GOOD, length=4, vocabulary=9) == GOOD
    for wrong in ((5, 6, 7), (5, 6, 7, 9), (5, 6, 7, -1)):
        with pytest.raises(OutputError, match="canary"):
            check_ids(wrong, length=4, vocabulary=9)


async def test_a_wrong_answer_makes_an_idle_pod_unready_and_a_good_one_ready_again(tmp_path: Path) -> None:
    model = Model(GOOD, (1, 1, 1, 1), GOOD)
    model.until = 4
    state, asks, failed = make(tmp_path, model)
    seen: list[tuple[bool, str]] = []
    model.hook = lambda: seen.append((state.ready, state.not_ready()["reason"]))
    running = asyncio.create_task(asks.run(failed))
    await asyncio.wait_for(model.enough.wait(), 30)
    running.cancel()
    assert seen[:4] == [(True, "Ready"), (True, "Ready"), (False, "CanaryFailed"), (True, "Ready")]
    assert not failed.done()


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (OutputError("no sound"), "^no sound$"),
        (None, r"^no answer in 0\.05 s$"),
        ((1, 1), r"begins \[1, 1\]"),
        (RuntimeError("CUDA error: unspecified"), r"^RuntimeError: CUDA error: unspecified$"),
        (PermissionError(13, "denied"), r"^PermissionError: \[Errno 13\] denied$"),
    ],
)
async def test_three_failures_in_a_row_end_the_pod(tmp_path: Path, answer: object, message: str) -> None:
    model = Model(GOOD, answer)
    _, asks, failed = make(tmp_path, model)
    await asyncio.wait_for(asks.run(failed), 30)
    assert model.asked == 4
    with pytest.raises(OutputError if isinstance(answer, OutputError) else CanaryFailed, match=message):
        raise failed.result()


async def test_a_busy_pod_is_not_asked_and_what_comes_meanwhile_excuses_the_answer(tmp_path: Path) -> None:
    model = Model(OutputError("overrun"))
    model.until = 6
    state, asks, failed = make(tmp_path, model)
    with state.admit():
        running = asyncio.create_task(asks.run(failed))
        await asyncio.sleep(0.02)
        assert model.asked == 0

    def come_and_go() -> None:
        with state.admit():
            pass

    model.hook = come_and_go
    await asyncio.wait_for(model.enough.wait(), 30)
    running.cancel()
    assert state.ready
    assert not failed.done()
