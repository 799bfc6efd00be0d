"""The loop that makes speech, with a fake decoder: order kept, bounded, nothing left behind, whoever comes,
reads slowly or leaves; and what one stream becomes does not hang on the others."""

import asyncio
import random
from contextlib import nullcontext, suppress

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stepaudio_runtime.errors import OutputError, Overloaded
from stepaudio_runtime.service.faults import end_of
from stepaudio_runtime.tts.utterance import AHEAD_S, UNREAD_S
from tests.unit.tts.fakes import BROKEN, PLAN, SAMPLES, FakeDecoder, new_scheduler

SECOND = 42  # codes
HANGS_S = 60


def part_of(utterance, decoder, codes, *, plan=PLAN):
    part = utterance.begin(decoder, decoder.open(None, 0, plan))
    part.add(codes)
    part.end()
    return part


async def heard(utterance) -> list[int]:
    """The codes that the samples read were made of."""
    codes: list[int] = []
    async with asyncio.timeout(HANGS_S):
        while (wave := await utterance.read()) is not None:
            assert len(wave) % SAMPLES == 0
            codes += wave[::SAMPLES].astype(int).tolist()
    return codes


async def settle():
    for _ in range(200):
        await asyncio.sleep(0)


@pytest.fixture
async def scheduler():
    scheduler = new_scheduler(bound=3)
    running = asyncio.create_task(scheduler.run())
    yield scheduler
    assert not running.done()
    running.cancel()


async def test_parts_are_heard_whole_and_in_order(scheduler):
    utterance, decoder = scheduler.open(), FakeDecoder()
    part_of(utterance, decoder, range(1, 100))
    part_of(utterance, decoder, range(500, 501))
    part_of(utterance, decoder, range(700, 733))
    utterance.end()
    assert await heard(utterance) == [*range(1, 100), 500, *range(700, 733)]


async def test_the_first_hop_is_made_before_the_codes_end(scheduler):
    utterance, decoder = scheduler.open(), FakeDecoder()
    part = utterance.begin(decoder, decoder.open(None, 0, PLAN))
    part.add(range(1, 9))
    await settle()
    assert utterance.unread_s == 0, "a code beyond the look-ahead is missing"
    part.add([9])
    assert len(await utterance.read()) == PLAN.first * SAMPLES


@settings(deadline=None, max_examples=40)
@given(st.lists(st.integers(1, 30), min_size=1, max_size=12), st.booleans())
def test_hops_do_not_depend_on_when_codes_come(pieces, ended_late):
    async def waves(cuts: list[int]) -> list[int]:
        scheduler = new_scheduler()
        running = asyncio.create_task(scheduler.run())
        utterance, decoder = scheduler.open(), FakeDecoder()
        part = utterance.begin(decoder, decoder.open(None, 0, PLAN))
        at = 0
        for size in cuts:
            part.add(range(at, at + size))
            at += size
            await settle()
        if ended_late:
            await settle()
        part.end()
        utterance.end()
        lengths = []
        while (wave := await utterance.read()) is not None:
            lengths.append(len(wave))
        running.cancel()
        return lengths

    assert asyncio.run(waves(pieces)) == asyncio.run(waves([sum(pieces)]))


async def test_beyond_the_bound_there_is_no_utterance_until_one_closes(scheduler):
    three = [scheduler.open() for _ in range(3)]
    with pytest.raises(Overloaded) as refusal:
        scheduler.open()
    assert refusal.value.retry_after_s >= 1
    scheduler.close(three[0])
    scheduler.close(three[0])
    assert scheduler.open()
    assert scheduler.speaking == 3


async def test_a_reader_that_takes_nothing_stops_its_own_stream_only(scheduler):
    slow, quick, decoder = scheduler.open(), scheduler.open(), FakeDecoder()
    codes = range(1, 60 * SECOND)
    for utterance in (slow, quick):
        part_of(utterance, decoder, codes)
        utterance.end()
    assert await heard(quick) == [*codes]
    assert slow.unread_s < UNREAD_S + PLAN.largest / SECOND + 0.1
    assert scheduler.waiting == 0
    assert await heard(slow) == [*codes]


async def test_a_writer_waits_while_its_reader_is_far_behind(scheduler):
    utterance, decoder = scheduler.open(), FakeDecoder()
    part_of(utterance, decoder, range(1, int((AHEAD_S + 1) * SECOND)))
    room = asyncio.create_task(utterance.room())
    await settle()
    assert not room.done()
    while not room.done():
        await utterance.read()
        await settle()
    assert utterance.ahead_s < AHEAD_S


async def test_what_the_decoder_has_seen_is_not_taken_back(scheduler):
    utterance, decoder = scheduler.open(), FakeDecoder()
    part = utterance.begin(decoder, decoder.open(None, 0, PLAN))
    part.add(range(12))
    await settle()  # the hop of 5 is made, with 3 of look-ahead and one more
    part.take_back(2)
    assert part.codes == [*range(9)]
    part.add([20, 21])
    part.end()
    utterance.end()
    assert await heard(utterance) == [*range(9), 20, 21]


async def test_a_step_stops_when_all_its_readers_have_gone():
    scheduler, decoder = new_scheduler(), FakeDecoder()
    leaver = scheduler.open()
    part_of(leaver, decoder, range(1, 50))
    stepping = asyncio.create_task(scheduler.run())
    await asyncio.sleep(0)  # the step waits for its worker
    scheduler.close(leaver)
    await settle()
    assert [stream.spoken for step in decoder.steps for stream in step] == [0]
    assert not stepping.done()
    stepping.cancel()


async def test_a_shared_step_leaves_out_the_reader_that_has_gone():
    scheduler, decoder = new_scheduler(), FakeDecoder()
    leaver, listener = scheduler.open(), scheduler.open()
    part_of(leaver, decoder, range(1, 50))
    part_of(listener, decoder, range(1, 50))
    listener.end()
    stepping = asyncio.create_task(scheduler.run())
    await asyncio.sleep(0)  # the step of both waits for its worker
    scheduler.close(leaver)
    assert await heard(listener) == [*range(1, 50)]
    of_leaver, of_listener = decoder.steps[0]
    assert (of_leaver.spoken, of_listener.spoken) == (0, 49)
    stepping.cancel()


async def test_a_fault_ends_the_utterances_of_its_step_and_no_others(scheduler):
    faults = iter([OutputError("not finite")])
    broken, sound = FakeDecoder(lambda: next(faults, None)), FakeDecoder()
    first, second = scheduler.open(), scheduler.open()
    part_of(first, broken, range(1, 50))
    part_of(second, sound, range(1, 50))
    second.end()
    with pytest.raises(OutputError, match="not finite"):
        await heard(first)
    assert await heard(second) == [*range(1, 50)]


@pytest.mark.parametrize(("steps", "ends"), [("bbb", True), ("bbsbb", False)])
async def test_three_steps_in_a_row_that_end_in_what_nobody_foresaw_end_the_loop(steps, ends):
    scheduler, left = new_scheduler(), iter(steps)
    decoder = FakeDecoder(lambda: RuntimeError("CUDA error: unspecified") if next(left) == "b" else None)
    running = asyncio.create_task(scheduler.run())
    for step in steps:
        utterance = scheduler.open()
        part_of(utterance, decoder, range(1, 4))
        utterance.end()
        with pytest.raises(RuntimeError) if step == "b" else nullcontext():
            await heard(utterance)
        scheduler.close(utterance)
    await settle()
    assert running.done() == ends
    if ends:
        assert repr(end_of(running, "")) == (
            "EngineFailed('3 steps of the speech decoder in a row failed, the last of RuntimeError:"
            " CUDA error: unspecified')"
        )
    running.cancel()


async def test_errors_that_were_foreseen_do_not_end_the_loop(scheduler):
    for _ in range(4):
        utterance = scheduler.open()
        part_of(utterance, FakeDecoder(lambda: OutputError("not finite")), range(1, 4))
        with pytest.raises(OutputError):
            await heard(utterance)
        scheduler.close(utterance)


async def test_a_stream_without_numbers_fails_alone_of_those_that_share_its_step(scheduler):
    decoder = FakeDecoder()
    broken, sound = scheduler.open(), scheduler.open()
    part_of(broken, decoder, [*range(1, 30), BROKEN, *range(30, 60)])
    part_of(sound, decoder, range(1, 60))
    sound.end()
    codes: list[int] = []
    with pytest.raises(OutputError, match="not finite"):
        while (wave := await broken.read()) is not None:
            codes += wave[::SAMPLES].astype(int).tolist()
    assert 0 < len(codes) < 30
    assert codes == [*range(1, len(codes) + 1)]
    assert await heard(sound) == [*range(1, 60)]
    assert max(len(step) for step in decoder.steps) == 2


async def test_a_code_that_the_flow_does_not_know_fails_its_own_utterance(scheduler):
    decoder = FakeDecoder()
    wrong, right = scheduler.open(), scheduler.open()
    part_of(wrong, decoder, [-1] * 30)
    part_of(right, decoder, range(1, 30))
    right.end()
    with pytest.raises(Exception, match="does not know"):
        await heard(wrong)
    assert await heard(right) == [*range(1, 30)]


@settings(deadline=None, max_examples=60)
@given(st.randoms(use_true_random=False), st.integers(1, 4))
def test_whoever_comes_reads_slowly_or_leaves_nothing_is_lost_mixed_or_left(rng: random.Random, batch: int):
    async def run():
        scheduler, decoder = new_scheduler(bound=5, batch=batch), FakeDecoder()
        before = asyncio.all_tasks()
        running = asyncio.create_task(scheduler.run())
        refused = 0

        async def client(number: int) -> None:
            nonlocal refused
            for _ in range(rng.randrange(20)):
                await asyncio.sleep(0)
            try:
                utterance = scheduler.open()
            except Overloaded:
                refused += 1
                return
            said = [[number * 1000 + i for i in range(rng.randint(1, 80))] for _ in range(rng.randint(1, 3))]
            leaves_after = rng.choice([None, None, rng.randrange(5)])

            async def write() -> None:
                for codes in said:
                    await utterance.room()
                    part = utterance.begin(decoder, decoder.open(None, 0, PLAN))
                    while codes_left := codes[len(part.codes) :]:
                        part.add(codes_left[: rng.randint(1, 9)])
                        await asyncio.sleep(0)
                    part.end()
                utterance.end()

            writer = asyncio.create_task(write())
            got: list[int] = []
            try:
                while (wave := await utterance.read()) is not None:
                    got += wave[::SAMPLES].astype(int).tolist()
                    if leaves_after is not None:
                        leaves_after -= 1
                        if leaves_after < 0:
                            break
                    for _ in range(rng.choice([0, 0, 30])):
                        await asyncio.sleep(0)
                else:
                    assert got == [code for codes in said for code in codes]
                assert got == [code for codes in said for code in codes][: len(got)]
            finally:
                scheduler.close(utterance)
                writer.cancel()
                with suppress(asyncio.CancelledError):
                    await writer

        await asyncio.gather(*(client(number) for number in range(1, rng.randint(2, 9))))
        await settle()
        assert (scheduler.speaking, scheduler.waiting) == (0, 0)
        assert all(len(step) <= batch for step in decoder.steps)
        assert not running.done()
        running.cancel()
        with suppress(asyncio.CancelledError):
            await running
        assert asyncio.all_tasks() == before

    asyncio.run(asyncio.wait_for(run(), HANGS_S))


async def test_a_closed_utterance_holds_no_samples(scheduler):
    utterance, decoder = scheduler.open(), FakeDecoder()
    part_of(utterance, decoder, range(1, 200))
    await settle()
    assert utterance.unread_s > 0
    scheduler.close(utterance)
    await settle()
    assert (utterance.unread_s, utterance.ahead_s, scheduler.speaking) == (0, 0, 0)
    assert np.isfinite(utterance.playback.given_s)
