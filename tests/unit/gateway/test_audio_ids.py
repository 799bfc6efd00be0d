"""Ids of spoken answers carry the answers' words; nothing else that a client sends is taken for one."""

import base64
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stepaudio_runtime.gateway.audio_ids import MAX_WORDS, new_id, words_of, words_part


@given(st.text())
def test_an_id_says_what_was_said_whole_or_by_its_second_half(words):
    second = words_part(words)
    assert words_of(new_id() + second) == words_of(second) == words


@pytest.mark.parametrize("other", ["", "audio_abc123", ".", "audio_1.%%%", "audio_1.AAAA", "x.é"])
def test_what_is_no_id_of_ours_has_no_words(other):
    assert words_of(other) is None


def test_an_id_without_words_has_none():
    assert words_of(new_id()) is None


@pytest.mark.parametrize("raw", [b"a" * (MAX_WORDS + 1), b"\xff"])
def test_too_many_words_and_what_is_no_text_are_none(raw):
    assert words_of("." + base64.urlsafe_b64encode(zlib.compress(raw)).decode()) is None
