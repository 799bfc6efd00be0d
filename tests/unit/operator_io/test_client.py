"""Every refusal of the API server becomes its own error; a delete means one uid."""

import asyncio

import pytest

from stepaudio_operator.errors import (
    ClusterError,
    Conflict,
    Expired,
    Forbidden,
    NotFound,
    Rejected,
    Throttled,
    Unavailable,
)
from stepaudio_operator.kube.resources import PODS
from tests.unit.operator_io.api_server import ApiServer


@pytest.mark.parametrize(
    ("code", "error"),
    [
        (400, Rejected),
        (401, Forbidden),
        (403, Forbidden),
        (404, NotFound),
        (405, ClusterError),
        (409, Conflict),
        (410, Expired),
        (422, Rejected),
        (429, Throttled),
        (500, Unavailable),
        (503, Unavailable),
    ],
)
async def test_a_status_is_translated(server: ApiServer, code: int, error: type[ClusterError]) -> None:
    client = server.client()
    told: list[tuple[str, str, int]] = []
    client.report_to(lambda verb, resource, status: told.append((verb, resource.kind, status)))
    server.failures = [
        (code, {"kind": "Status", "reason": "Why", "message": "because"}, {"Retry-After": "7"})
    ]
    with pytest.raises(ClusterError) as raised:
        await client.get(PODS, "a", "p")
    found = raised.value
    assert (type(found), str(found), found.status, found.reason) == (error, "because", code, "Why")
    assert found.retry_after_s == 7.0
    assert told == [("get", "Pod", code)]
    await client.close()


async def test_the_time_to_wait_may_stand_in_the_body(server: ApiServer) -> None:
    client = server.client()
    server.failures = [(429, {"message": "slow down", "details": {"retryAfterSeconds": 3}}, {})]
    with pytest.raises(Throttled) as raised:
        await client.get(PODS, "a", "p")
    assert raised.value.retry_after_s == 3.0
    await client.close()


async def test_a_field_that_server_side_apply_does_not_know_is_the_objects_fault(server: ApiServer) -> None:
    client = server.client()
    message = (
        "failed to create typed patch object (a/b; apps/v1, Kind=Deployment): .spec.x: field not declared"
    )
    server.failures = [(500, {"message": message, "reason": "InternalError"}, {})]
    with pytest.raises(Rejected) as raised:
        await client.get(PODS, "a", "p")
    assert (str(raised.value), raised.value.reason) == (message, "Invalid")
    await client.close()


async def test_no_answer_is_unavailable() -> None:
    async with ApiServer() as server:
        client = server.client()
    with pytest.raises(Unavailable):
        await asyncio.wait_for(client.get(PODS, "a", "p"), 20)
    await client.close()


async def test_an_answer_that_is_no_json_is_unavailable(server: ApiServer) -> None:
    client = server.client()
    server.failures = [(200, "<html>a proxy's own page</html>", {}), (200, '{"items": [{"meta', {})]
    for _ in range(2):
        with pytest.raises(Unavailable):
            await client.get(PODS, "a", "p")
    server.failures = [(200, "<html></html>\n", {})]
    with pytest.raises(Unavailable):
        async for _ in client.watch(PODS, "a", selector="", since="1"):
            pass
    await client.close()


async def test_a_delete_means_one_uid(server: ApiServer) -> None:
    client = server.client()
    pod = {"kind": "Pod", "metadata": {"namespace": "a", "name": "p"}}
    made = await client.create(PODS, pod)
    with pytest.raises(Conflict):
        await client.create(PODS, pod)
    with pytest.raises(Conflict):
        await client.delete(PODS, "a", "p", uid="another")
    await client.delete(PODS, "a", "p", uid=made["metadata"]["uid"])
    with pytest.raises(NotFound):
        await client.get(PODS, "a", "p")
    await client.close()
