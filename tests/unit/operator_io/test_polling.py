"""Pods are asked until they serve what is waited for, and only a change of an answer wakes anybody."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import pytest
from aiohttp import web

from stepaudio_operator.kube.cache import Key
from stepaudio_operator.polling import Answer, Poller, Target
from stepaudio_operator.records import GpuReading, Work
from stepaudio_operator.settings import PollSettings

KEY = Key("StepAudioDeployment", "a", "prod")
QUICK = PollSettings(connect_s=0.3, total_s=0.5, first_s=0.02, last_s=0.05, unreachable_s=0.05)


class Pod:
    """A pod's HTTP server on loopback; `answer` is what `/status` says (a status code, or a JSON value)."""

    def __init__(self, answer: Any) -> None:
        self.answer = answer
        self.asked = 0

    async def __aenter__(self) -> "Pod":
        app = web.Application()
        app.router.add_get("/status", self._status)
        self._runner = web.AppRunner(app, access_log=None)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", 0).start()
        self.port = self._runner.addresses[0][1]
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self._runner.cleanup()

    async def _status(self, request: web.Request) -> web.StreamResponse:
        self.asked += 1
        if isinstance(self.answer, int):
            return web.Response(status=self.answer)
        if isinstance(self.answer, bytes):
            return await self._in_pieces(request, self.answer)
        return web.json_response(self.answer)

    async def _in_pieces(self, request: web.Request, body: bytes) -> web.StreamResponse:
        """Without saying how much it will be."""
        response = web.StreamResponse()
        response.enable_chunked_encoding()
        await response.prepare(request)
        for start in range(0, len(body), 4096):
            await response.write(body[start : start + 4096])
        return response

    def target(self, generation: int | None, uid: str = "u1") -> Target:
        return Target(uid, "127.0.0.1", self.port, generation)


@asynccontextmanager
async def polling(woken: list[Key], settings: PollSettings = QUICK) -> AsyncIterator[Poller]:
    poller = Poller(settings, time.monotonic, woken.append)
    task = asyncio.create_task(poller.run())
    try:
        yield poller
        assert not task.done()
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def until(true: Callable[[], bool]) -> None:
    async with asyncio.timeout(20):
        while not true():  # noqa: ASYNC110 - the change comes from the code under test
            await asyncio.sleep(0.01)


def status(generation: int | None, phase: str = "Ready", in_flight: int = 0) -> dict[str, Any]:
    return {"phase": phase, "inFlight": in_flight, "routingGeneration": generation, "ready": True}


async def test_a_gateway_is_asked_until_it_serves_the_generation_and_then_left_alone() -> None:
    woken: list[Key] = []
    async with Pod(status(1)) as pod, polling(woken) as poller:
        poller.want(KEY, [pod.target(2)])
        await until(lambda: pod.asked >= 3)
        assert woken == [KEY]  # once for the first answer, not for its repetitions
        pod.answer = status(2)
        await until(lambda: poller.answer("u1") == Answer("Ready", 0, 2))
        asked = pod.asked
        poller.want(KEY, [pod.target(2)])
        await asyncio.sleep(0.3)
        assert (pod.asked, woken) == (asked, [KEY, KEY])
        poller.want(KEY, [pod.target(3)])
        assert poller.answer("u1") == Answer("Ready", 0, 2)  # until there is a newer one
        await until(lambda: pod.asked > asked)


async def test_what_cannot_be_reached_or_read_is_unknown() -> None:
    woken: list[Key] = []
    async with Pod(503) as pod, polling(woken) as poller:
        for answer in (503, 302, [1], {"phase": 3, "routingGeneration": True}, "text"):
            pod.answer = answer
            asked = pod.asked
            poller.want(KEY, [])
            poller.want(KEY, [pod.target(1)])
            await until(lambda asked=asked: pod.asked > asked and poller.answer("u1") is not None)
            assert poller.answer("u1") == Answer()
        poller.want(KEY, [Target("u2", "127.0.0.1", 1, 1)])
        await until(lambda: poller.answer("u2") == Answer())


@pytest.mark.parametrize(
    "body",
    [
        b"[" * 60_000,
        b"1" * 50_000,
        b'{"phase": "Ready", "pad": "' + b"x" * 100_000 + b'"}',
        b'{"phase": "Ready", "inFlight": NaN, "load": {"bytesLoaded": -5, "bytesTotal": 1e400}}',
    ],
    ids=["deep", "long number", "too much", "no numbers"],
)
async def test_a_pod_that_answers_with_malice_ends_nothing_and_says_nothing(body: bytes) -> None:
    woken: list[Key] = []
    async with Pod(body) as pod, polling(woken) as poller:
        poller.want(KEY, [pod.target(1)])
        await until(lambda: pod.asked > 2 and poller.answer("u1") is not None)
        assert poller.answer("u1") in (Answer(), Answer("Ready"))


def test_numbers_that_no_status_can_hold_are_unknown() -> None:
    for wrong in (-1, 10**30, True, 1.5, "1"):
        load = {"bytesLoaded": wrong, "bytesTotal": wrong, "etaSeconds": wrong}
        gpus = [{"product": "L4", "usedBytes": wrong, "totalBytes": wrong}]
        said = {"phase": "Ready", "inFlight": wrong, "load": load, "samples": {"made": wrong}, "gpus": gpus}
        assert Answer.from_json(said) == Answer("Ready")


async def test_a_pod_that_nobody_asks_about_is_forgotten() -> None:
    woken: list[Key] = []
    async with Pod(status(1)) as pod, polling(woken) as poller:
        poller.want(KEY, [pod.target(9), pod.target(9, "u2")])
        await until(lambda: poller.answer("u1") is not None and poller.answer("u2") is not None)
        poller.want(KEY, [pod.target(9, "u2")])
        assert poller.answer("u1") is None
        poller.want(KEY, [])
        await asyncio.sleep(0.1)
        asked = pod.asked
        await asyncio.sleep(0.3)
        assert (poller.answer("u2"), pod.asked) == (None, asked)


def test_a_count_in_flight_matters_only_at_its_end() -> None:
    busy = Answer("Draining", 5, 1)
    assert not Answer("Draining", 3, 1).differs(busy)
    assert Answer("Draining", 0, 1).differs(busy)
    assert Answer("Ready", 5, 1).differs(busy)
    assert Answer("Draining", 5, 2).differs(busy)
    assert busy.differs(None)


async def test_who_waits_at_a_gateway_is_asked_for_without_end_and_wakes_the_pool() -> None:
    def said(**waiting: int) -> dict[str, Any]:
        work = {"inFlight": 1.5, "queueSeconds": None, "firstAudioSeconds": 2}
        return {**status(2, in_flight=3), "lately": work, "waiting": waiting}

    woken: list[Key] = []
    pool = Key("StepAudioPool", "a", "prod-tts")
    async with Pod(said()) as pod, polling(woken) as poller:
        poller.want(KEY, [pod.target(2)])
        await until(lambda: woken == [KEY])
        poller.want(pool, [Target("u1", "127.0.0.1", pod.port, None, work=True)])
        await until(lambda: pod.asked > 4)
        assert poller.answer("u1") == Answer("Ready", 3, 2, work=Work(3, 1.5, None, 2.0), waiting={})
        assert woken == [KEY]
        pod.answer = said(tts=2)
        await until(lambda: sorted(woken) == sorted([KEY, KEY, pool]))
        assert (poller.answer("u1") or Answer()).waiting == {"tts": 2}
        poller.want(pool, [])  # the deployment has its answer: nobody asks on
        await asyncio.sleep(0.2)
        asked = pod.asked
        await asyncio.sleep(0.2)
        assert pod.asked == asked


def test_what_a_pod_says_that_cannot_be_is_unknown() -> None:
    def read(**body: Any) -> Work | None:
        return Answer.from_json({"inFlight": 2, **body}).work

    assert read() is None  # an older runtime
    assert read(lately="much") is None
    assert read(lately={"inFlight": 0.5, "queueSeconds": float("nan"), "firstAudioSeconds": -1}) == Work(
        2, 0.5
    )
    assert read(lately={"inFlight": True, "queueSeconds": "1"}) == Work(2, 2.0)
    assert read(inFlight=None, lately={"inFlight": 0.5}) is None
    assert Answer.from_json({"waiting": {"tts": 3, "chat": -1, "other": 5}}).waiting == {"tts": 3}
    assert Answer.from_json({"waiting": [1]}).waiting is None


async def test_a_download_is_asked_on_and_all_who_share_it_hear_of_each_step() -> None:
    def said(loaded: int) -> dict[str, Any]:
        return {"phase": "Loading", "load": {"bytesLoaded": loaded, "bytesTotal": 1_000_000}}

    woken: list[Key] = []
    one, two = (Key("StepAudioDeployment", "a", name) for name in ("one", "two"))
    async with Pod(said(10_000)) as pod, polling(woken) as poller:
        target = Target("u1", "127.0.0.1", pod.port, None, progress=True)
        poller.want(one, [target])
        poller.want(two, [target])
        await until(lambda: pod.asked > 3)
        assert poller.answer("u1") == Answer(phase="Loading", bytes_loaded=10_000, bytes_total=1_000_000)
        pod.answer = said(49_000)
        await until(lambda: (poller.answer("u1") or Answer()).bytes_loaded == 49_000)
        assert woken == [one, two]  # by the first answer: nothing that is told has changed since
        pod.answer = said(50_000)
        await until(lambda: woken == [one, two, one, two])
        poller.want(one, [])
        assert poller.answer("u1") is not None  # the other one still asks


GPU = {"product": "H100", "usedBytes": 8_000, "totalBytes": 10_000}


async def test_gpus_are_asked_once_the_pod_has_settled_and_then_now_and_then() -> None:
    settings = replace(QUICK, settle_s=0.2, gpus_s=0.2)
    woken: list[Key] = []
    async with (
        Pod(status(None) | {"gpus": [GPU, {"usedBytes": -1}, 3]}) as pod,
        polling(woken, settings) as poller,
    ):
        poller.want(KEY, [Target("u1", "127.0.0.1", pod.port, None, progress=True)])
        await until(lambda: poller.answer("u1") is not None)
        serves = Target("u1", "127.0.0.1", pod.port, None, gpus=True)
        poller.want(KEY, [serves])
        assert poller.answer("u1") is None  # what it said while it loaded is not what it holds now
        await until(lambda: poller.answer("u1") is not None)
        assert (poller.answer("u1") or Answer()).gpus == (GpuReading("H100", 8_000, 10_000),)
        told, asked = list(woken), pod.asked
        pod.answer = status(None) | {"gpus": [{**GPU, "usedBytes": 8_100}]}
        await until(lambda: pod.asked > asked + 1)
        assert woken == told  # less than a step
        pod.answer = status(None) | {"gpus": [{**GPU, "usedBytes": 9_000}]}
        await until(lambda: woken == [*told, KEY])


async def test_gpus_of_a_pod_that_served_before_the_operator_began_are_asked_at_once() -> None:
    settings = replace(QUICK, settle_s=1.0, gpus_s=600)
    woken: list[Key] = []
    async with Pod(status(None) | {"gpus": [GPU]}) as pod, polling(woken, settings) as poller:
        began = time.monotonic()
        poller.want(KEY, [Target("u1", "127.0.0.1", pod.port, None, gpus=True)])
        await until(lambda: poller.answer("u1") is not None)
        assert time.monotonic() - began < settings.settle_s
        await until(lambda: pod.asked > 1)  # it may have begun just before: not only after 600 s
        assert woken == [KEY]


async def test_pods_that_load_and_do_not_answer_do_not_hold_up_a_gateway() -> None:
    settings = replace(QUICK, connect_s=5.0, total_s=5.0, concurrency=4)
    woken: list[Key] = []
    async with Pod(status(1)) as pod, deaf() as port, polling(woken, settings) as poller:
        loading = [Target(f"p{n}", "127.0.0.1", port, None, progress=True) for n in range(20)]
        poller.want(Key("StepAudioPool", "a", "prod-tts"), loading)
        await asyncio.sleep(0.2)
        poller.want(KEY, [pod.target(1)])
        async with asyncio.timeout(2):
            await until(lambda: poller.answer("u1") == Answer("Ready", 0, 1))


@asynccontextmanager
async def deaf() -> AsyncIterator[int]:
    """A port where connections are taken and nothing is ever said."""

    async def listen(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.close()

    server = await asyncio.start_server(listen, "127.0.0.1", 0)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()
