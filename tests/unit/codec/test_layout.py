"""The audio code layout: interleaving loses only the tail, text and ids come back, bad codes are refused."""

from fractions import Fraction
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stepaudio_runtime.codec.layout import (
    CODE_RATE,
    deinterleave,
    from_ids,
    from_text,
    interleave,
    mel_frames,
    split_text,
    to_ids,
    to_text,
)
from stepaudio_runtime.codec.repetition import forbid_repetition
from stepaudio_runtime.errors import InputError

linguistic_ids = st.lists(st.integers(0, 1023), max_size=60)
semantic_ids = st.lists(st.integers(0, 4095), max_size=60)
codes = st.lists(st.integers(0, 5119), max_size=60)


@given(linguistic_ids, semantic_ids)
def test_interleaving_and_back_loses_only_what_makes_no_whole_round(linguistic, semantic):
    found = interleave(linguistic, semantic)
    rounds = min(len(linguistic) // 2, len(semantic) // 3)
    assert deinterleave(found) == (linguistic[: 2 * rounds], semantic[: 3 * rounds])
    assert [code >= 1024 for code in found] == [False, False, True, True, True] * rounds


@given(codes, st.sampled_from([65536, 2880]))
def test_ids_and_text_come_back(given_codes, offset):
    assert from_ids(to_ids(given_codes, offset), offset) == given_codes
    assert from_text(to_text(given_codes)) == given_codes


@given(st.lists(codes.filter(bool) | st.text("ab<> 你\n", min_size=1), max_size=6))
def test_splitting_text_keeps_order_and_content(pieces):
    text = "".join(piece if isinstance(piece, str) else to_text(piece) for piece in pieces)
    found = split_text(text)
    assert "".join(piece if isinstance(piece, str) else to_text(piece) for piece in found) == text
    assert all(found)
    kinds = [isinstance(piece, str) for piece in found]
    assert all(one != other for one, other in pairwise(kinds))
    assert sum(len(piece) for piece in found if not isinstance(piece, str)) == text.count("<audio_")


@pytest.mark.parametrize("text", ["<audio_5120>", "<audio_1>x", "<audio_-1>", "<audio_99999999999>"])
def test_text_that_is_not_codes_is_refused(text):
    with pytest.raises(InputError):
        from_text(text)


@pytest.mark.parametrize(
    "call",
    [
        lambda: interleave([1024, 0], [0, 0, 0]),
        lambda: interleave([0, 0], [0, -1, 0]),
        lambda: deinterleave([5120]),
        lambda: from_ids([65535]),
        lambda: from_ids([65536 + 5120]),
    ],
)
def test_ids_outside_their_book_are_refused(call):
    with pytest.raises(InputError):
        call()


@pytest.mark.parametrize(("count", "rate", "frames"), [(4_480, 25, 15_434), (44_448, 41.67, 91_874)])
def test_mel_frames_are_counted_in_the_references_order(count, rate, frames):
    """Here the order of the operations decides: exactly computed, there is one frame more."""
    assert mel_frames(count, rate) == frames
    assert int(Fraction(count) / Fraction(str(rate)) * 22_050 / 256) == frames + 1


def test_the_rates_follow_from_the_layout():
    assert float(CODE_RATE) == pytest.approx(41.6667, abs=1e-4)


@given(st.lists(st.integers(0, 4), max_size=14))
def test_the_repetition_rule_row_by_row(ids):
    scores = np.zeros((1, 5), np.float32)
    found = forbid_repetition(np.array([ids], np.int64), scores)
    expected = scores.copy()
    if len(ids) >= 10 and ids[-10:].count(ids[-1]) > 1:
        expected[0, ids[-1]] = -np.inf
    np.testing.assert_array_equal(found, expected)
