"""What goes to the API server beside the reconciles' own objects: Events within its limits; and what is said
of lists that cannot be had.
"""

import asyncio
from datetime import UTC, datetime

from stepaudio_operator.errors import Forbidden
from stepaudio_operator.kube import resources
from stepaudio_operator.kube.client import Client
from stepaudio_operator.kube.cluster import NOTE_LIMIT, Cluster
from stepaudio_operator.kube.reflector import in_words
from tests.unit.operator_io.api_server import ApiServer

NOW = datetime(2026, 1, 2, 3, 4, 5, 6, tzinfo=UTC)


def cluster_of(client: Client, troubles: list[str]) -> Cluster:
    return Cluster(
        client,
        lambda key, fresh: None,
        namespace="a",
        instance="one",
        wall=lambda: NOW,
        on_trouble=lambda resource, error: troubles.append(f"{resource.kind} {type(error).__name__}"),
    )


async def test_an_event_fits_whatever_it_is_about(server: ApiServer) -> None:
    client = server.client()
    cluster = cluster_of(client, [])
    name = f"{'a' * 229}-{'b' * 23}"  # as long as a name may be, cut behind a dash
    metadata = {"namespace": "a", "name": name, "uid": "u", "resourceVersion": "1"}
    raw = {"apiVersion": resources.VOICES.api_version, "kind": "StepAudioVoice", "metadata": metadata}
    await cluster.event(raw, warning=True, reason="NameTaken", action="Reconcile", note="语" * 2000)
    (event,) = server.objects.values()
    assert event["metadata"]["name"] == f"{'a' * 229}.{int(NOW.timestamp() * 1_000_000):x}"
    assert len(event["metadata"]["name"]) <= 253
    assert event["note"] == "语" * (NOTE_LIMIT // 3)  # the limit is one of bytes
    await client.close()


async def test_what_cannot_be_read_is_named_with_its_cure(server: ApiServer) -> None:
    troubles: list[str] = []
    client = server.client()
    cluster = cluster_of(client, troubles)
    kinds = ["StepAudioDeployment", "StepAudioDataJob", *(r.resource.kind for r in cluster.reflectors)]
    assert list(cluster.unread()) == kinds
    server.failures = [(404, {"message": "no such page"}, {})] * 2
    reading = asyncio.create_task(cluster.read_written())
    async with asyncio.timeout(20):
        while len(troubles) < 2:  # noqa: ASYNC110 - the change comes from the code under test
            await asyncio.sleep(0.01)
    assert sorted(troubles) == ["StepAudioDataJob NotFound", "StepAudioDeployment NotFound"]
    assert list(cluster.unread())[:2] == [
        f"{kind} (no such page: install the CRD {kind.lower()}s.stepaudio.io as this version has it (the"
        " chart does))"
        for kind in kinds[:2]
    ]
    assert in_words(resources.PODS, Forbidden("not for you")) == (
        "not for you: allow the operator to get, list and watch pods (the chart's ClusterRole does)"
    )
    await asyncio.wait_for(reading, 20)
    assert list(cluster.unread()) == kinds[2:]
    await client.close()
