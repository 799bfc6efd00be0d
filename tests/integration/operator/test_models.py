"""Models are downloaded once for all who want them, before any pod is made; volumes stay when deployments go.

API server, Job controller and garbage collector are real; the pods of the Job are played.
"""

import contextlib
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import Any

import pytest
from aiohttp import web

from stepaudio_operator import names, resources
from tests.integration.operator.conftest import Stage
from tests.integration.operator.world import JOB_HOST, LONG_LEASE, condition, eventually

pytestmark = pytest.mark.api

PATIENCE_S = 180.0
Raw = dict[str, Any]


def hub(**cache: Any) -> Raw:
    return {"source": {"huggingFace": {"tokenSecretRef": {"name": "hf"}}}, "cache": {"size": "1Gi", **cache}}


@contextlib.asynccontextmanager
async def downloader(loaded: int, total: int) -> AsyncIterator[None]:
    """What the pod of the Job answers when it is asked how far it is."""

    async def status(_request: web.Request) -> web.Response:
        return web.json_response(
            {
                "phase": "Loading",
                "inFlight": 0,
                "load": {"bytesLoaded": loaded, "bytesTotal": total, "etaSeconds": 90},
            }
        )

    app = web.Application()
    app.router.add_get(names.STATUS_PATH, status)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, JOB_HOST, names.POOL_PORT, reuse_address=True).start()
    try:
        yield
    finally:
        await runner.cleanup()


def of_job(pod: Raw) -> bool:
    return names.LABEL_MODELS in pod["metadata"]["labels"]


async def job_pods(stage: Stage, phase: str) -> list[Raw]:
    pods = await stage.admin.all(resources.PODS, stage.namespace)
    return [pod for pod in pods if of_job(pod) and pod["status"].get("phase", "Pending") == phase]


async def play(stage: Stage, exit_code: int | None, message: str = "") -> None:
    """The pod of the Job that waits runs now, or has ended."""
    (pod,) = await eventually(
        lambda: job_pods(stage, "Pending"), "the Job has a pod that waits", within_s=PATIENCE_S
    )
    now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    ended = {"exitCode": exit_code, "message": message, "startedAt": now, "finishedAt": now}
    state = {"running": {"startedAt": now}} if exit_code is None else {"terminated": ended}
    container = {
        "name": names.CONTAINER,
        "image": "x",
        "imageID": "",
        "restartCount": 0,
        "ready": exit_code is None,
        "state": state,
    }
    phase = "Running" if exit_code is None else ("Failed" if exit_code else "Succeeded")
    status = {
        "phase": phase,
        "podIP": JOB_HOST,
        "podIPs": [{"ip": JOB_HOST}],
        "startTime": now,
        "containerStatuses": [container],
    }
    await stage.admin.patch(
        resources.PODS, stage.namespace, pod["metadata"]["name"], {"status": status}, "status"
    )


async def finish(stage: Stage, pods: list[Raw]) -> None:
    """The running pods of the Job end well."""
    now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    for pod in pods:
        container = {**pod["status"]["containerStatuses"][0], "ready": False}
        container["state"] = {"terminated": {"exitCode": 0, "startedAt": now, "finishedAt": now}}
        status = {"phase": "Succeeded", "containerStatuses": [container]}
        await stage.admin.patch(
            resources.PODS, stage.namespace, pod["metadata"]["name"], {"status": status}, "status"
        )


async def stalls(stage: Stage, name: str, reason: str) -> Raw:
    async def so() -> Raw | None:
        raw = await stage.admin.get(resources.DEPLOYMENTS, stage.namespace, name)
        return raw if condition(raw, "Ready").get("reason") == reason else None

    return await eventually(so, f"{name} says {reason}", within_s=PATIENCE_S)


async def test_two_deployments_share_one_download_and_the_volume_outlives_them(stage: Stage) -> None:
    admin, namespace = stage.admin, stage.namespace
    stage.kubelet.hold = of_job
    stage.start_operator(**LONG_LEASE)
    await stage.deploy("one", models=hub())
    await stage.deploy("two", models=hub())
    one = await stalls(stage, "one", "DownloadingModels")
    two = await stalls(stage, "two", "DownloadingModels")
    claim = one["status"]["cache"]["claimName"]
    assert two["status"]["cache"]["claimName"] == claim
    assert await admin.names(resources.CLAIMS, namespace) == [claim]
    assert await admin.names(resources.JOBS, namespace) == [claim]
    assert await admin.names(resources.POOLS, namespace) == ["one-gateway", "two-gateway"]

    await play(stage, None)
    async with downloader(430_000, 1_000_000):

        async def told() -> bool:
            seen = [await admin.get(resources.DEPLOYMENTS, namespace, name) for name in ("one", "two")]
            wanted = {"claimName": claim, "phase": "Downloading", "percent": 40, "bytesTotal": 1_000_000}
            caches = [dict(raw["status"]["cache"]) for raw in seen]
            expected = [cache.pop("expectedAt", "") for cache in caches]
            return all(expected) and caches == [wanted, wanted]

        await eventually(told, "both say how far it is", within_s=PATIENCE_S)
    await finish(stage, await job_pods(stage, "Running"))

    async def pools() -> bool:
        made = await admin.all(resources.POOLS, namespace)
        models = {p["metadata"]["name"]: p["spec"].get("models") for p in made}
        mounted = {"source": {"pvc": {"claimName": claim}}}
        return models == {
            f"{name}-{component}": None if component == names.GATEWAY else mounted
            for name in ("one", "two")
            for component in names.COMPONENTS
        }

    await eventually(pools, "every pool mounts the volume", within_s=PATIENCE_S)

    async def both_ready() -> bool:
        seen = [await admin.get(resources.DEPLOYMENTS, namespace, name) for name in ("one", "two")]
        return [raw["status"]["cache"] for raw in seen] == [{"claimName": claim, "phase": "Ready"}] * 2

    await eventually(both_ready, "both say that the models are there", within_s=PATIENCE_S)
    for name in ("one", "two"):
        await admin.delete(resources.DEPLOYMENTS, namespace, name)

    async def no_pools() -> bool:
        return await admin.names(resources.POOLS, namespace) == []

    await eventually(no_pools, "the pools go with their deployments", within_s=PATIENCE_S)
    assert await admin.names(resources.CLAIMS, namespace) == [claim]
