"""Steps of the batching loop: bounded, streams first, and nobody is kept waiting for ever."""

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from stepaudio_runtime.tokenizer.plan import (
    LARGE_STEP_FRAMES,
    LARGE_STEP_WINDOWS,
    LEAST_WINDOWS,
    SMALL_STEP_FRAMES,
    SMALL_STEP_WINDOWS,
    Share,
    Waiting,
    plan_step,
)

PIECE = 3000  # mel frames of 30 s
works = st.lists(
    st.builds(
        Waiting,
        st.integers(0, 300),
        st.lists(st.integers(3, PIECE), max_size=4).map(tuple),
        st.booleans(),
    ),
    max_size=12,
)


def after(work: Waiting, share: Share) -> Waiting:
    return replace(work, windows=work.windows - share.windows, pieces=work.pieces[share.pieces :])


@given(works)
def test_a_step_is_bounded_and_takes_no_more_than_there_is(waiting):
    shares = plan_step(waiting)
    assert len(shares) == len(waiting)
    small = any(work.urgent for work in waiting)
    windows = SMALL_STEP_WINDOWS if small else LARGE_STEP_WINDOWS
    frames = SMALL_STEP_FRAMES if small else LARGE_STEP_FRAMES
    assert all(0 <= share.windows <= work.windows for share, work in zip(shares, waiting, strict=True))
    assert all(0 <= share.pieces <= len(work.pieces) for share, work in zip(shares, waiting, strict=True))
    assert sum(share.windows for share in shares) <= windows + LEAST_WINDOWS
    taken = [sum(work.pieces[: share.pieces]) for share, work in zip(shares, waiting, strict=True)]
    assert sum(taken) <= frames + 2 * PIECE  # the first stream's and the first file's may exceed the room


@given(works)
def test_everything_is_done_in_the_end(waiting):
    steps = 0
    while any(work.windows or work.pieces for work in waiting):
        left = sum(work.windows + len(work.pieces) for work in waiting)
        waiting = [after(work, share) for work, share in zip(waiting, plan_step(waiting), strict=True)]
        assert sum(work.windows + len(work.pieces) for work in waiting) < left
        steps += 1
    assert steps < 5_000


def test_streams_go_before_files_and_files_by_arrival():
    first, second = Waiting(200, (PIECE,), False), Waiting(3, (300,), False)
    stream = Waiting(2, (192,), True)
    assert plan_step([first, second]) == [Share(LARGE_STEP_WINDOWS, 1), Share(0, 1)]
    assert plan_step([first, second, stream]) == [Share(SMALL_STEP_WINDOWS - 2, 1), Share(0, 0), Share(2, 1)]


def test_streams_without_end_do_not_starve_a_file():
    streams = [Waiting(4, (192, 192), True)] * 40
    shares = plan_step([Waiting(100, (PIECE,), False), *streams])
    assert shares[0] == Share(LEAST_WINDOWS, 1)


def test_eight_streams_share_a_step():
    assert plan_step([Waiting(1, (192,), True)] * 7) == [Share(1, 1)] * 7
