"""Pods that count as not ready are asked themselves, and served by their own word, where no other is left.

The pods are the health routes of real ones on loopback; one of them accepts connections and says nothing.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import httpx
import pytest
import uvicorn
from starlette.applications import Starlette

from stepaudio_runtime.contract import Component
from stepaudio_runtime.gateway.own_word import OwnWord, says_ready
from stepaudio_runtime.gateway.routing import Endpoint, Listed, PoolRoute
from stepaudio_runtime.health.metrics import PodMetrics
from stepaudio_runtime.health.routes import health_routes
from stepaudio_runtime.health.state import PodState

A, B = "1f0c22aa", "9d3e77b1"
ROUTES = {"tts": PoolRoute("prod-tts", 8000, {A: 100, B: 0})}


@asynccontextmanager
async def pod(state: PodState, name: str = "p") -> AsyncIterator[Endpoint]:
    """A pod's health routes on loopback, and the endpoint under which it is known."""
    app = Starlette(routes=health_routes(state, PodMetrics(state)))
    listener = socket.create_server(("127.0.0.1", 0))
    server = uvicorn.Server(uvicorn.Config(app, log_level="critical", lifespan="off"))
    serving = asyncio.create_task(server.serve([listener]))
    while not server.started:  # noqa: ASYNC110 - uvicorn has no event for it
        await asyncio.sleep(0.01)
    yield Endpoint(name, f"http://127.0.0.1:{listener.getsockname()[1]}", A)
    server.should_exit = True
    await serving


def state(revision: str = A) -> PodState:
    return PodState(Component.TTS, revision, max_in_flight=1)


@pytest.fixture
async def client() -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(trust_env=False) as made:
        yield made


class Asked:
    """An OwnWord over pods that answer from a dict, and what it told."""

    def __init__(self, **answers: bool) -> None:
        self.answers = answers
        self.asked: list[str] = []
        self.told = asyncio.Event()
        self.own_word = OwnWord(self._ask, self.told.set)

    async def _ask(self, endpoint: Endpoint) -> bool:
        self.asked.append(endpoint.name)
        return self.answers[endpoint.name]

    def served(self, *, ready: str = "", unready: str = "", revision: str = A) -> str:
        """Names are letters: those of the ready pods and of the others, and of those that are served."""
        listed = Listed(_endpoints(ready, revision), _endpoints(unready, revision))
        return "".join(e.name for e in self.own_word.endpoints(ROUTES, {"tts": listed})["tts"])

    async def news(self) -> None:
        async with asyncio.timeout(10):
            await self.told.wait()
        self.told.clear()


def _endpoints(names: str, revision: str) -> tuple[Endpoint, ...]:
    return tuple(Endpoint(name, f"http://{name}", revision) for name in names)


async def test_a_pod_is_believed_that_says_it_serves(client: httpx.AsyncClient) -> None:
    loading, ready, stranger = state(), state(), state(B)
    ready.become_ready()
    stranger.become_ready()  # at an address that was another pod's
    async with pod(loading) as first, pod(ready) as second, pod(stranger) as third:
        assert [await says_ready(client, each) for each in (first, second, third)] == [False, True, False]
        ready.leave()
        assert not await says_ready(client, second)
    assert not await says_ready(client, second)  # nobody is there any more


async def test_a_pod_that_says_nothing_is_not_waited_for(client: httpx.AsyncClient) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        endpoint = Endpoint("p", f"http://127.0.0.1:{silent.getsockname()[1]}", A)
        async with asyncio.timeout(10):
            assert not await says_ready(client, endpoint)


async def test_nobody_is_asked_while_a_pod_is_ready() -> None:
    world = Asked()
    assert world.served(ready="a", unready="b") == "a"
    await asyncio.sleep(0)
    assert world.asked == []
    await world.own_word.stop()


async def test_pods_of_revisions_without_requests_count_neither_way() -> None:
    world = Asked()
    assert world.served(unready="a", revision=B) == ""
    await asyncio.sleep(0)
    assert world.asked == []
    await world.own_word.stop()


async def test_those_that_served_keep_their_requests_until_they_have_answered() -> None:
    world = Asked(a=True, b=False, c=False)
    assert world.served(ready="ab", unready="c") == "ab"
    assert world.served(unready="abc") == "ab"
    await world.news()
    assert world.served(unready="abc") == "a"
    world.answers |= {"a": False, "c": True}
    await world.news()
    assert world.served(unready="abc") == "c"
    await world.own_word.stop()


async def test_when_the_cluster_hears_them_again_its_word_counts() -> None:
    world = Asked(a=True)
    assert world.served(unready="a") == ""
    await world.news()
    assert world.served(unready="a") == "a"
    assert world.served(ready="a") == "a"
    assert world.served(ready="b", unready="a") == "b"
    asked = len(world.asked)
    async with asyncio.timeout(10):
        while asyncio.all_tasks() - {asyncio.current_task()}:  # noqa: ASYNC110 - until it asks no more
            await asyncio.sleep(0.01)
    assert len(world.asked) == asked
