"""A pod's state: who is admitted when, what drain waits for, when a pod counts as stalled."""

import asyncio

import pytest

from stepaudio_runtime.errors import Overloaded, Unavailable
from stepaudio_runtime.health.state import PodState


class Clock:
    """Seconds, moved by hand."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def ready_state(**kwargs) -> PodState:
    state = PodState("tts", "9d3e77b1", **kwargs)
    state.become_ready()
    return state


def test_a_loading_pod_tells_its_progress_and_admits_nothing():
    state = PodState("tts", "9d3e77b1")
    state.load("reading flow.pt")
    state.load_progress(10, 40)
    assert state.status() == {
        "component": "tts",
        "revision": "9d3e77b1",
        "phase": "Loading",
        "ready": False,
        "draining": False,
        "inFlight": 0,
        "load": {"bytesLoaded": 10, "bytesTotal": 40, "etaSeconds": None},
        "lately": {"inFlight": 0.0, "queueSeconds": None, "firstAudioSeconds": None},
        "gpus": [],
        "routingGeneration": None,
        "waiting": None,
        "reason": "Loading",
        "message": "reading flow.pt",
    }
    with pytest.raises(Unavailable, match=r"Loading reading flow\.pt"), state.admit():
        pass


def test_a_ready_pod_admits_up_to_its_bound():
    state = ready_state(max_in_flight=2)
    with state.admit(), state.admit():
        assert state.status()["inFlight"] == 2
        with pytest.raises(Overloaded, match="2 requests"), state.admit():
            pass
        assert state.in_flight == 2
    assert state.in_flight == 0


def test_a_request_that_fails_is_no_longer_in_flight():
    state = ready_state()
    with pytest.raises(RuntimeError), state.admit():
        raise RuntimeError
    assert state.in_flight == 0


async def test_drain_refuses_new_work_and_waits_for_old():
    state = ready_state()
    done = asyncio.Event()

    async def request() -> None:
        with state.admit():
            await done.wait()

    task = asyncio.create_task(request())
    await asyncio.sleep(0)
    state.drain()
    assert (state.phase, state.ready) == ("Draining", False)
    assert state.not_ready() == {"reason": "Draining", "message": "1 requests in flight"}
    with pytest.raises(Unavailable), state.admit():
        pass
    assert not await state.wait_idle(0.01)
    done.set()
    assert await state.wait_idle(5)
    await task


async def test_a_pod_that_leaves_serves_whom_it_is_connected_to():
    state = ready_state()
    state.leave()
    assert (state.phase, state.ready, state.draining) == ("Draining", False, True)
    with state.admit():
        state.drain()
        with pytest.raises(Unavailable), state.admit():
            pass
    loading = PodState("tts")
    loading.leave()
    with pytest.raises(Unavailable), loading.admit():
        pass


def test_only_work_without_progress_is_a_stall():
    clock = Clock()
    state = ready_state(clock=clock, stall_timeout_s=120)
    clock.now += 1000
    assert state.unhealthy() is None, "an idle pod is never stalled"
    with state.admit():
        clock.now += 107
        assert state.unhealthy() is None, "the idle time before the request does not count"
        clock.now += 2  # a tenth of the time-out is for the end itself
        assert state.unhealthy() == {
            "reason": "EngineStalled",
            "message": "1 requests in flight and no step of the engine within the stall timeout of 120 s",
        }
        state.beat()
        assert state.unhealthy() is None


def test_what_waits_for_its_client_is_no_stall():
    clock = Clock()
    state = ready_state(clock=clock, stall_timeout_s=120)
    with state.admit():
        with state.at_client():
            clock.now += 1000
            assert state.unhealthy() is None, "the client takes nothing; the engine may be done"
            with state.admit():
                clock.now += 107
                assert state.unhealthy() is None, "the second request's time begins with itself"
                clock.now += 2
                assert state.stalled() is not None, "the second one hangs, whatever the first one does"
        assert state.unhealthy() is None, "it is the engine's again, from now on"
        clock.now += 109
        assert state.stalled() is not None


def test_a_failed_pod_stays_failed_with_the_first_reason():
    state = ready_state()
    state.fail("EngineFailed", "the engine exited with 1")
    state.fail("InternalError", "a later one")
    state.become_ready()
    state.drain()
    assert (state.phase, state.ready) == ("Failed", False)
    assert state.unhealthy() == {"reason": "EngineFailed", "message": "the engine exited with 1"}


class TestAGuest:
    """A second service in the pod, with a state of its own."""

    def test_the_pod_is_ready_when_both_are_and_speaks_for_the_one_that_is_not(self):
        state, guest = ready_state(), PodState("tts")
        state.guest = guest
        guest.load("the canary is running")
        assert not state.ready
        assert state.not_ready() == {"reason": "Loading", "message": "the canary is running"}
        with state.admit():
            assert state.status()["inFlight"] == 1, "what is loaded works"
        with pytest.raises(Unavailable), guest.admit():
            pass
        guest.become_ready()
        assert state.ready

    def test_signs_of_life_of_one_do_not_count_for_the_other(self):
        clock = Clock()
        state, guest = (ready_state(clock=clock, stall_timeout_s=120) for _ in range(2))
        state.guest = guest
        with state.admit():
            clock.now += 109
            guest.beat()
            assert state.stalled() is not None
        with guest.admit():
            clock.now += 109
            state.beat()
            assert state.stalled() is not None
        assert state.unhealthy() is None

    async def test_a_drain_waits_for_both(self):
        state, guest = ready_state(), ready_state()
        state.guest = guest
        with guest.admit():
            state.drain()
            assert state.not_ready() == {"reason": "Draining", "message": "1 requests in flight"}
            with pytest.raises(Unavailable), guest.admit():
                pass
            assert not await state.wait_idle(0.01)
        assert await state.wait_idle(5)
