"""Whatever stands in the messages and tools of a chat request is understood, or refused by its name."""

import copy
import json
from collections.abc import Iterator
from typing import Any

import pytest

from stepaudio_runtime.codec.chat_template import Turn
from stepaudio_runtime.errors import InputError
from stepaudio_runtime.gateway.audio_ids import MAX_ALL_WORDS, MAX_WORDS, words_part
from stepaudio_runtime.gateway.conversation import Message, conversation_key, parse_messages
from stepaudio_runtime.gateway.schemas import ChatRequest, read_body

CALL = {"id": "c", "type": "function", "function": {"name": "f", "arguments": '{"a": 1}'}}
SPOKEN = {"id": "audio_1" + words_part("hello")}
GOOD: dict[str, Any] = {
    "model": "m",
    "messages": [
        {"role": "system", "content": "be brief"},
        {"role": "user", "content": [{"type": "text", "text": "a"}]},
        {"role": "assistant", "content": None, "audio": SPOKEN, "tool_calls": [CALL], "refusal": None},
        {"role": "tool", "tool_call_id": "c", "content": "done"},
    ],
    "tools": [{"type": "function", "function": {"name": "f", "description": "d", "parameters": {}}}],
    "tool_choice": {"type": "function", "function": {"name": "f"}},
}
JUNK = [None, True, 0, -1.5, "", "x", "[" * 50_000, '{"half":"\\ud800"}', [], {}, [[]], [None], {"id": None}]


def read(body: dict[str, Any]) -> list[Message]:
    """As the route reads it."""
    asked = read_body(json.dumps(body).encode(), ChatRequest)
    asked.check()
    messages = parse_messages(asked.messages)
    conversation_key(messages, asked.prompt_cache_key)
    turns = [Turn(m.role, tuple(part for part in m.parts if isinstance(part, str))) for m in messages]
    asked.offer.turns(turns)
    return messages


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    if path:
        yield path
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in items:
        yield from places(inner, (*path, key))


def test_a_conversation_with_all_there_is():
    told = '<tool_call>{"name":"f","arguments":{"a":1}}</tool_call>'
    assert read(GOOD) == [
        Message("system", ("be brief",)),
        Message("user", ("a",)),
        Message("assistant", ("hello", told)),
        Message("tool", ("done",)),
    ]


@pytest.mark.parametrize("path", list(places(GOOD)), ids=lambda path: ".".join(map(str, path)))
def test_every_place_may_hold_anything(path):
    for junk in JUNK:
        body = copy.deepcopy(GOOD)
        holder = body
        for key in path[:-1]:
            holder = holder[key]
        holder[path[-1]] = junk
        try:
            messages = read(body)
        except InputError as fault:
            json.dumps([fault.message, fault.param], ensure_ascii=False).encode()  # it can be told
        else:
            "".join(part for message in messages for part in message.parts).encode()


def test_the_spoken_answers_of_a_request_have_a_bound_together():
    """An id of a hundred bytes holds 64 KiB of words: thousands of them fit into a small request."""
    longest = {"role": "assistant", "audio": {"id": "audio_1" + words_part("a" * MAX_WORDS)}}
    question = {"role": "user", "content": "and?"}
    fit = MAX_ALL_WORDS // MAX_WORDS
    assert len(parse_messages([question, *[longest] * fit])) == fit + 1
    with pytest.raises(InputError) as refused:
        parse_messages([question, *[longest] * 4096])
    assert (refused.value.param, refused.value.code) == (
        f"messages[{fit + 1}].audio.id",
        "context_length_exceeded",
    )


@pytest.mark.parametrize("number", ["NaN", "Infinity", "-Infinity", "1e999", "[1, [-1e999]]"])
def test_a_tool_whose_numbers_no_json_has_is_refused(number):
    """They would stand in the prompt."""
    raw = json.dumps(GOOD).replace('"parameters": {}', f'"parameters": {{"x": {{"minimum": {number}}}}}')
    with pytest.raises(InputError) as refused:
        read_body(raw.encode(), ChatRequest)
    assert (refused.value.message, refused.value.param, refused.value.code) == (
        "tools[0].function.parameters: numbers have to be finite",
        "tools[0].function.parameters",
        "invalid_value",
    )
