"""Models are downloaded once for all who want them, before any pod is made; volumes stay when deployments go.

API server, Job controller and garbage collector are real; the pods of the Job are played.
"""

import contextlib
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import Any

import pytest
from aiohttp import web

from stepaudio_operator import names
from stepaudio_operator.kube import resources
from tests.integration.operator.conftest import Stage
from tests.integration.operator.world import JOB_HOST, LONG_LEASE, answering, condition, eventually, ready

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

    async with answering(JOB_HOST, web.get(names.STATUS_PATH, status)):
        yield


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


UNAUTHORIZED = (
    "SourceUnauthorized: huggingface.co answered 401 for stepfun-ai/Step-Audio-Chat; correct the token"
)


async def models_of(stage: Stage, name: str) -> dict[str, str]:
    """Component -> volume that its pool mounts."""
    pools = await stage.admin.all(resources.POOLS, stage.namespace)
    return {
        pool["spec"]["component"]: pool["spec"]["models"]["source"]["pvc"]["claimName"]
        for pool in pools
        if pool["spec"]["deployment"] == name and "models" in pool["spec"]
    }


async def test_a_failed_download_another_revision_and_a_volume_that_nobody_needs(stage: Stage) -> None:
    admin, namespace = stage.admin, stage.namespace
    stage.kubelet.hold = of_job
    stage.start_operator(**LONG_LEASE)
    spec: Raw = {"models": hub(whenUnused="Delete"), "rollout": {"historyLimit": 0}}
    await stage.deploy("one", **spec)
    await play(stage, names.EXIT_CONFIGURATION, UNAUTHORIZED)

    async def given_up() -> Raw | None:
        raw = await stalls(stage, "one", "SourceUnauthorized")
        return raw if raw["status"]["cache"]["phase"] == "Failed" else None

    failed = await eventually(given_up, "the Job has failed", within_s=PATIENCE_S)
    first = failed["status"]["cache"]["claimName"]
    assert failed["status"]["cache"] == {"claimName": first, "phase": "Failed"}
    assert condition(failed, "Stalled")["message"] == (
        "huggingface.co answered 401 for stepfun-ai/Step-Audio-Chat; correct the token; tried again 10 min"
        f" after it failed, or at once when job {first} is deleted"
    )

    # The person has corrected the token and does not want to wait.
    await admin.call("DELETE", f"{resources.JOBS.path(namespace, first)}?propagationPolicy=Background")
    await play(stage, None)
    await finish(stage, await job_pods(stage, "Running"))
    everywhere = dict.fromkeys(names.MODEL_COMPONENTS, first)

    async def on_the_first() -> bool:
        return await models_of(stage, "one") == everywhere

    await eventually(on_the_first, "every pool mounts the volume", within_s=PATIENCE_S)
    async with stage.gateways("one"):
        await eventually(lambda: ready(admin, namespace, "one"), "Ready", within_s=PATIENCE_S)
        pods = {
            pod["metadata"]["uid"] for pod in await admin.all(resources.PODS, namespace) if not of_job(pod)
        }

        # Another revision is another volume; what runs keeps the old one until the new one is filled.
        hub_ = {**spec["models"]["source"]["huggingFace"], "revisions": {"chat": "5f0c2d6b"}}
        spec["models"] = {**spec["models"], "source": {"huggingFace": hub_}}
        await stage.deploy("one", **spec)
        loading = await stalls(stage, "one", "DownloadingModels")
        second = loading["status"]["cache"]["claimName"]
        assert second != first
        assert await models_of(stage, "one") == everywhere
        await play(stage, None)
        assert pods == {
            pod["metadata"]["uid"] for pod in await admin.all(resources.PODS, namespace) if not of_job(pod)
        }
        await finish(stage, await job_pods(stage, "Running"))

        async def only_the_second() -> bool:
            mounted = await models_of(stage, "one")
            return set(mounted.values()) == {second} and await admin.names(resources.CLAIMS, namespace) == [
                second
            ]

        await eventually(only_the_second, "the old volume is gone", within_s=PATIENCE_S)
        await eventually(lambda: ready(admin, namespace, "one"), "Ready again", within_s=PATIENCE_S)
    await admin.delete(resources.DEPLOYMENTS, namespace, "one")

    async def nothing() -> bool:
        return await admin.names(resources.CLAIMS, namespace) == []

    await eventually(nothing, "the volume goes with the last deployment", within_s=PATIENCE_S)
