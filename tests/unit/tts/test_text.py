"""Text to sentence groups: what has no sound goes, nothing else is lost or doubled, no group is too long."""

import random
import re
import unicodedata

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stepaudio_runtime.errors import InputError
from stepaudio_runtime.tts.text import clauses, clean, groups, language, seconds, sentences

GAP_S = seconds(" ")
anything = st.text(st.characters(codec=None, categories=None), max_size=60)  # lone surrogates too
letters = st.text("ab e，。！?.,; \n你好もの—", max_size=120)


def letters_of(text: str) -> str:
    return "".join(text.split())


@pytest.mark.parametrize(
    ("raw", "cleaned"),
    [
        ("  hello\t world \r\n\n next ", "hello world\nnext"),
        ("a\x00b\x1bc\x07", "a b c"),
        ("co\u00adope\u200brate\ufeff\u202e", "cooperate"),
        ("hi 😀👍🏽 there ❤️‍🔥!", "hi there !"),
        ("25℃ №5 ½", "25℃ №5 ½"),
        ("①打开②关闭", "1打开2关闭"),
        ("①②❸都对，⓪也对", "1, 2, 3都对，0也对"),
        ("2024①年，⑳200", "2024, 1年，20, 200"),
        ("⑴或Ⓐ", "(1)或A"),
        ("e\u0301te\u0301", "été"),
        ("\ud83d broken \udc00", "broken"),
        ("一\u2028二\u2029三", "一\n二\n三"),
        ("7", "7"),
    ],
)
def test_what_has_no_sound_goes(raw, cleaned):
    assert clean(raw) == cleaned


@pytest.mark.parametrize(
    "nothing", ["", " \n\t", "...?!", "😀🎉", "\x00\x01", "\u200b", "（）", "\ud800", "—"]
)
def test_a_text_without_letter_and_digit_is_refused(nothing):
    with pytest.raises(InputError) as refusal:
        clean(nothing)
    assert (refusal.value.param, refusal.value.code) == ("input", "empty_input")


def test_a_letter_keeps_no_more_marks_than_can_be_put_in_order():
    """To normalise so many takes minutes: their order costs the square of their number."""
    marks = "\u0301\u0323" * 200_000
    assert clean(f"a{marks} b") == unicodedata.normalize("NFC", f"a{marks[:30]} b")


@settings(deadline=None, max_examples=60)
@given(anything)
def test_whatever_comes_is_clean_or_refused(raw):
    try:
        text = clean(raw)
    except InputError:
        return
    assert {unicodedata.category(char) for char in text if char != "\n"}.isdisjoint({"Cc", "Cf", "Cs", "Co"})
    assert not re.search(r"\s\s|^\s|\s$", text)
    text.encode()


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("你好。再见！", ["你好。", "再见！"]),
        ("（好的。）走吧", ["（好的。）", "走吧"]),
        ('"Yes." He left?! Now', ['"Yes."', "He left?!", "Now"]),
        ("Mr. Lee paid 3.50 to J. R. Smith. Done.", ["Mr. Lee paid 3.50 to J. R. Smith.", "Done."]),
        ("See e.g. fig. 5, at 3 p.m. today.", ["See e.g. fig. 5, at 3 p.m. today."]),
        ("version 2.0.1 of a.b.c", ["version 2.0.1 of a.b.c"]),
        ("Open Sat. 9 to 5. The Sun. It set.", ["Open Sat. 9 to 5.", "The Sun.", "It set."]),
        ("他说OK.然后走了。", ["他说OK.", "然后走了。"]),
        ("one\ntwo", ["one", "two"]),
        ("wait... what", ["wait...", "what"]),
        ("", []),
    ],
)
def test_sentences_end_where_they_end(text, parts):
    assert list(sentences(text)) == parts


@settings(deadline=None, max_examples=40)
@given(letters)
def test_sentences_lose_nothing(text):
    assert letters_of("".join(sentences(text))) == letters_of(text)


@settings(deadline=None, max_examples=40)
@given(letters, st.floats(0.3, 5))
def test_clauses_lose_nothing_and_are_short_enough(text, longest_s):
    parts = list(clauses(text, longest_s))
    assert letters_of("".join(parts)) == letters_of(text)
    assert all(seconds(part) <= longest_s or len(part) == 1 for part in parts)


def test_a_sentence_is_cut_behind_a_clause_or_a_word_but_not_in_a_number():
    assert list(clauses("first part, second part of it", 1.5)) == ["first part,", "second part of it"]
    assert list(clauses("none of these words has a comma", 1.2)) == ["none of these", "words has a", "comma"]
    assert next(clauses("about 1,000,000 or so of them", 1.0)) == "about"


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("你好", "zh"),
        ("日本の", "ja"),
        ("hello", "en"),
        ("12.5%", None),
        ("OK，好", "zh"),
        ("カメラ", "ja"),
        ("1,200円", "ja"),
    ],
)
def test_language_of_a_piece(text, found):
    assert language(text) == found


def test_han_in_a_japanese_text_is_japanese():
    assert list(groups("これは本です。10個。")) == ["これは本です。十個。"]
    assert list(groups("这是书。10个。")) == ["这是书。十个。"]


@settings(deadline=None, max_examples=40)
@given(letters, st.floats(0.5, 12))
def test_groups_lose_nothing_and_are_short_enough(text, longest_s):
    found = list(groups(text, longest_s=longest_s))
    assert letters_of("".join(found)) == letters_of(text)
    assert all(seconds(group) <= longest_s + GAP_S or len(group) == 1 for group in found)


def test_short_sentences_share_a_group_until_it_is_full():
    assert list(groups("One. Two! 三。四。")) == ["One. Two!三。四。"]
    clause = "这是一个很长的句子里面，"  # 3 s
    assert list(groups(f"好。{clause * 4}完。好。")) == ["好。", clause * 4, "完。好。"]


def test_a_group_has_no_more_sentences_than_the_model_was_trained_for():
    assert list(groups("One. Two! Three? Four.", most=1)) == ["One.", "Two!", "Three?", "Four."]
    assert list(groups("One. Two! Three?", most=2)) == ["One. Two!", "Three?"]
    clause = "这是一个很长的句子里面，"  # 3 s
    cut = [clause * 4, "完。", "好。"]
    assert list(groups(f"{clause * 4}完。好。", most=1)) == cut


def test_a_long_text_is_worked_off_piece_by_piece():
    rng = random.Random(1)
    words = ("12", "apples", "cost", "$3.50", "on", "May", "1,", "they", "said.")
    text = " ".join(rng.choice(words) for _ in range(4000))
    pieces = groups(text)
    first = next(pieces)
    assert 0 < seconds(first) <= 12 + GAP_S
    assert not re.search(r"[\d$]", first)
    rest = list(pieces)
    assert len(rest) > 30
    assert all(seconds(piece) <= 12 + GAP_S for piece in rest)
