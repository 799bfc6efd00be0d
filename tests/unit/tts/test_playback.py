"""Who goes next: the listener who runs dry first, with those who have as little in hand, and nobody else."""

from hypothesis import given
from hypothesis import strategies as st

from stepaudio_runtime.tts.playback import AT_EASE_S, FIRST_AUDIO_S, Playback, Ready, next_batch


def test_a_listener_who_plays_from_the_first_samples_runs_dry_and_waits():
    listener = Playback(10.0)
    assert listener.dry_at == 10.0 + FIRST_AUDIO_S
    listener.give(1.0, 10.5)
    assert (listener.first_at, listener.dry_at, listener.underrun_s) == (10.5, 11.5, 0.0)
    listener.give(1.0, 11.0)
    assert listener.dry_at == 12.5
    listener.give(2.0, 13.0)
    assert (listener.underrun_s, listener.dry_at) == (0.5, 15.0)


def test_the_most_urgent_comes_first_and_those_at_ease_do_not_make_its_step_longer():
    ready = [Ready("rich", 0, 9.0), Ready("poor", 0, 1.0), Ready("new", 0, 0.3), Ready("other", 1, 0.5)]
    assert next_batch(ready, 0.0, 4) == ["new", "poor"]
    assert next_batch(ready, 0.0, 1) == ["new"]
    assert next_batch(ready[:1], 0.0, 4) == ["rich"]
    assert next_batch([Ready("a", 0, 9.0), Ready("b", 0, 8.0)], 0.0, 4) == ["b", "a"]
    assert next_batch([], 0.0, 4) == []


streams = st.lists(st.tuples(st.integers(0, 2), st.floats(-5, 20)), max_size=12)


@given(streams, st.integers(1, 6))
def test_a_batch_is_of_one_group_bounded_and_in_order_of_urgency(found, limit):
    ready = [Ready(i, group, dry_at) for i, (group, dry_at) in enumerate(found)]
    batch = next_batch(ready, 0.0, limit)
    assert bool(batch) == bool(ready)
    assert len(batch) <= limit
    chosen = [ready[key] for key in batch]
    assert len({stream.group for stream in chosen}) <= 1
    assert [s.dry_at for s in chosen] == sorted(s.dry_at for s in chosen)
    if chosen:
        assert chosen[0].dry_at == min(stream.dry_at for stream in ready)
        if chosen[0].dry_at < AT_EASE_S:
            assert all(stream.dry_at < AT_EASE_S for stream in chosen)
