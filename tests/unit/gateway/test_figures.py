"""What a gateway has seen of revisions: counted by pool and revision, anew when others are served."""

from stepaudio_runtime.bodies import FIRST_BYTE_BOUNDS_S
from stepaudio_runtime.gateway.figures import Figures

OLD, NEW = "aaaaaaaa", "bbbbbbbb"


def test_answers_are_counted_by_the_bound_that_they_kept():
    figures = Figures()
    counts = figures.of("tts", OLD)
    for seconds in (0.0, FIRST_BYTE_BOUNDS_S[0], FIRST_BYTE_BOUNDS_S[1], 1e6):
        counts.answered(seconds)
    counts.requests, counts.errors = 5, 1
    first_byte = [2, 1, *[0] * (len(FIRST_BYTE_BOUNDS_S) - 2), 1]
    assert figures.as_json() == {
        "pools": {"tts": {OLD: {"requests": 5, "errors": 1, "firstByte": first_byte}}}
    }


def test_a_pool_starts_anew_when_other_revisions_of_it_are_served():
    figures = Figures()
    figures.keep({("tts", OLD), ("chat", OLD)})
    figures.of("tts", OLD).requests = 7
    figures.of("chat", OLD).requests = 9
    figures.keep({("tts", OLD), ("chat", OLD)})
    assert figures.of("tts", OLD).requests == 7
    figures.keep({("tts", OLD), ("tts", NEW), ("chat", OLD)})
    assert (figures.of("tts", OLD).requests, figures.of("chat", OLD).requests) == (0, 9)
    figures.of("tts", NEW).requests = 1
    figures.keep({("tts", OLD), ("chat", OLD)})
    figures.keep({("tts", OLD), ("tts", NEW), ("chat", OLD)})
    assert figures.of("tts", NEW).requests == 0
