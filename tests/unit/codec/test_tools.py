"""Tool calls are read from an answer however it is cut; whatever is no call stays words, nothing is lost."""

from __future__ import annotations

import json
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stepaudio_runtime.codec.tools import (
    CALL_BEGIN,
    CALL_END,
    MAX_CALL_CHARACTERS,
    Spoken,
    ToolCall,
    ToolCallReader,
    offer,
    system_with_tools,
    written,
)

NAMES = frozenset({"switch", "time"})
SWITCH = ToolCall("switch", '{"room":"kitchen","state":"on"}')
values = st.recursive(
    st.none() | st.booleans() | st.integers(-9, 9) | st.text(max_size=6),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=6,
)
calls = st.builds(
    lambda name, arguments: ToolCall(name, json.dumps(arguments, ensure_ascii=False, separators=(",", ":"))),
    st.sampled_from(sorted(NAMES)),
    st.dictionaries(st.text(max_size=4), values, max_size=3),
).filter(lambda call: CALL_END not in call.arguments)
words = st.text(alphabet='ab <>_/tool{}"', max_size=12).filter(lambda text: CALL_BEGIN not in text)


def read(pieces: list[str]) -> Spoken:
    reader = ToolCallReader(NAMES)
    found = [*(reader.feed(piece) for piece in pieces), reader.finish()]
    return Spoken("".join(f.text for f in found), tuple(call for f in found for call in f.calls))


@given(st.lists(st.tuples(words, calls), max_size=3), words, st.lists(st.integers(0, 400), max_size=8))
def test_words_and_calls_come_out_however_the_answer_is_cut(
    said: list[tuple[str, ToolCall]], last: str, cuts: list[int]
) -> None:
    whole = "".join(text + written(call) for text, call in said) + last
    bounds = [0, *sorted(min(cut, len(whole)) for cut in cuts), len(whole)]
    pieces = [whole[a:b] for a, b in pairwise(bounds)]
    expected = Spoken("".join(text for text, _ in said) + last, tuple(call for _, call in said))
    assert read(pieces) == expected


def test_what_is_no_call_stays_words() -> None:
    for no_call in (
        f"{CALL_BEGIN}not json{CALL_END}",
        f'{CALL_BEGIN}{{"name":"unknown","arguments":{{}}}}{CALL_END}',
        f'{CALL_BEGIN}{{"name":"time","arguments":[1]}}{CALL_END}',
        f"{CALL_BEGIN}[]{CALL_END}",
        f'{CALL_BEGIN}{{"name":["time"],"arguments":{{}}}}{CALL_END}',
        f'{CALL_BEGIN}{{"name":"time","arguments":{{"half":"\\ud800"}}}}{CALL_END}',
        f'{CALL_BEGIN}{{"name":"time","arguments":{{"x":NaN}}}}{CALL_END}',
        f'{CALL_BEGIN}{{"name":"time","arguments":{"[" * 30_000}{CALL_END}',
        f'{CALL_BEGIN}{{"name":"ti',
        "<tool_cal",
        CALL_BEGIN + "x" * (MAX_CALL_CHARACTERS + 1),
    ):
        assert read([f"yes {no_call}"]) == Spoken(f"yes {no_call}")
    deep = CALL_BEGIN + "[" * 20_000 + CALL_END
    assert read([deep]) == Spoken(deep)


def test_a_call_whose_end_alone_lacks_is_a_call() -> None:
    assert read([written(SWITCH).removesuffix(CALL_END)]) == Spoken(calls=(SWITCH,))


def test_words_come_out_before_the_answer_ends() -> None:
    reader = ToolCallReader(NAMES)
    assert reader.feed("it is <") == Spoken("it is ")
    assert reader.feed("b> ") == Spoken("<b> ")


def test_tools_follow_the_callers_own_system_prompt() -> None:
    function = {"name": "time", "parameters": {"type": "object"}}
    assert system_with_tools("", []) == ""
    assert system_with_tools("be brief", []) == "be brief"
    assert system_with_tools("", [function]) == offer([function])
    assert system_with_tools("be brief", [function]) == (
        'be brief\n\n# Tools\n{"name":"time","parameters":{"type":"object"}}\n'
        '<tool_call>{"name":"","arguments":{}}</tool_call>'
    )


@pytest.mark.parametrize("arguments", ["not json", "[" * 100_000, '{"half":"\\ud800"}', '{"x":NaN}'])
def test_arguments_that_are_no_json_are_told_as_they_are(arguments: str) -> None:
    """They come back from a client, who may have changed them."""
    told = written(ToolCall("time", arguments))
    assert told == f'{CALL_BEGIN}{{"name":"time","arguments":{arguments}}}{CALL_END}'
    told.encode()
