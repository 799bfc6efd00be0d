"""A pod's work in the last minute: means of what really was, however rarely somebody looks, nothing older."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stepaudio_runtime.health.lately import MARK_EVERY_S, WINDOW_S, Lately


class Clock:
    """Seconds, moved by hand."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def test_a_short_request_between_two_looks_is_seen_for_a_minute_and_then_forgotten():
    clock = Clock()
    lately = Lately(clock)
    clock.now += 100
    lately.in_flight(1)
    lately.queued(0.8, requests=2)
    lately.first_audio(0.25)
    clock.now += 0.3
    lately.in_flight(0)
    clock.now += 20
    assert lately.status() == {"inFlight": 0.005, "queueSeconds": 0.4, "firstAudioSeconds": 0.25}
    clock.now += WINDOW_S
    assert lately.status() == {"inFlight": 0.0, "queueSeconds": None, "firstAudioSeconds": None}


def test_a_pod_that_has_just_begun_says_what_is():
    lately = Lately(Clock())
    lately.in_flight(3)
    assert lately.status()["inFlight"] == 3


@given(moves=st.lists(st.tuples(st.floats(0, 50), st.integers(0, 9), st.booleans()), min_size=1, max_size=80))
@settings(max_examples=100, deadline=None)
def test_the_mean_is_that_of_the_window(moves: list[tuple[float, int, bool]]):
    clock = Clock()
    lately = Lately(clock)
    was = [(clock.now, 0)]  # since when, how many
    for pause, count, look in moves:
        clock.now += pause
        lately.in_flight(count)
        was.append((clock.now, count))
        if look:
            lately.status()
    clock.now += 1
    start = max(clock.now - WINDOW_S, 1000.0)
    ends = [at for at, _ in was[1:]] + [clock.now]
    spans = zip((max(at, start) for at, _ in was), (n for _, n in was), ends, strict=True)
    mean = sum(n * max(end - begin, 0) for begin, n, end in spans) / (clock.now - start)
    # What came between two marks is spread evenly between them.
    near = 9 * MARK_EVERY_S / (clock.now - start) + 0.001
    assert lately.status()["inFlight"] == pytest.approx(mean, abs=near)
