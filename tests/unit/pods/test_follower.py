"""A pod that does not lead its group: ready when its leader is, ended when that is gone, not before.

The leader is a real HTTP server on loopback, vLLM's workers are a process that sleeps.
"""

import asyncio
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from stepaudio_runtime.bodies import ModelInfo
from stepaudio_runtime.errors import ConfigError
from stepaudio_runtime.health.state import PodState
from stepaudio_runtime.pods.chat import ChatModel
from stepaudio_runtime.pods.follower import Follower, LeaderGone
from stepaudio_runtime.service.engine import EngineFailed
from stepaudio_runtime.settings import EngineSettings, Group

INFO: ModelInfo = {
    "model": "m",
    "audio_offset": 8,
    "vocab_size": 9,
    "bos": 1,
    "eot": 3,
    "bot": 4,
    "max_model_len": 16,
}
MODEL = ChatModel(Path("/m"), 1, INFO, b"")
SLEEPS = [sys.executable, "-c", "import time; time.sleep(600)"]


class Leader:
    """Answers `/readyz` with `status`, as soon and as long as it listens."""

    def __init__(self) -> None:
        self.status = 503
        self.port = 0
        self._server: asyncio.Server | None = None

    async def listen(self) -> None:
        self._server = await asyncio.start_server(self._answer, "127.0.0.1", self.port)
        self.port = self._server.sockets[0].getsockname()[1]

    async def die(self) -> None:
        if self._server is not None:
            self._server.close()
            await self._server.wait_closed()

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(f"HTTP/1.1 {self.status} X\r\nContent-Length: 0\r\nConnection: close\r\n\r\n".encode())
        await writer.drain()
        writer.close()


@asynccontextmanager
async def following(
    leader: Leader, command: list[str] = SLEEPS, drain_s: float = 60
) -> AsyncIterator[tuple[Follower, "asyncio.Task[None]"]]:
    """A follower that has begun to start."""
    group = Group(nodes=2, rank=1, leader="127.0.0.1", leader_port=leader.port)
    follower = Follower(
        PodState("chat"),
        group,
        verify=lambda: MODEL,
        command=lambda model: command,
        env={},
        drain_timeout_s=drain_s,
    )
    start = asyncio.create_task(follower.start())
    try:
        yield follower, start
    finally:
        start.cancel()
        await asyncio.gather(start, return_exceptions=True)
        await leader.die()
        await follower.stop()


async def a_while() -> None:
    """Long enough for several looks at the leader."""
    await asyncio.sleep(0.8)


async def within(what: Callable[[], bool]) -> None:
    async with asyncio.timeout(30):
        while not what():  # noqa: ASYNC110 - the code under test changes it
            await asyncio.sleep(0.05)


async def test_it_waits_for_a_leader_that_is_not_there_yet_and_until_that_is_ready() -> None:
    leader = Leader()
    await leader.listen()
    await leader.die()  # nobody listens at its port
    async with following(leader) as (_, start):
        await a_while()
        await leader.listen()
        await a_while()
        assert not start.done()
        leader.status = 200
        await within(start.done)
        assert start.exception() is None


async def test_a_leader_that_is_not_ready_for_a_while_is_no_end_and_one_that_is_gone_is() -> None:
    leader = Leader()
    leader.status = 200
    await leader.listen()
    async with following(leader) as (follower, start):
        await within(start.done)
        leader.status = 503  # it drains
        await a_while()
        assert not follower.failed.done()
        await leader.die()
        await within(follower.failed.done)
        assert isinstance(follower.failed.result(), LeaderGone)


async def test_a_leader_that_dies_while_it_loads_ends_the_start() -> None:
    leader = Leader()
    await leader.listen()
    async with following(leader) as (_, start):
        await a_while()
        await leader.die()
        await within(start.done)
        assert isinstance(start.exception(), LeaderGone)


async def test_workers_that_end_end_the_pod_with_their_words() -> None:
    leader = Leader()
    leader.status = 200
    await leader.listen()
    fails = [sys.executable, "-c", "raise ValueError('no such layer')"]
    async with following(leader, fails) as (follower, start):
        await within(lambda: start.done() and (start.exception() is not None or follower.failed.done()))
        error = start.exception() or follower.failed.result()
        assert isinstance(error, EngineFailed)
        assert "ValueError: no such layer" in str(error)


async def test_its_workers_stay_until_the_leader_has_ended() -> None:
    leader = Leader()
    leader.status = 200
    await leader.listen()
    async with following(leader) as (follower, start):
        await within(start.done)
        stop = asyncio.create_task(follower.stop())
        leader.status = 503
        await a_while()
        assert not stop.done()
        await leader.die()
        await within(stop.done)


async def test_they_stay_for_the_drain_time_out_at_most() -> None:
    leader = Leader()
    leader.status = 200
    await leader.listen()
    async with following(leader, drain_s=0.5) as (follower, start):
        await within(start.done)
        await asyncio.wait_for(follower.stop(), 30)


def test_a_group_is_read_from_the_environment() -> None:
    env = {
        "STEPAUDIO_NODES": "2",
        "STEPAUDIO_NODE_RANK": "1",
        "STEPAUDIO_LEADER_ADDRESS": "prod-chat-1f0c22aa-0-0.prod-chat-1f0c22aa-0.speech",
    }
    assert EngineSettings.from_env(env).group == Group(
        2, 1, "prod-chat-1f0c22aa-0-0.prod-chat-1f0c22aa-0.speech", 8000, 29501
    )
    assert EngineSettings.from_env({}).group is None
    assert EngineSettings.from_env({**env, "STEPAUDIO_NODES": "1"}).group is None
    for wrong, said in (
        ({"STEPAUDIO_LEADER_ADDRESS": ""}, "no STEPAUDIO_LEADER_ADDRESS"),
        ({"STEPAUDIO_NODE_RANK": "2"}, "STEPAUDIO_NODE_RANK=2 is outside 0 to 1"),
    ):
        with pytest.raises(ConfigError, match=said):
            EngineSettings.from_env({**env, **wrong})
