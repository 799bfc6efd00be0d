"""Leader election: one holds the Lease, expiry goes by one's own clock, a released Lease is taken at once."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime

import pytest

from stepaudio_operator.errors import LeaseLost
from stepaudio_operator.kube.lease import Candidate, Leadership, LeaseSettings
from tests.unit.operator_io.api_server import ApiServer

WALL = datetime(2026, 1, 2, 3, 4, 5, 678901, tzinfo=UTC)
PATH = "/apis/coordination.k8s.io/v1/namespaces/a/leases/stepaudio-operator"


def held(by: str, renewed: str = "t0") -> dict[str, object]:
    return {"holderIdentity": by, "renewTime": renewed, "leaseDurationSeconds": 15}


def test_a_lease_of_another_expires_only_when_it_was_not_seen_to_change_for_its_duration() -> None:
    me = Candidate("me", 15.0)
    me.observe(held("other", "t0"), 100.0)
    me.observe(held("other", "t0"), 110.0)
    assert [me.may_take(now) for now in (100.0, 114.9, 115.0)] == [False, False, True]
    me.observe(held("other", "t1"), 114.0)
    assert [me.may_take(now) for now in (115.0, 128.9, 129.0)] == [False, False, True]


def test_a_free_lease_and_ones_own_may_be_taken_and_an_unseen_one_not() -> None:
    me = Candidate("me", 15.0)
    assert not me.may_take(1e9)
    me.observe(held(""), 0.0)
    assert me.may_take(0.0)
    me.observe(held("me"), 0.0)
    assert me.may_take(0.0)


def test_a_claim_counts_transitions_and_keeps_the_time_of_taking() -> None:
    me = Candidate("me", 15.0)
    taken = me.claim(held("other") | {"leaseTransitions": 3}, WALL)
    assert taken == {
        "holderIdentity": "me",
        "leaseDurationSeconds": 15,
        "acquireTime": "2026-01-02T03:04:05.678901Z",
        "renewTime": "2026-01-02T03:04:05.678901Z",
        "leaseTransitions": 4,
    }
    later = me.claim(taken, WALL.replace(minute=5))
    assert later == taken | {"renewTime": "2026-01-02T03:05:05.678901Z"}


class Clock:
    """Seconds that pass only when told."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


@asynccontextmanager
async def replica(server: ApiServer, name: str, clock: Clock) -> AsyncIterator[Leadership]:
    client = server.client()
    settings = LeaseSettings(namespace="a", identity=name, duration_s=15.0, renew_s=10.0, retry_s=0.01)
    try:
        yield Leadership(client, settings, clock, lambda: WALL)
    finally:
        await client.close()


async def test_of_two_replicas_one_leads_and_the_other_takes_over_when_it_lets_go(server: ApiServer) -> None:
    clock = Clock()
    async with replica(server, "one", clock) as one, replica(server, "two", clock) as two:
        await asyncio.wait_for(one.acquire(), 20)
        standby = asyncio.create_task(two.acquire())
        await asyncio.wait_for(two.answered.wait(), 20)
        await asyncio.sleep(0.1)
        assert (one.leader, two.leader, standby.done()) == (True, False, False)
        await one.release()
        await asyncio.wait_for(standby, 20)
        assert (one.leader, two.leader) == (False, True)
        assert server.objects[PATH]["spec"]["holderIdentity"] == "two"


async def test_a_standby_takes_a_lease_whose_holder_died(server: ApiServer) -> None:
    clock = Clock()
    async with replica(server, "one", clock) as one, replica(server, "two", clock) as two:
        await asyncio.wait_for(one.acquire(), 20)
        standby = asyncio.create_task(two.acquire())
        await asyncio.wait_for(two.answered.wait(), 20)
        clock.now += 16.0
        await asyncio.wait_for(standby, 20)
        with pytest.raises(LeaseLost):
            await asyncio.wait_for(one.keep(), 20)
        assert (one.leader, two.leader) == (False, True)


async def test_a_leader_that_cannot_renew_gives_up_before_another_may_take_it(server: ApiServer) -> None:
    clock = Clock()
    async with replica(server, "one", clock) as one:
        await asyncio.wait_for(one.acquire(), 20)
        server.failures = [(500, {}, {})] * 1000
        keeping = asyncio.create_task(one.keep())
        await asyncio.sleep(0.2)
        assert not keeping.done()
        clock.now = 10.0
        with pytest.raises(LeaseLost):
            await asyncio.wait_for(keeping, 20)
        server.failures = []
        await one.release()  # lost: nothing to let go of
        assert server.objects[PATH]["spec"]["holderIdentity"] == "one"
