"""The operator is killed (SIGKILL) twenty times in the middle of changes; the pods that serve never notice.

Each of its processes is killed after a number of stored events that a fixed seed chooses, while a change is
on its way: good ones, bad ones, more and fewer replicas.
"""

import asyncio
import random

import pytest

from stepaudio_operator import names
from stepaudio_operator.kube import resources
from tests.integration.operator.conftest import Stage
from tests.integration.operator.pools import Pools, revision_of
from tests.integration.operator.record import Record, recording
from tests.integration.operator.world import LONG_LEASE

pytestmark = pytest.mark.api

KILLS = 20
CHANGES = ("one", "bad", "two", "three")


async def test_killed_twenty_times_it_harms_nobody_and_ends_where_it_should(stage: Stage) -> None:
    admin, pools = stage.admin, Pools(stage)
    chance = random.Random(5)

    async def apply(change: str, replicas: int) -> None:
        env = [{"name": "CHANGE", "value": change}]
        await stage.deploy("nano", tts={"replicas": replicas, "podTemplate": {"env": env}})

    stage.kubelet.failing["tts"] = (names.EXIT_CONFIGURATION, "ModelFileMissing: x; load it again")
    stage.kubelet.fails = lambda pod: "bad" in str(pod["spec"]["containers"][0]["env"])
    await apply("first", 3)
    operator = stage.start_operator("one", **LONG_LEASE)
    async with stage.gateways("nano"):
        await pools.is_ready()
        serving = await pools.all_pods()
        operator.kill()
        operator.start()
        async with recording(admin, stage.namespace) as record:
            for number in range(1, KILLS):  # the first was the one above
                await apply(chance.choice(CHANGES), chance.choice((2, 3)))
                await _events(record, chance.randint(1, 14))
                assert operator.process.poll() is None
                operator.kill()
                print(f"kill {number + 1} after {len(record.events)} events")
                operator.start()
            await apply("last", 3)
            await pools.is_ready()
        # Two at least are asked for, and one may be away.
        assert record.fewest_serving("tts", serving) >= 1
        for other in ("chat", "tokenizer"):
            assert record.fewest_serving(other, serving) == 1
        await pools.at("tts", revision_of(await pools.pods("tts")), 3)
        uids = [p["metadata"]["uid"] for p in serving if "tts" not in p["metadata"]["name"]]
        kept = [p["metadata"]["uid"] for p in await pools.all_pods()]
        assert set(uids) <= set(kept)
        assert len(await admin.names(resources.POOLS, stage.namespace)) == 4


async def _events(record: Record, count: int) -> None:
    """Returns when `count` more events were stored, or when nothing happens for a while."""
    wanted = len(record.events) + count
    seen, quiet = len(record.events), 0
    while len(record.events) < wanted and quiet < 60:
        await asyncio.sleep(0.05)
        quiet = quiet + 1 if len(record.events) == seen else 0
        seen = len(record.events)
