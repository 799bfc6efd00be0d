"""The reflector's store follows the server through pages, breaks, expiry, and our own writes ahead of it."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

from stepaudio_operator.kube.reflector import Reflector, Store
from stepaudio_operator.kube.resources import GROUPS, PODS
from tests.unit.operator_io.api_server import ApiServer

Raw = dict[str, Any]
PATH = "/api/v1/namespaces/a/pods"


def pod(name: str, value: int = 0, **metadata: Any) -> Raw:
    return {"kind": "Pod", "metadata": {"namespace": "a", "name": name, **metadata}, "value": value}


class Seen:
    """A store of values and the changes it told of."""

    def __init__(self) -> None:
        self.changes: list[tuple[int | None, int | None, bool]] = []
        self.store: Store[int] = Store(lambda raw: raw["value"], lambda *change: self.changes.append(change))

    async def until(self, true: Callable[[], bool]) -> None:
        async with asyncio.timeout(20):
            while not true():  # noqa: ASYNC110 - the change comes from the code under test
                await asyncio.sleep(0.01)

    def values(self, *names: str) -> list[int | None]:
        return [self.store.get("a", name) for name in names]


@asynccontextmanager
async def reflecting(server: ApiServer, seen: Seen) -> AsyncIterator[Reflector[int]]:
    client = server.client()
    reflector: Reflector[int] = Reflector(client, PODS, seen.store, namespace="a", page_objects=2)
    task = asyncio.create_task(reflector.run())
    try:
        yield reflector
        assert not task.done()
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await client.close()


async def test_it_lists_in_pages_and_follows(server: ApiServer) -> None:
    for number in range(5):
        await server.store(f"{PATH}/p{number}", pod(f"p{number}", number))
    seen = Seen()
    async with reflecting(server, seen) as reflector:
        await asyncio.wait_for(reflector.synced.wait(), 20)
        assert seen.values("p0", "p4", "p5") == [0, 4, None]
        await server.store(f"{PATH}/p5", pod("p5", 5))
        await server.store(f"{PATH}/p0", pod("p0", 10))
        await server.remove(f"{PATH}/p4")
        await seen.until(lambda: len(seen.changes) == 8)
    assert seen.changes[5:] == [(None, 5, False), (0, 10, False), (4, None, False)]
    assert sum(1 for call in server.calls if call == ("GET", PATH)) == 3 + 1


async def test_a_broken_watch_goes_on_where_it_was(server: ApiServer) -> None:
    await server.store(f"{PATH}/p0", pod("p0", 0))
    seen = Seen()
    async with reflecting(server, seen) as reflector:
        await asyncio.wait_for(reflector.synced.wait(), 20)
        for value in (1, 2):
            await server.drop_watches()
            await server.store(f"{PATH}/p0", pod("p0", value))
            await seen.until(lambda value=value: seen.values("p0") == [value])
    assert seen.changes == [(None, 0, False), (0, 1, False), (1, 2, False)]


async def test_an_expired_watch_lists_again_and_finds_what_was_deleted(server: ApiServer) -> None:
    await server.store(f"{PATH}/gone", pod("gone", 1))
    await server.store(f"{PATH}/kept", pod("kept", 2))
    seen = Seen()
    async with reflecting(server, seen) as reflector:
        await asyncio.wait_for(reflector.synced.wait(), 20)
        server.failures = [(500, {}, {})] * 2  # the watch cannot come back before the history is forgotten
        await server.drop_watches()
        await server.remove(f"{PATH}/gone")
        await server.store(f"{PATH}/new", pod("new", 3))
        server.forget_history()
        await seen.until(lambda: seen.values("gone", "kept", "new") == [None, 2, 3])
    assert (1, None, False) in seen.changes


async def test_a_lost_permission_is_waited_out_and_the_state_kept(server: ApiServer) -> None:
    await server.store(f"{PATH}/p0", pod("p0", 7))
    seen = Seen()
    async with reflecting(server, seen) as reflector:
        await asyncio.wait_for(reflector.synced.wait(), 20)
        server.failures = [(403, {"reason": "Forbidden", "message": "no"}, {})] * 3
        await server.drop_watches()
        await seen.until(lambda: not server.failures)
        assert seen.values("p0") == [7]
        await server.store(f"{PATH}/p0", pod("p0", 8))
        await seen.until(lambda: seen.values("p0") == [8])


def test_our_own_write_is_seen_at_once_and_its_echo_ignored() -> None:
    seen = Seen()
    seen.store.put(pod("p0", 1, uid="u", resourceVersion="5"), own=True)
    seen.store.put(pod("p0", 1, uid="u", resourceVersion="5"))
    seen.store.put(pod("p0", 0, uid="u", resourceVersion="4"))
    seen.store.put(pod("p0", 2, uid="u", resourceVersion="6"))
    assert seen.changes == [(None, 1, True), (1, 2, False)]


def test_what_we_deleted_does_not_come_back_by_a_late_event_but_its_successor_does() -> None:
    seen = Seen()
    seen.store.put(pod("p0", 1, uid="u", resourceVersion="5"))
    seen.store.deleting("a", "p0", {"kind": "Status"})
    seen.store.put(pod("p0", 2, uid="u", resourceVersion="6"))
    assert seen.values("p0") == [None]
    seen.store.put(pod("p0", 3, uid="next", resourceVersion="8"))
    seen.store.deleted(pod("p0", 2, uid="u", resourceVersion="7"))
    assert seen.values("p0") == [3]


def test_a_graceful_delete_leaves_the_object_until_it_is_gone() -> None:
    seen = Seen()
    seen.store.put(pod("p0", 1, uid="u", resourceVersion="5"))
    going = {"deletionTimestamp": "2026-01-01T00:00:00Z", "deletionGracePeriodSeconds": 30}
    seen.store.deleting("a", "p0", pod("p0", 2, uid="u", resourceVersion="6", **going))
    assert seen.values("p0") == [2]
    seen.store.deleted(pod("p0", 2, uid="u", resourceVersion="9"))
    assert seen.values("p0") == [None]


def test_the_answer_to_a_write_that_comes_after_the_end_of_its_object_does_not_bring_it_back() -> None:
    seen = Seen()
    seen.store.put(pod("p", 1, uid="u", resourceVersion="5"))
    going = pod("p", 2, uid="u", resourceVersion="6", deletionTimestamp="now", finalizers=["protection"])
    seen.store.deleted({**going, "metadata": {**going["metadata"], "resourceVersion": "7"}})
    seen.store.deleting("a", "p", going)
    assert seen.values("p") == [None]
    seen.store.put(pod("p", 3, uid="v", resourceVersion="8"), own=True)
    assert seen.values("p") == [3]


def test_a_list_older_than_our_own_write_does_not_drop_it() -> None:
    seen = Seen()
    seen.store.put(pod("p0", 1, uid="u", resourceVersion="12"), own=True)
    seen.store.settle(set(), 11)
    assert seen.values("p0") == [1]
    seen.store.settle(set(), 12)
    assert seen.values("p0") == [None]


async def test_a_resource_that_a_cluster_may_do_without_is_no_trouble(server: ApiServer) -> None:
    path = GROUPS.path("a")
    seen, told = Seen(), list[str]()
    client = server.client()
    reflector: Reflector[int] = Reflector(
        client, GROUPS, seen.store, namespace="a", on_trouble=lambda _, error: told.append(str(error.status))
    )
    server.failures = [(404, {}, {})]
    assert await reflector.fill() is None
    assert reflector.synced.is_set()
    await server.store(f"{path}/g0", pod("g0", 7))
    assert await reflector.fill() is not None  # it is served now
    assert seen.values("g0") == [7]
    server.failures = [(403, {}, {})]
    assert await reflector.fill() is None
    assert (seen.values("g0"), told) == ([None], ["403"])
    await client.close()
