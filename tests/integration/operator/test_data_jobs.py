"""A data job on a real API server: the pods of its Job are played by real processes of the engine, started by
the command and the environment that the Job names. One is killed, so is the operator; the data become whole,
and stay when the data job is deleted.

API server, Job controller and garbage collector are real.
"""

import asyncio
import contextlib
import os
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from stepaudio_operator import names
from stepaudio_operator.kube import resources
from stepaudio_runtime.engine.shards import read_manifest, read_shards
from tests.integration.operator.conftest import Stage
from tests.integration.operator.world import LONG_LEASE, Refused, condition, eventually

pytestmark = pytest.mark.api

POD_HOST = f"127.89.{os.getpid() % 256}.1"
PATIENCE_S = 180.0
SAMPLES = 120
RECIPE = {
    "name": "tiny",
    "licence": "Apache-2.0",
    "texts": [{"domain": "en", "split": "train", "count": SAMPLES}],
    "voices": ["en-us+f2"],
    "teacher": {"kind": "espeak"},
    "output": {"samples_per_shard": 30},
}
Raw = dict[str, Any]


class Engine:
    """Runs the pods of the Job as processes here, each in the folder that stands for the volume."""

    def __init__(self, stage: Stage, folder: Path) -> None:
        self._stage = stage
        self.folder = folder
        self.running: dict[str, subprocess.Popen[bytes]] = {}
        self.started = 0

    async def play(self) -> None:
        while True:
            with contextlib.suppress(Refused):
                for pod in await self._stage.admin.all(resources.PODS, self._stage.namespace):
                    await self._move(pod)
            await asyncio.sleep(0.2)

    async def _move(self, pod: Raw) -> None:
        name = pod["metadata"]["name"]
        if name not in self.running and pod["status"].get("phase", "Pending") == "Pending":
            self.running[name] = self._start(pod)
            now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
            await self._tell(name, "Running", {"running": {"startedAt": now}})
        elif name in self.running and pod["status"]["phase"] == "Running":
            code = self.running[name].poll()
            if code is not None:
                words = (self.folder / name).read_text()
                ended = {"exitCode": code if code >= 0 else 128 - code, "message": words}
                now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
                ended |= {"startedAt": now, "finishedAt": now}
                await self._tell(name, "Failed" if code else "Succeeded", {"terminated": ended})

    def _start(self, pod: Raw) -> subprocess.Popen[bytes]:
        container = pod["spec"]["containers"][0]
        command = container["command"]
        assert command[0] == "stepaudio" and pod["spec"]["volumes"][-1]["persistentVolumeClaim"]
        out = str(self.folder / "volume")
        arguments = [out if word == names.DATA_MOUNT else word for word in command[1:]]
        words = self.folder / pod["metadata"]["name"]
        words.write_text("")
        environment = {v["name"]: v["value"] for v in container["env"] if v["name"] != names.ENV_HOME}
        self.started += 1
        return subprocess.Popen(
            [sys.executable, "-m", "stepaudio_runtime.cli", *arguments, "--host", POD_HOST],
            env={
                **os.environ,
                **environment,
                "STEPAUDIO_TERMINATION_LOG": str(words),
                "TMPDIR": str(self.folder),
            },
        )

    async def _tell(self, name: str, phase: str, state: Raw) -> None:
        container = {"name": names.CONTAINER, "image": "x", "imageID": "", "restartCount": 0}
        container |= {"ready": "running" in state, "state": state}
        status: Raw = {"phase": phase, "containerStatuses": [container]}
        if phase == "Running":
            status |= {
                "podIP": POD_HOST,
                "podIPs": [{"ip": POD_HOST}],
                "startTime": state["running"]["startedAt"],
            }
        await self._stage.admin.patch(
            resources.PODS, self._stage.namespace, name, {"status": status}, "status"
        )

    def made(self) -> int:
        """Samples on the volume, sealed ones not counted."""
        return len(list((self.folder / "volume").glob("work/*.made")))


async def test_a_data_job_becomes_whole_data_that_outlive_it(stage: Stage, tmp_path: Path) -> None:
    admin, namespace = stage.admin, stage.namespace
    stage.kubelet.hold = lambda pod: names.LABEL_DATA_JOB in pod["metadata"]["labels"]
    operator = stage.start_operator(**LONG_LEASE)
    engine = Engine(stage, tmp_path)
    playing = asyncio.create_task(engine.play())
    body = {
        "apiVersion": names.API_VERSION,
        "kind": names.DATA_JOB_KIND,
        "metadata": {"namespace": namespace, "name": "speech"},
        "spec": {"recipe": RECIPE, "output": {"volume": {"size": "1Gi"}}},
    }
    try:
        await admin.apply(resources.DATA_JOBS, body)

        async def told() -> bool:
            raw = await admin.get(resources.DATA_JOBS, namespace, "speech")
            return (raw.get("status") or {}).get("samplesTotal") == SAMPLES and engine.made() > 0

        await eventually(told, "the status says how far the engine is", within_s=PATIENCE_S)
        operator.kill()
        (process,) = engine.running.values()
        process.kill()
        operator.start()

        async def whole() -> Raw | None:
            raw = await admin.get(resources.DATA_JOBS, namespace, "speech")
            return raw if condition(raw, "Ready").get("status") == "True" else None

        status = (await eventually(whole, "the data are whole", within_s=PATIENCE_S))["status"]
        assert engine.started == 2
        manifest = read_manifest(tmp_path / "volume")
        assert {k: v for k, v in status.items() if k not in ("conditions", "inputs")} == {
            "observedGeneration": 1,
            "phase": "Complete",
            "claimName": "speech-data",
            "image": "stepaudio/runtime-cpu:9.9.9",
            "percent": 100,
            "samplesTotal": SAMPLES,
            "samples": SAMPLES,
            "refused": 0,
            "seconds": round(manifest["seconds"]),
        }
        await admin.delete(resources.DATA_JOBS, namespace, "speech")

        async def alone() -> bool:
            return not await admin.names(resources.JOBS, namespace)

        await eventually(alone, "its Job goes with it", within_s=PATIENCE_S)
        assert await admin.names(resources.CLAIMS, namespace) == ["speech-data"]
        assert len(list(read_shards(tmp_path / "volume"))) == SAMPLES
    finally:
        playing.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await playing
        for process in engine.running.values():
            if process.poll() is None:
                process.kill()
                process.wait()
