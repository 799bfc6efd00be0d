"""`plan FILE --against-cluster` says what applying the file then does, and writes nothing."""

import asyncio
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from stepaudio_cluster.api import Cluster
from stepaudio_operator import names
from stepaudio_operator.kube import resources
from tests.integration.operator.conftest import Stage
from tests.integration.operator.test_first_light import OWN
from tests.integration.operator.world import LONG_LEASE, eventually, ready

pytestmark = pytest.mark.api


def manifest(folder: Path, namespace: str, **spec: Any) -> Path:
    """The file that somebody keeps in Git."""
    file = folder / "nano.yaml"
    body = {
        "apiVersion": names.API_VERSION,
        "kind": names.DEPLOYMENT_KIND,
        "metadata": {"name": "nano", "namespace": namespace},
        "spec": {"preset": "nano", **spec},
    }
    file.write_text(yaml.safe_dump(body))
    return file


async def plan(cluster: Cluster, file: Path) -> list[str]:
    """The lines that the command prints."""
    command = [str(Path(sys.executable).with_name("stepaudio-operator")), "plan", str(file)]
    run = await asyncio.to_thread(
        subprocess.run,
        [*command, "--against-cluster", "--runtime-version", "9.9.9"],
        env={**os.environ, "KUBECONFIG": str(cluster.kubeconfig)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stderr
    return run.stdout.splitlines()


async def versions(stage: Stage) -> dict[str, str]:
    """Resource version of the deployment and of every object that belongs to it."""
    return {
        f"{resource.kind} {raw['metadata']['name']}": raw["metadata"]["resourceVersion"]
        for resource in (resources.DEPLOYMENTS, *OWN)
        for raw in await stage.admin.all(resource, stage.namespace)
        if raw["metadata"]["name"].startswith("nano")
    }


def revision_of(lines: list[str], pool: str) -> str:
    """The revision that a plan stores for a pool."""
    found = [re.match(rf"create ControllerRevision {pool}-([0-9a-f]{{8}}):", line) for line in lines]
    return next(match.group(1) for match in found if match)


async def test_the_plan_of_a_new_file_is_what_then_comes(
    stage: Stage, api_cluster: Cluster, tmp_path: Path
) -> None:
    admin, namespace = stage.admin, stage.namespace
    file = manifest(tmp_path, namespace)
    planned = await plan(api_cluster, file)
    assert planned[:2] == [
        f"# StepAudioDeployment {namespace}/nano",
        "create StepAudioDeployment nano: it is not there",
    ]
    created = {line.split(":")[0].removeprefix("create ") for line in planned if line.startswith("create ")}
    rolled = [line for line in planned if line.startswith("roll ")]
    assert len(rolled) == 1
    assert await versions(stage) == {}

    stage.start_operator(**LONG_LEASE)
    api_cluster.kubectl("apply", "-f", str(file))
    async with stage.gateways("nano"):
        await eventually(lambda: ready(admin, namespace, "nano"), "Ready")
    there = {name for name in await versions(stage) if not name.startswith("Pod nano-gateway")}
    assert created == there - {"Deployment nano-gateway", "ConfigMap nano-routing"}

    # What is as the file says: nothing is planned, and kubectl finds no difference either.
    before = await versions(stage)
    assert (await plan(api_cluster, file))[1:] == ["nothing to do"]
    assert api_cluster.kubectl("diff", "-f", str(file)) == ""
    assert await versions(stage) == before


async def test_the_plan_of_a_change_is_what_then_happens(
    stage: Stage, api_cluster: Cluster, tmp_path: Path
) -> None:
    admin, namespace = stage.admin, stage.namespace
    stage.start_operator(**LONG_LEASE)
    api_cluster.kubectl("apply", "-f", str(manifest(tmp_path, namespace, tts={"replicas": 2})))
    async with stage.gateways("nano"):
        await eventually(lambda: ready(admin, namespace, "nano"), "Ready")
        before = await versions(stage)
        old = next(n.rsplit("-", 2)[1] for n in await admin.names(resources.PODS, namespace) if "-tts-" in n)
        changed = manifest(
            tmp_path, namespace, tts={"replicas": 2, "maxModelLen": 512}, rollout={"maxUnavailable": 2}
        )
        planned = await plan(api_cluster, changed)
        assert await versions(stage) == before
        new = revision_of(planned, "nano-tts")
        assert planned[1:] == [
            "change StepAudioDeployment nano: spec.tts.maxModelLen unset -> 512;"
            ' spec.rollout unset -> {"maxUnavailable": 2}',
            'change StepAudioPool nano-chat: spec.rollout unset -> {"maxUnavailable": 2}',
            'change StepAudioPool nano-tts: spec.rollout unset -> {"maxUnavailable": 2};'
            " spec.maxModelLen unset -> 512",
            'change StepAudioPool nano-tokenizer: spec.rollout unset -> {"maxUnavailable": 2}',
            'change StepAudioPool nano-gateway: spec.rollout unset -> {"maxUnavailable": 2}',
            "change PodDisruptionBudget nano-chat: this version makes it otherwise",
            "change PodDisruptionBudget nano-tts: this version makes it otherwise",
            f"create ControllerRevision nano-tts-{new}: the spec asks for a revision that is not stored",
            f"create Pod nano-tts-{new}-0: 2 replicas are wanted",
            f"delete Pod nano-tts-{old}-1: revision {new} replaces it",
            f"create Pod nano-tts-{new}-1: 2 replicas are wanted",
            f"delete Pod nano-tts-{old}-0: revision {new} replaces it",
            "change PodDisruptionBudget nano-tokenizer: this version makes it otherwise",
            "change PodDisruptionBudget nano-gateway: this version makes it otherwise",
        ]

        api_cluster.kubectl("apply", "-f", str(changed))

        async def moved() -> bool:
            pods = [n for n in await admin.names(resources.PODS, namespace) if "-tts-" in n]
            done = pods == [f"nano-tts-{new}-0", f"nano-tts-{new}-1"]
            return done and await ready(admin, namespace, "nano") is not None

        await eventually(moved, "the pods are those of the plan")
        assert (await plan(api_cluster, changed))[1:] == ["nothing to do"]
        assert api_cluster.kubectl("diff", "-f", str(changed)) == ""


async def test_the_plan_of_another_release_keeps_what_serves_until_the_traffic_moves(
    stage: Stage, api_cluster: Cluster, tmp_path: Path
) -> None:
    admin, namespace = stage.admin, stage.namespace
    stage.start_operator(**LONG_LEASE)
    api_cluster.kubectl("apply", "-f", str(manifest(tmp_path, namespace)))
    async with stage.gateways("nano"):
        await eventually(lambda: ready(admin, namespace, "nano"), "Ready")
    planned = await plan(api_cluster, manifest(tmp_path, namespace, runtime={"version": "9.9.10"}))
    moves = [number for number, line in enumerate(planned) if line.startswith("ReleasePending: ")]
    assert len(moves) == 1
    made = {n for n, line in enumerate(planned) if line.startswith("create Pod ")}
    gone = {n for n, line in enumerate(planned) if line.startswith("delete Pod ")}
    assert len(made) == len(gone) == len(names.MODEL_COMPONENTS)
    assert max(made) < moves[0] < min(gone)
