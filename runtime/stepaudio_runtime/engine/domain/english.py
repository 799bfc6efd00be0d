"""The English domain. Plain lower-case words, numbers spelt out: what a recogniser writes too."""

from __future__ import annotations

from collections.abc import Sequence

from stepaudio_runtime.engine.domain.topic import Content, ToolCall, Topic

ROOMS = ("kitchen", "bedroom", "bathroom", "living room", "office", "garage")
THINGS = ("light", "lamp", "radio", "fan", "heater", "television")
STATES = ("on", "off")
COLOURS = ("red", "green", "blue", "yellow", "purple", "orange")
DAYS = ("monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday")

_ONES = tuple(
    "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen "  # noqa: SIM905
    "fifteen sixteen seventeen eighteen nineteen".split()
)
_TENS = "zero ten twenty thirty forty fifty sixty seventy eighty ninety".split()  # noqa: SIM905
MAX_NUMBER = 100


def number_words(number: int) -> str:
    """`number` from -100 to 100 in words."""
    if number < 0:
        return "minus " + number_words(-number)
    if number < len(_ONES):
        return _ONES[number]
    if number == MAX_NUMBER:
        return "one hundred"
    tens, ones = divmod(number, 10)
    return _TENS[tens] + (f" {_ONES[ones]}" if ones else "")


def _any(words: Sequence[str]) -> str:
    return "(" + " | ".join(words) + ")"


_NUMBER = "<number>"
SHARED_RULES = {
    "small": _any(_ONES),
    "number": f"<small> | {_any(_TENS[2:])} [{_any(_ONES[1:10])}] | one hundred",
}
"""JSGF rules that topics refer to."""


# ---- lights and other things -----------------------------------------------------------------------------


def _switch(i: int) -> Content:
    i, state = divmod(i, len(STATES))
    room, thing = divmod(i, len(THINGS))
    slots = {"room": ROOMS[room], "thing": THINGS[thing], "state": STATES[state]}
    return Content(" ".join(slots.values()), slots, ToolCall("switch", slots))


SWITCH = Topic(
    "switch",
    weight=3,
    requests=(
        "turn {state} the {room} {thing}",
        "turn the {room} {thing} {state}",
        "please turn {state} the {room} {thing}",
        "switch the {room} {thing} {state} please",
    ),
    reply="the {room} {thing} is {state}",
    size=len(ROOMS) * len(THINGS) * len(STATES),
    content=_switch,
    rules={"room": _any(ROOMS), "thing": _any(THINGS), "state": _any(STATES)},
)

# ---- sums ------------------------------------------------------------------------------------------------

_TERM = 21  # sums and differences of 0..20


def _sums() -> list[tuple[int, str, int, int]]:
    """Every sum asked for, with its result."""
    pairs = [(a, b) for a in range(_TERM) for b in range(_TERM)]
    found = [(a, "plus", b, a + b) for a, b in pairs]
    found += [(a, "minus", b, a - b) for a, b in pairs]
    small = [(a, b) for a in range(11) for b in range(11)]
    found += [(a, "times", b, a * b) for a, b in small]
    found += [(a * b, "divided by", b, a) for a, b in small if b]
    return found


_SUMS = tuple(_sums())


def _sum(i: int) -> Content:
    a, operation, b, result = _SUMS[i]
    words = {"a": number_words(a), "op": operation, "b": number_words(b), "result": number_words(result)}
    return Content(f"{a} {operation} {b}", words)


ARITHMETIC = Topic(
    "arithmetic",
    weight=3,
    requests=("what is {a} {op} {b}", "how much is {a} {op} {b}"),
    reply="{a} {op} {b} is {result}",
    size=len(_SUMS),
    content=_sum,
    rules={
        "a": _NUMBER,
        "op": "(plus | minus | times | divided by)",
        "b": _NUMBER,
        "result": f"[minus] {_NUMBER}",
    },
)

# ---- echo ------------------------------------------------------------------------------------------------

_ECHO = (*_ONES[:10], *COLOURS, *DAYS)
_ECHO_LENGTHS = (2, 3, 4)


def _echo(i: int) -> Content:
    """Contents are counted by length: first all pairs, then all triples, and so on."""
    length = _ECHO_LENGTHS[0]
    while i >= len(_ECHO) ** length:
        i -= len(_ECHO) ** length
        length += 1
    words = []
    for _ in range(length):
        i, word = divmod(i, len(_ECHO))
        words.append(_ECHO[word])
    text = " ".join(words)
    return Content(text, {"words": text})


ECHO = Topic(
    "echo",
    weight=3,
    requests=("please say {words}", "say {words}", "repeat after me {words}"),
    reply="{words}",
    size=sum(len(_ECHO) ** length for length in _ECHO_LENGTHS),
    content=_echo,
    rules={"words": "<echo> <echo> [<echo>] [<echo>]"},
)
SHARED_RULES["echo"] = _any(_ECHO)

# ---- timers ----------------------------------------------------------------------------------------------

UNITS = ("second", "minute", "hour")
_TIMES = tuple(
    (count, unit) for unit, most in (("second", 60), ("minute", 60), ("hour", 24)) for count in range(1, most)
)


def _timer(i: int) -> Content:
    count, unit = _TIMES[i]
    slots = {"length": f"{number_words(count)} {unit}{'s' if count > 1 else ''}"}
    return Content(f"{count} {unit}", slots, ToolCall("timer", {"count": count, "unit": unit}))


TIMER = Topic(
    "timer",
    weight=2,
    requests=("set a timer for {length}", "please set a timer for {length}"),
    reply="the timer is set for {length}",
    size=len(_TIMES),
    content=_timer,
    rules={"length": f"one {_any(UNITS)} | {_NUMBER} {_any([unit + 's' for unit in UNITS])}"},
)

# ---- the time --------------------------------------------------------------------------------------------


def _clock(i: int) -> Content:
    hour, minute = i // 60 + 1, i % 60
    if not minute:
        said = "o'clock"
    elif minute < 10:
        said = "oh " + number_words(minute)
    else:
        said = number_words(minute)
    clock = f"{hour}:{minute:02d}"
    return Content(clock, {"time": f"{number_words(hour)} {said}"}, ToolCall("time", {}, {"time": clock}))


CLOCK = Topic(
    "clock",
    weight=2,
    requests=("what time is it", "please tell me the time"),
    reply="it is {time}",
    size=12 * 60,
    content=_clock,
    rules={"time": "<small> (o'clock | oh <small> | <number>)"},
)

# ---- courtesies ------------------------------------------------------------------------------------------

HELLO = Topic("hello", 1, ("hello", "good morning", "good evening"), "hello how can i help you")
THANKS = Topic("thanks", 1, ("thank you", "thank you very much"), "you are welcome")
GOODBYE = Topic("goodbye", 1, ("goodbye",), "goodbye and have a nice day")
SORRY = Topic("sorry", 1, (), "sorry please say that again")

TOPICS = (SWITCH, ARITHMETIC, ECHO, TIMER, CLOCK, HELLO, THANKS, GOODBYE, SORRY)
