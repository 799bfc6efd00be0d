"""The protocol of a token stream, without a socket: its states, its refusals, and that no input breaks it."""

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stepaudio_runtime.tokenizer.session import (
    MAX_FRAME_BYTES,
    Bounds,
    CloseCode,
    Feed,
    Hang,
    Open,
    Say,
    Session,
    State,
)
from stepaudio_runtime.tokenizer.windows import Windows

BOUNDS = Bounds(idle_s=30, max_stream_s=2, windows=Windows.seconds(1.92, 0.96))
START = {"type": "start", "rate": 16_000, "gain": 1.0}
END = '{"type": "end"}'


def session(start=START, **more):
    found = Session(BOUNDS, 0.0)
    if start is not None:
        found.text(json.dumps(start | more), 0.0)
    return found


def ending(actions):
    """The code, close code and reason by which a session ended."""
    *_, said, hang = actions
    assert isinstance(said, Say)
    assert isinstance(hang, Hang)
    return said.event.get("error", {}).get("code"), hang.code, hang.reason


def test_start_is_answered_with_all_that_was_decided():
    found = Session(BOUNDS, 0.0)
    actions = found.text('{"type": "start", "rate": 48000, "format": "float32", "gain": 2}', 1.0)
    assert actions == [
        Open(48_000, 2.0, Windows(30_720, 15_360)),
        Say(
            {
                "type": "started",
                "rate": 48_000,
                "format": "float32",
                "gain": 2.0,
                "semantic_window_s": 1.92,
                "semantic_hop_s": 0.96,
                "idle_timeout_s": 30,
                "max_stream_s": 2,
                "max_frame_bytes": MAX_FRAME_BYTES,
            }
        ),
    ]
    assert (found.state, found.deadline) == (State.STREAMING, 31.0)


def test_a_whole_session_from_start_to_done():
    found = session(gain="auto")
    [feed] = found.audio(np.array([0, 16384, -32768], "<i2").tobytes(), 1.0)
    np.testing.assert_array_equal(feed.samples, np.array([0, 0.5, -1], np.float32))
    said = found.tokens([1, 2, 3], [4, 5], gain=3.5, last=False)
    tokens = {"type": "tokens", "linguistic": [1, 2, 3], "semantic": [4, 5], "codes": []}
    assert said == [Say({"type": "gain", "gain": 3.5}), Say(tokens)]
    [end] = found.text(END, 2.0)
    assert (len(end.samples), end.last, found.state, found.deadline) == (0, True, State.ENDING, None)
    assert found.tokens([6], [7, 8, 9, 10], gain=3.5, last=True) == [
        Say(
            {
                "type": "tokens",
                "linguistic": [6],
                "semantic": [7, 8, 9, 10],
                "codes": [1, 2, 1028, 1029, 1031, 3, 6, 1032, 1033, 1034],
            }
        ),
        Say({"type": "done", "linguistic": 4, "semantic": 6, "codes": 10, "duration_s": 3 / 16_000}),
        Hang(CloseCode.NORMAL, "done"),
    ]
    assert found.state is State.CLOSED


@given(st.lists(st.integers(0, 9), max_size=30), st.sampled_from(["pcm16", "float32"]))
def test_samples_may_be_cut_anywhere(sizes, form):
    found = session(format=form)
    data = np.random.default_rng(0).bytes(sum(sizes) // 4 * 4)
    if form == "float32":
        data = np.linspace(-1, 1, len(data) // 4, dtype="<f4").tobytes()
    heard, at = [np.zeros(0, np.float32)], 0
    for size in [*sizes, len(data)]:
        heard += [feed.samples for feed in found.audio(data[at : at + size], 0.0)]
        at += size
    scale = np.float32(1 / 32768) if form == "pcm16" else np.float32(1)
    expected = np.frombuffer(data, "<i2" if form == "pcm16" else "<f4").astype(np.float32) * scale
    np.testing.assert_array_equal(np.concatenate(heard), expected)
    [end] = found.text(END, 0.0)
    assert isinstance(end, Feed)


@pytest.mark.parametrize(
    ("change", "param", "code"),
    [
        ({"rate": 7_999}, "rate", "rate_invalid"),
        ({"rate": 192_001}, "rate", "rate_invalid"),
        ({"rate": 16_000.0}, "rate", "rate_invalid"),
        ({"rate": True}, "rate", "rate_invalid"),
        ({"rate": None}, "rate", "rate_invalid"),
        ({"format": "mp3"}, "format", "format_invalid"),
        ({"format": ["pcm16"]}, "format", "format_invalid"),
        ({"gain": 0}, "gain", "gain_invalid"),
        ({"gain": -1}, "gain", "gain_invalid"),
        ({"gain": 1e9}, "gain", "gain_invalid"),
        ({"gain": float("nan")}, "gain", "gain_invalid"),
        ({"gain": None}, "gain", "gain_invalid"),
        ({"gain": []}, "gain", "gain_invalid"),
        ({"semantic_window_s": 31}, "semantic_window_s", "window_invalid"),
        ({"semantic_window_s": "1"}, "semantic_window_s", "window_invalid"),
        ({"semantic_hop_s": 3}, "semantic_window_s", "window_invalid"),
        ({"semantic_hop_s": 0.1}, "semantic_window_s", "window_invalid"),
        ({"semantic_window_s": 20, "semantic_hop_s": 0.24}, "semantic_window_s", "window_invalid"),
        ({"voice": "x"}, "voice", "unknown_parameter"),
    ],
)
def test_a_wrong_start_names_its_field(change, param, code):
    actions = Session(BOUNDS, 0.0).text(json.dumps(START | change), 0.0)
    assert ending(actions) == (code, CloseCode.POLICY, code)
    assert actions[0].event["error"]["param"] == param


@pytest.mark.parametrize(
    ("asked", "windows"),
    [
        ({}, Windows(30_720, 15_360)),
        ({"semantic_window_s": 0.5}, Windows(7_680, 7_680)),
        ({"semantic_hop_s": 0.24}, Windows(30_720, 3_840)),
        ({"semantic_window_s": 7.01}, Windows(112_000, 15_360)),
        ({"semantic_window_s": 3, "semantic_hop_s": 1}, Windows(48_000, 16_000)),
    ],
)
def test_windows_are_the_clients_choice_on_the_grid(asked, windows):
    opened = Session(BOUNDS, 0.0).text(json.dumps(START | asked), 0.0)[0]
    assert opened.windows == windows


@pytest.mark.parametrize(
    ("before", "text", "audio", "ends"),
    [
        (None, END, None, ("start_expected", CloseCode.POLICY)),
        (None, None, b"ab", ("start_expected", CloseCode.POLICY)),
        (None, "nonsense", None, ("invalid_message", CloseCode.INVALID)),
        (None, "[" * 4000, None, ("invalid_message", CloseCode.INVALID)),
        (None, "x" * 5000, None, ("invalid_message", CloseCode.INVALID)),
        (None, '"start"', None, ("invalid_message", CloseCode.INVALID)),
        (None, '{"type": "stop"}', None, ("invalid_message", CloseCode.INVALID)),
        (START, json.dumps(START), None, ("stream_started", CloseCode.POLICY)),
        (START, "AAAA", None, ("invalid_message", CloseCode.INVALID)),
        (START, None, bytes(MAX_FRAME_BYTES + 1), ("frame_too_large", CloseCode.TOO_BIG)),
        (START, None, bytes(64_002), ("stream_too_long", CloseCode.POLICY)),
        (START | {"format": "float32"}, None, b"\xff" * 8, ("audio_invalid", CloseCode.INVALID)),
    ],
)
def test_what_does_not_belong_closes_with_code_and_reason(before, text, audio, ends):
    found = session(before)
    actions = found.text(text, 1.0) if text is not None else found.audio(audio, 1.0)
    assert ending(actions) == (*ends, ends[0])
    assert found.text(END, 2.0) == found.audio(b"ab", 2.0) == found.silent(99.0) == []


def test_after_the_end_nothing_more_is_taken():
    for after in (lambda s: s.audio(b"ab", 1.0), lambda s: s.text(END, 1.0)):
        found = session()
        found.text(END, 0.0)
        assert ending(after(found)) == ("stream_ended", CloseCode.POLICY, "stream_ended")


def test_half_a_sample_at_the_end_is_refused():
    found = session()
    assert found.audio(b"abc", 0.0)
    assert ending(found.text(END, 0.0)) == ("audio_invalid", CloseCode.INVALID, "audio_invalid")


def test_silence_beyond_the_bound_closes_but_waiting_for_the_models_does_not():
    found = session()
    found.audio(b"ab", 10.0)
    assert found.silent(39.9) == []
    assert ending(found.silent(40.0)) == ("session_idle", CloseCode.POLICY, "session_idle")
    found = session()
    found.text(END, 0.0)
    assert found.silent(1e9) == []


def test_a_fault_inside_is_not_told_to_the_client():
    actions = session().fail(RuntimeError("secret"))
    assert ending(actions) == ("internal_error", CloseCode.INTERNAL, "internal_error")
    assert "secret" not in json.dumps(actions[0].event)


steps = st.one_of(
    st.tuples(st.just("text"), st.sampled_from([json.dumps(START), END]) | st.text(max_size=30)),
    st.tuples(st.just("audio"), st.binary(max_size=50)),
    st.tuples(st.just("silent"), st.floats(0, 100)),
    st.tuples(st.just("tokens"), st.lists(st.integers(0, 1023), max_size=5)),
)


@given(st.lists(steps, max_size=15))
@settings(max_examples=60)
def test_whatever_happens_it_ends_at_most_once_and_says_nothing_after(happenings):
    found, over, fed_last = Session(BOUNDS, 0.0), False, False
    for kind, what in happenings:
        if kind == "text":
            actions = found.text(what, found.now)
        elif kind == "audio":
            actions = found.audio(what, found.now)
        elif kind == "silent":
            actions = found.silent(found.now + what)
        elif found.state in (State.OPENING, State.CLOSED):
            continue  # the models answer only what they were fed
        else:
            actions = found.tokens(what, what, gain=1.0, last=fed_last)
        assert not (over and actions)
        json.dumps([action.event for action in actions if isinstance(action, Say)])
        fed_last = fed_last or any(isinstance(action, Feed) and action.last for action in actions)
        hangs = [action for action in actions if isinstance(action, Hang)]
        assert len(hangs) <= 1
        assert not hangs or (actions[-1] is hangs[0] and found.state is State.CLOSED)
        over = over or bool(hangs)
    assert over == (found.state is State.CLOSED)
