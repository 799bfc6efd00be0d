"""When a model turns in circles: repeated phrases of up to two seconds and endless silence are found, where
the repetition begins; speech is left alone, and so is a phrase said twice."""

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stepaudio_runtime.contract import AUDIO_CODES, LINGUISTIC_CODES
from stepaudio_runtime.tts.loops import WINDOW, loop_start


def spoken(linguistic: list[int], rng: random.Random) -> list[int]:
    """Interleaved with semantic codes that are never the same: 2 linguistic, 3 semantic."""
    codes = []
    for number, code in enumerate(linguistic):
        codes.append(code)
        if number % 2:
            codes += [rng.randrange(LINGUISTIC_CODES, AUDIO_CODES) for _ in range(3)]
    return codes


def speech(count: int, rng: random.Random) -> list[int]:
    return [rng.randrange(LINGUISTIC_CODES) for _ in range(count)]


def first_loop(codes: list[int]) -> tuple[int, int]:
    """After how many codes, as they come, a loop is found, and where it begins."""
    for known in range(5, len(codes) + 1, 5):
        if (start := loop_start(codes[:known])) is not None:
            return known, start
    pytest.fail("no loop was found")


@settings(deadline=None, max_examples=25)
@given(st.integers(1, 35), st.integers(0, 150), st.integers(0, 999))
def test_a_phrase_again_and_again_is_cut_behind_its_first_time(period, before, seed):
    rng = random.Random(seed)
    phrase = speech(period, rng)
    linguistic = speech(before, rng) + phrase * (1 + 2 * WINDOW // period)
    codes = spoken(linguistic, rng)
    known, start = first_loop(codes)
    kept = [code for code in codes[:start] if code < LINGUISTIC_CODES]
    assert kept == linguistic[: len(kept)]
    assert len(kept) >= before + period, "what was said once stays"
    heard = sum(code < LINGUISTIC_CODES for code in codes[:known])
    assert heard <= before + WINDOW + 2
    assert codes[start] < LINGUISTIC_CODES


@settings(deadline=None, max_examples=25)
@given(st.integers(0, 99), st.integers(0, 600))
def test_speech_is_no_loop(seed, count):
    rng = random.Random(seed)
    assert loop_start(spoken(speech(count, rng), rng)) is None


@settings(deadline=None, max_examples=25)
@given(st.integers(0, 99), st.integers(10, WINDOW // 2))
def test_a_phrase_said_twice_is_no_loop(seed, period):
    rng = random.Random(seed)
    phrase = speech(period, rng)
    rest = speech(WINDOW - 2 * period, rng)
    assert loop_start(spoken(phrase + phrase + rest, rng)) is None


def test_a_silence_of_seconds_is_one():
    rng = random.Random(0)
    assert loop_start(spoken(speech(WINDOW, rng) + [7] * (WINDOW * 2 // 3), rng)) is not None
    assert loop_start(spoken(speech(WINDOW, rng) + [7] * (WINDOW // 3), rng)) is None


def test_a_short_answer_is_no_loop():
    assert loop_start([]) is None
    assert loop_start([5] * (WINDOW - 1)) is None
    assert loop_start([LINGUISTIC_CODES] * 10_000) is None
