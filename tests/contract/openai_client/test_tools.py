"""Tools through the OpenAI SDK: offered in the system prompt, called in the answer, answered by a message."""

import json

import openai
import pytest
import sentencepiece

MODEL = "step-audio-chat"
TIME = {"type": "function", "function": {"name": "time", "description": "tell the time", "parameters": {}}}
LIGHT = {
    "type": "function",
    "function": {
        "name": "light",
        "parameters": {"type": "object", "properties": {"on": {"type": "boolean"}}},
    },
}
CALL = '<tool_call>{"name":"light","arguments":{"on":true}}</tool_call>'


def ask(stack, words, **more):
    messages = [{"role": "user", "content": words}]
    return stack.client.chat.completions.create(
        model=MODEL, messages=messages, **{"tools": [TIME, LIGHT]} | more
    )


def spoken_to(stack, tokenizer_model):
    """The prompt that the chat pod got, a text a turn."""
    text = sentencepiece.SentencePieceProcessor(model_proto=tokenizer_model)
    turns, turn = [], []
    for id_ in stack.chat.requests[-1]["prompt"]:
        if id_ == 4:
            turn = []
            turns.append(turn)
        elif id_ != 3:
            turn.append(id_)
    return [text.decode(ids) for ids in turns]


def test_a_call_is_a_call(stack, tokenizer_model):
    choice = ask(stack, f"say {CALL}").choices[0]
    assert choice.finish_reason == "tool_calls"
    assert choice.message.content is None
    (call,) = choice.message.tool_calls
    assert (call.type, call.function.name, json.loads(call.function.arguments)) == (
        "function",
        "light",
        {"on": True},
    )
    assert call.id.startswith("call_")
    assert spoken_to(stack, tokenizer_model)[0] == (
        'system\n# Tools\n{"name":"time","description":"tell the time","parameters":{}}\n'
        '{"name":"light","parameters":{"type":"object","properties":{"on":{"type":"boolean"}}}}\n'
        '<tool_call>{"name":"","arguments":{}}</tool_call>'
    )


def test_a_stream_carries_words_and_then_the_call(stack):
    text, calls, reasons = "", [], []
    for event in ask(stack, f"say yes {CALL}", stream=True):
        delta = event.choices[0].delta
        text += delta.content or ""
        calls += delta.tool_calls or []
        reasons.append(event.choices[0].finish_reason)
    assert text.strip() == "yes"
    assert [(call.index, call.function.name, call.function.arguments) for call in calls] == [
        (0, "light", '{"on":true}')
    ]
    assert reasons[-1] == "tool_calls"


def test_what_came_of_a_call_is_told(stack, tokenizer_model):
    call = {"id": "call_1", "type": "function", "function": {"name": "light", "arguments": '{"on": true}'}}
    messages = [
        {"role": "system", "content": "be brief"},
        {"role": "user", "content": "light"},
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "call_1", "content": '{"ok": true}'},
        {"role": "user", "content": "say hello"},
    ]
    answer = stack.client.chat.completions.create(model=MODEL, messages=messages, tools=[LIGHT])
    assert answer.choices[0].message.content == "hello"
    assert answer.choices[0].finish_reason == "stop"
    system, *rest = spoken_to(stack, tokenizer_model)
    assert system.startswith("system\nbe brief\n\n# Tools\n")
    assert rest == [
        "human\nlight",
        f"assistant\n{CALL}",
        'tool\n{"ok": true}',
        "human\nsay hello",
        "assistant\n",
    ]


def test_without_tools_or_with_none_asked_for_it_is_words(stack, tokenizer_model):
    for more in ({"tools": None}, {"tool_choice": "none"}):
        choice = ask(
            stack, f"say {CALL}", **{k: v for k, v in more.items() if v is not None} or {"tools": []}
        )
        assert (choice.choices[0].message.content, choice.choices[0].message.tool_calls) == (CALL, None)
        assert spoken_to(stack, tokenizer_model)[0].startswith("human\n")


def test_one_call_where_one_is_asked_for(stack):
    two = f"say {CALL}{CALL}"
    assert len(ask(stack, two).choices[0].message.tool_calls) == 2
    assert len(ask(stack, two, parallel_tool_calls=False).choices[0].message.tool_calls) == 1


def test_a_call_that_is_asked_for_is_begun(stack, tokenizer_model):
    named = {"type": "function", "function": {"name": "light"}}
    choice = ask(stack, 'say {"on":true}}</tool_call>', tool_choice=named).choices[0]
    assert choice.message.tool_calls[0].function.arguments == '{"on":true}'
    assert spoken_to(stack, tokenizer_model)[-1] == 'assistant\n<tool_call>{"name":"light","arguments":'


@pytest.mark.parametrize(
    ("change", "param"),
    [
        ({"tools": [{"type": "function", "function": {"name": "no spaces"}}]}, "tools[0].function.name"),
        ({"tools": [{"type": "retrieval"}]}, "tools[0].type"),
        ({"tools": [LIGHT, LIGHT]}, "tools"),
        ({"tools": [TIME] * 129}, "tools"),
        ({"tools": [], "tool_choice": "required"}, "tool_choice"),
        ({"tool_choice": {"type": "function", "function": {"name": "heater"}}}, "tool_choice"),
        (
            {"messages": [{"role": "tool", "tool_call_id": "x", "content": "1"}]},
            "messages[0].tool_call_id",
        ),
        (
            {"messages": [{"role": "assistant", "tool_calls": [{"id": "x"}]}]},
            "messages[0].tool_calls[0].function",
        ),
    ],
)
def test_bad_tools_are_a_400_that_names_them(stack, change, param):
    messages = [{"role": "user", "content": "say hello"}]
    with pytest.raises(openai.BadRequestError) as refused:
        stack.client.chat.completions.create(
            **{"model": MODEL, "messages": messages, "tools": [LIGHT]} | change
        )
    assert refused.value.param == param
