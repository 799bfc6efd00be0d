"""Another version of the operator, with other render code and presets, touches nothing that runs.

The other version is a copy of the package in which every part of a pod that could differ does. That it really
renders otherwise is shown by what it makes of a new deployment.
"""

import asyncio
from pathlib import Path

import pytest

from stepaudio_operator import names
from stepaudio_operator.kube import resources
from tests.integration.operator.another import another_version
from tests.integration.operator.conftest import Stage
from tests.integration.operator.world import eventually, ready

pytestmark = pytest.mark.api

WORKLOADS = (resources.PODS, resources.APP_DEPLOYMENTS, resources.REVISIONS, resources.POOLS)


async def state(stage: Stage, deployment: str) -> dict[str, tuple[str, str]]:
    """uid and resource version of everything that is a pod or makes pods."""
    return {
        f"{resource.kind} {raw['metadata']['name']}": (
            raw["metadata"]["uid"],
            raw["metadata"]["resourceVersion"],
        )
        for resource in WORKLOADS
        for raw in await stage.admin.all(resource, stage.namespace)
        if raw["metadata"]["labels"].get(names.LABEL_DEPLOYMENT) == deployment
    }


async def test_another_version_of_the_operator_writes_nothing_to_what_runs(
    stage: Stage, tmp_path: Path
) -> None:
    admin, namespace = stage.admin, stage.namespace
    first = stage.start_operator("first")
    await stage.deploy("nano")
    async with stage.gateways("nano"):
        await eventually(lambda: ready(admin, namespace, "nano"), "Ready")
        await asyncio.sleep(2)  # the gateway's Deployment counts its pods
        before = await state(stage, "nano")
        assert first.stop() == 0

        # As an upgraded chart starts it: with another default for the images of new deployments too.
        code = another_version(tmp_path / "newer")
        second = stage.start_operator("second", code=code, RUNTIME_VERSION="10.0.0")
        await eventually(second.leads, "the other version leads")
        await asyncio.sleep(5)
        assert await state(stage, "nano") == before
        assert await second.writes() == {}

        # It does differ: a new deployment gets the other pods.
        await stage.deploy("other", chat={"enabled": False}, tokenizer={"enabled": False})

        async def made() -> list[str]:
            return [n for n in await admin.names(resources.PODS, namespace) if n.startswith("other-tts-")]

        await eventually(made, "the other deployment has a pod")
        pod = await admin.get(resources.PODS, namespace, (await made())[0])
        main = pod["spec"]["containers"][0]
        assert {"name": "NEWER", "value": "1"} in main["env"]
        assert main["image"] == "stepaudio/runtime-cpu:10.0.0"
        assert main["readinessProbe"]["periodSeconds"] == 7
        assert pod["spec"]["terminationGracePeriodSeconds"] == 90 + names.GRACE_MARGIN_S
        assert await state(stage, "nano") == before
        assert second.stop() == 0

        # And back again.
        others = await state(stage, "other")
        third = stage.start_operator("third")
        await eventually(third.leads, "the first version leads again")
        await asyncio.sleep(5)
        assert await state(stage, "nano") == before
        assert {k: uid for k, (uid, _) in (await state(stage, "other")).items() if "Pod " in k} == {
            k: uid for k, (uid, _) in others.items() if "Pod " in k
        }
