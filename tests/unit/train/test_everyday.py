"""Texts without anything to fill in are drawn as often as their share, and all others as they are."""

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from stepaudio_runtime.train.everyday import everyday_texts, often_enough


def test_greetings_and_the_time_are_everyday_and_sums_are_not() -> None:
    texts = everyday_texts()
    assert {"hello", "what time is it", "you are welcome"} <= texts
    assert not [text for text in texts if "plus" in text or "{" in text]


@given(st.lists(st.sampled_from(["hello", "goodbye", "one", "two", "three"]), max_size=60))
def test_everyday_texts_are_their_share_and_nothing_else_changes(texts: list[str]) -> None:
    drawn = Counter(often_enough(texts, str, share=0.2))
    once = Counter(texts)
    everyday = {"hello", "goodbye"}
    assert {t: n for t, n in drawn.items() if t not in everyday} == {
        t: n for t, n in once.items() if t not in everyday
    }
    if everyday & set(texts):
        held = sum(n for t, n in drawn.items() if t in everyday)
        assert held >= 0.2 * drawn.total()
        assert drawn["hello"] * once["goodbye"] == drawn["goodbye"] * once["hello"]
