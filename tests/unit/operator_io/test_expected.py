"""Work waits for kopf: for every object that was there before it, but not for ever.

What kopf has told of or nobody finds any more is not waited for, what it leaves out is asked for by name, and
what cannot be read holds up nothing for good.
"""

import asyncio
from datetime import UTC, datetime
from typing import Any

import pytest

from stepaudio_operator.kube import resources
from stepaudio_operator.kube.cache import Key
from stepaudio_operator.kube.cluster import WRITTEN, Cluster
from stepaudio_operator.kube.expected import Expected
from tests.unit.operator_io.api_server import ApiServer

Raw = dict[str, Any]
PATHS = {resource.kind: resource.path("a") for resource in WRITTEN}
DEPLOYMENT, DATA_JOB = (resource.kind for resource in WRITTEN)
LONG_S, SHORT_S = 20.0, 0.05


class Kopf:
    """Tells of what the server holds, when a test says so; `woken` has what work would begin with."""

    def __init__(self, server: ApiServer) -> None:
        self.server = server
        self.client = server.client()
        self.woken: list[str] = []
        self.expected = Expected(
            self.client, WRITTEN, self.take_in, namespace="a", on_trouble=lambda resource, error: None
        )

    def take_in(self, resource: resources.Resource, event: str | None, raw: Raw) -> None:
        self.woken.append(raw["metadata"]["name"])
        self.expected.tick_off(resource, raw)

    def tells(self, kind: str, name: str) -> None:
        resource = next(r for r in WRITTEN if r.kind == kind)
        self.take_in(resource, None, self.server.objects[f"{PATHS[kind]}/{name}"])

    async def wait(self, quiet_s: float) -> asyncio.Task[None]:
        """A wait that has had time to come to its end, if it can."""
        waiting = asyncio.create_task(self.expected.all_told(quiet_s))
        await asyncio.wait([waiting], timeout=0.2)
        return waiting


async def kopf_of(server: ApiServer, **names: list[str]) -> Kopf:
    for kind, each in {DEPLOYMENT: names.get("deployments", []), DATA_JOB: names.get("jobs", [])}.items():
        for name in each:
            await server.store(f"{PATHS[kind]}/{name}", {"metadata": {"name": name, "namespace": "a"}})
    kopf = Kopf(server)
    await kopf.expected.read()
    server.calls.clear()
    return kopf


async def test_work_waits_for_the_last_object_and_asks_the_server_nothing(server: ApiServer) -> None:
    kopf = await kopf_of(server, deployments=["one", "two"], jobs=["speech"])
    kopf.tells(DEPLOYMENT, "two")
    waiting = await kopf.wait(LONG_S)
    kopf.tells(DATA_JOB, "speech")
    await asyncio.sleep(0.05)
    assert not waiting.done()
    kopf.tells(DEPLOYMENT, "one")
    await asyncio.wait_for(waiting, 5)
    assert server.calls == []
    await kopf.client.close()


async def test_nothing_is_waited_for_where_nothing_was(server: ApiServer) -> None:
    kopf = await kopf_of(server)
    await asyncio.wait_for(kopf.expected.all_told(LONG_S), 5)
    await kopf.client.close()


async def test_what_went_is_not_waited_for_and_what_kopf_leaves_out_is_asked_for(server: ApiServer) -> None:
    kopf = await kopf_of(server, deployments=["gone", "left-out", "told"])
    await server.remove(f"{PATHS[DEPLOYMENT]}/gone")
    kopf.tells(DEPLOYMENT, "told")
    await asyncio.wait_for(kopf.expected.all_told(SHORT_S), 5)
    assert kopf.woken == ["told", "left-out"]
    assert server.calls == [("GET", f"{PATHS[DEPLOYMENT]}/{name}") for name in ("gone", "left-out")]
    await kopf.client.close()


async def test_what_cannot_be_read_is_named_and_holds_up_nothing_for_ever(
    server: ApiServer, caplog: pytest.LogCaptureFixture
) -> None:
    kopf = await kopf_of(server, deployments=["one"])
    server.failures = [(403, {"message": "not for you"}, {})] * 100
    await asyncio.wait_for(kopf.expected.all_told(SHORT_S), 20)
    assert kopf.woken == []
    assert caplog.messages[-1] == f"work begins without {DEPLOYMENT} a/one, which cannot be read"
    await kopf.client.close()


async def test_the_cluster_tells_when_all_of_it_is_known(server: ApiServer) -> None:
    path = f"{PATHS[DEPLOYMENT]}/one"
    raw = await server.store(path, {"metadata": {"name": "one", "namespace": "a"}, "spec": {}})
    woken: list[Key] = []
    cluster = Cluster(
        client := server.client(),
        lambda key, fresh: woken.append(key),
        namespace="a",
        instance="one",
        wall=lambda: datetime(2026, 1, 2, tzinfo=UTC),
        on_trouble=lambda resource, error: None,
    )
    await cluster.read_written()
    await cluster.fill()
    waiting = asyncio.create_task(cluster.told())
    await asyncio.wait([waiting], timeout=0.2)
    assert (waiting.done(), woken) == (False, [])  # it was listed, but nobody has told of it
    cluster.see(resources.DEPLOYMENTS, None, raw)
    await asyncio.wait_for(waiting, 5)
    assert woken == [Key(DEPLOYMENT, "a", "one")]
    await client.close()
