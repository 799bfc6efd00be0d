"""Text that arrives in pieces: spoken from its first clause on, nothing lost or said twice, cut the same
however it arrives, never inside a number or behind an abbreviation.
"""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stepaudio_runtime.codec.controls import split_names
from stepaudio_runtime.gateway.text_pieces import LONGEST_S, TextCutter
from stepaudio_runtime.tts.text import seconds

WORDS = st.lists(
    st.sampled_from(["well, ", "it is 3.14", " Dr. Li came. ", "你好，", "世界。", "ok", "!", "\n", "... "])
)


def pieces(*parts: str) -> list[str]:
    cutter = TextCutter()
    return [piece for part in parts for piece in cutter.push(part)] + cutter.finish()


def test_the_first_clause_is_spoken_at_once_then_sentences():
    cutter = TextCutter()
    said = [cutter.push(part) for part in ["Well my", " friend,", " this is", " good. And", " now, we go"]]
    assert said == [[], [], ["Well my friend,"], ["this is good."], []]
    assert cutter.finish() == ["And now, we go"]


def test_a_first_clause_that_is_too_short_waits_for_more():
    assert pieces("Oh, yes, my friend, I am.") == ["Oh, yes, my friend,", "I am."]
    assert pieces("好，我们走吧。", "再见。") == ["好，我们走吧。", "再见。"]


def test_numbers_and_abbreviations_are_not_cut():
    assert pieces("It is 3.", "14 or 1,", "000 for Dr. Li. Bye.") == [
        "It is 3.14 or 1,000 for Dr. Li.",
        "Bye.",
    ]


def test_a_pause_ends_a_sentence_and_nothing_else():
    cutter = TextCutter()
    assert (cutter.push("You hear me."), cutter.pause()) == ([], ["You hear me."])
    assert (cutter.push("and this"), cutter.pause()) == ([], [])


@pytest.mark.parametrize("text", ["", "...", "😀 !", "\n\n"])
def test_what_has_no_words_is_not_spoken(text):
    assert pieces(text) == []


@pytest.mark.parametrize("front", ["(happy)\n", "(happy) ", "（高兴1）。 ", " (Sad)\n ... \n(very happy)\n"])
def test_tags_that_come_alone_in_front_of_the_text_hold_for_what_follows(front):
    said = pieces(front, "Hello my friend,", " how are you?")
    assert [split_names(piece)[1] for piece in said] == ["Hello my friend,", "how are you?"]
    assert split_names(said[0])[0].split() == "".join(char for char in front if char not in "。.").split()


@pytest.mark.parametrize("alone", ["(happy).", "\n(Sad)\n", "(四川话)(高兴1)\n", "(very fast) ..."])
def test_tags_that_stand_alone_later_are_no_piece(alone):
    assert pieces("Hello my friend. ", alone, " Good to see you.") == ["Hello my friend.", "Good to see you."]
    assert pieces("Hello my friend. ", alone) == ["Hello my friend."]


def test_tags_and_nothing_else_are_no_piece_and_wait_to_be_spoken():
    cutter = TextCutter()
    assert (cutter.push("(happy)\n(sad)\n(slow)"), cutter.waiting) == ([], len("(happy)(sad)(slow)"))
    assert cutter.finish() == []


def test_a_remark_in_brackets_is_spoken():
    assert pieces("Hello my friend. (laughs) ") == ["Hello my friend.", "(laughs)"]


def test_a_sentence_without_an_end_is_cut_and_held_by_no_more_than_a_piece():
    cutter = TextCutter()
    said = [piece for _ in range(200) for piece in cutter.push("word and word ")]
    assert all(seconds(piece) <= LONGEST_S for piece in said)
    assert seconds("x" * cutter.waiting) <= LONGEST_S + 1
    assert "".join([*said, *cutter.finish()]).replace(" ", "") == "wordandword" * 200


@pytest.mark.parametrize("text", ["x", "”", ".", "1.", "e.g. ", "\u3000", "a\u0301\u0323", "好"])
def test_a_long_text_of_one_kind_costs_no_more_a_character_than_a_short_one(text):
    """Whatever grew with the square of the length would not come to its end here."""
    long = text * (100_000 // len(text))
    said = [*pieces(long), *pieces(*long[:5_000])]
    assert all(seconds(piece) <= LONGEST_S for piece in said)


@given(WORDS, st.data())
def test_nothing_is_lost_and_the_cut_does_not_matter(words, data):
    text = "".join(words)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(text)), max_size=8)))
    parts = [text[a:b] for a, b in zip([0, *cuts], [*cuts, len(text)], strict=True)]
    heard = "".join(char for piece in pieces(*parts) for char in piece if char.isalnum())
    assert heard == "".join(char for char in text if char.isalnum())
    assert pieces(*parts) == pieces(*text)
