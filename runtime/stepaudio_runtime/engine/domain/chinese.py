"""The Chinese domain: the same abilities, smaller. Characters without spaces, numbers spelt out."""

from __future__ import annotations

from collections.abc import Iterable

from stepaudio_runtime.engine.domain.topic import Content, ToolCall, Topic

ROOMS = ("厨房", "卧室", "客厅", "书房")
THINGS = ("灯", "风扇", "电视", "空调")
STATES = {"打开": "on", "关上": "off"}
_DIGITS = "零一二三四五六七八九"


def number_words(number: int) -> str:
    """`number` from -99 to 99 in characters."""
    if number < 0:
        return "负" + number_words(-number)
    tens, ones = divmod(number, 10)
    if not tens:
        return _DIGITS[ones]
    return ("" if tens == 1 else _DIGITS[tens]) + "十" + (_DIGITS[ones] if ones else "")


def _any(words: Iterable[str]) -> str:
    return "(" + " | ".join(words) + ")"


SHARED_RULES = {
    "digit": _any(_DIGITS),
    "one": _any(_DIGITS[1:]),
    "term": "<digit> | 十 [<one>] | 二十",
}
"""JSGF rules that topics refer to."""


def _switch(i: int) -> Content:
    i, state = divmod(i, len(STATES))
    room, thing = divmod(i, len(THINGS))
    verb, switched = list(STATES.items())[state]
    slots = {"room": ROOMS[room], "thing": THINGS[thing], "verb": verb}
    tool = ToolCall("switch", {"room": ROOMS[room], "thing": THINGS[thing], "state": switched})
    return Content("".join(slots.values()), slots, tool)


_SUMS = tuple((a, op, b) for op in ("加", "减") for a in range(21) for b in range(21))


def _sum(i: int) -> Content:
    a, operation, b = _SUMS[i]
    result = a + b if operation == "加" else a - b
    slots = {"a": number_words(a), "op": operation, "b": number_words(b), "result": number_words(result)}
    return Content(f"{a}{operation}{b}", slots)


def _echo(i: int) -> Content:
    digits = "".join(_DIGITS[int(d)] for d in f"{i:03d}")
    return Content(digits, {"words": digits})


def _clock(i: int) -> Content:
    hour, minute = i // 60 + 1, i % 60
    said = f"{'两' if hour == 2 else number_words(hour)}点"
    if minute:
        said += ("零" if minute < 10 else "") + number_words(minute) + "分"
    clock = f"{hour}:{minute:02d}"
    return Content(clock, {"time": said}, ToolCall("time", {}, {"time": clock}))


TOPICS = (
    Topic(
        "switch",
        weight=3,
        requests=("{verb}{room}的{thing}", "请{verb}{room}的{thing}"),
        reply="{room}的{thing}已经{verb}了",
        size=len(ROOMS) * len(THINGS) * len(STATES),
        content=_switch,
        rules={"room": _any(ROOMS), "thing": _any(THINGS), "verb": _any(STATES)},
    ),
    Topic(
        "arithmetic",
        weight=3,
        requests=("{a}{op}{b}等于多少",),
        reply="{a}{op}{b}等于{result}",
        size=len(_SUMS),
        content=_sum,
        rules={
            "a": "<term>",
            "op": "(加 | 减)",
            "b": "<term>",
            "result": "[负] <term> | 二十 <one> | 三十 [<one>] | 四十",
        },
    ),
    Topic(
        "echo",
        weight=2,
        requests=("请说{words}", "跟我说{words}"),
        reply="{words}",
        size=1000,
        content=_echo,
        rules={"words": "<digit> <digit> <digit>"},
    ),
    Topic(
        "clock",
        weight=2,
        requests=("现在几点",),
        reply="现在{time}",
        size=12 * 60,
        content=_clock,
        rules={
            "hour": "一 | 两 | 三 | 四 | 五 | 六 | 七 | 八 | 九 | 十 [一 | 二]",
            "minute": "零 <one> | [二 | 三 | 四 | 五] 十 [<one>]",
            "time": "<clock_hour> 点 [<clock_minute> 分]",
        },
    ),
    Topic("hello", weight=1, requests=("你好",), reply="你好有什么可以帮您"),
    Topic("thanks", weight=1, requests=("谢谢",), reply="不客气"),
    Topic("goodbye", weight=1, requests=("再见",), reply="再见"),
)
