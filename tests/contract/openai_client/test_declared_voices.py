"""A real gateway process in a cluster of one: voices that stand in a ConfigMap are spoken in, listed, kept
from the API's hands, changed and removed. The Kubernetes API is played over TLS; the gateway finds it as in a
pod.
"""

import asyncio
import base64
import hashlib
import json
import os
import shutil
import socket
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest
import uvicorn
from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse, Response, StreamingResponse

from stepaudio_cluster.certs import Authority
from tests.contract.openai_client.test_voices import names, speech

NAMESPACE, REVISION = "speech", "1f0c22aa"
# What a pod finds under /run; the mounts are this process's own.
IN_A_POD = (
    'mount -t tmpfs none /run && mkdir -p /run/secrets/kubernetes.io && cp -r "$0"'
    ' /run/secrets/kubernetes.io/serviceaccount && exec "$@"'
)


class ApiServer:
    """ConfigMaps by name, and the endpoints of one Service."""

    def __init__(self) -> None:
        self.config_maps: dict[str, dict[str, Any]] = {}
        self.slices: list[dict[str, Any]] = []
        self.version = 1
        self.server: uvicorn.Server | None = None

    def put(self, name: str, **fields: Any) -> None:
        self.version += 1
        meta = {"name": name, "namespace": NAMESPACE, "resourceVersion": str(self.version)}
        self.config_maps[name] = {"metadata": meta, **fields}

    def app(self) -> FastAPI:
        app = FastAPI()

        @app.get("/api/v1/namespaces/speech/configmaps/{name}")
        async def one(name: str) -> Response:
            found = self.config_maps.get(name)
            return JSONResponse(found) if found else JSONResponse({"message": "not found"}, 404)

        @app.get("/api/v1/namespaces/speech/configmaps")
        async def listed(request: Request) -> Response:
            name = request.query_params["fieldSelector"].removeprefix("metadata.name=")
            if request.query_params.get("watch"):
                return StreamingResponse(self._events(name, int(request.query_params["resourceVersion"])))
            found = [self.config_maps[name]] if name in self.config_maps else []
            return JSONResponse({"metadata": {"resourceVersion": str(self.version)}, "items": found})

        @app.get("/apis/discovery.k8s.io/v1/namespaces/speech/endpointslices")
        async def endpoints(request: Request) -> Response:
            if request.query_params.get("watch"):
                return StreamingResponse(self._events("", 0))
            service = request.query_params["labelSelector"].partition("=")[2]
            found = [
                s for s in self.slices if s["metadata"]["labels"]["kubernetes.io/service-name"] == service
            ]
            return JSONResponse({"metadata": {"resourceVersion": "1"}, "items": found})

        return app

    async def _events(self, name: str, since: int) -> AsyncIterator[str]:
        for _ in range(100):
            found = self.config_maps.get(name)
            if found is not None and int(found["metadata"]["resourceVersion"]) > since:
                since = int(found["metadata"]["resourceVersion"])
                yield json.dumps({"type": "MODIFIED", "object": found}) + "\n"
            await asyncio.sleep(0.05)


@pytest.fixture
def api(tmp_path: Path) -> Iterator[tuple[ApiServer, dict[str, str]]]:
    """The API server, and what a pod's environment says of it."""
    authority = Authority(tmp_path / "pki", "test")
    authority.ensure()
    pair = authority.issue("server", "server", hosts=["127.0.0.1"])
    account = tmp_path / "account"
    account.mkdir()
    (account / "token").write_text("t")
    (account / "namespace").write_text(NAMESPACE)
    shutil.copy(authority.pair.certificate, account / "ca.crt")
    served, listener = ApiServer(), socket.create_server(("127.0.0.1", 0))
    config = uvicorn.Config(
        served.app(),
        log_level="error",
        lifespan="off",
        ssl_certfile=str(pair.certificate),
        ssl_keyfile=str(pair.key),
    )
    served.server = uvicorn.Server(config)
    thread = threading.Thread(target=served.server.run, kwargs={"sockets": [listener]}, daemon=True)
    thread.start()
    yield (
        served,
        {"KUBERNETES_SERVICE_HOST": "127.0.0.1", "KUBERNETES_SERVICE_PORT": str(listener.getsockname()[1])},
    )
    served.server.should_exit = True


@pytest.fixture
def gateway(
    api: tuple[ApiServer, dict[str, str]], stack: Any, tmp_path: Path
) -> Iterator[tuple[ApiServer, str]]:
    """The API server and the URL of a gateway that follows it, with the small TTS pod behind it."""
    prefix = ["unshare", "-rm", "sh", "-c", IN_A_POD, str(tmp_path / "account")]
    if subprocess.run([*prefix, "true"], capture_output=True, check=False).returncode:
        pytest.skip(
            "no mounts of its own for a process on this machine: the gateway cannot be put into a pod"
        )
    served, where = api
    port = int(stack.tts.url.rpartition(":")[2])
    pools = {"tts": {"service": "prod-tts", "port": port, "revisions": {REVISION: 100}}}
    routing = {"generation": 1, "release": "r", "serving": True, "retryAfterSeconds": None, "pools": pools}
    served.put("prod-routing", data={"routing.json": json.dumps(routing)})
    served.slices.append(
        {
            "metadata": {"name": "s", "labels": {"kubernetes.io/service-name": "prod-tts"}},
            "ports": [{"name": "http", "port": port, "protocol": "TCP"}],
            "endpoints": [
                {
                    "addresses": ["127.0.0.1"],
                    "conditions": {"ready": True},
                    "targetRef": {"kind": "Pod", "name": f"prod-tts-{REVISION}-0", "namespace": NAMESPACE},
                }
            ],
        }
    )
    with socket.create_server(("127.0.0.1", 0)) as probe:
        mine = probe.getsockname()[1]
    settings = {
        "POD_NAMESPACE": NAMESPACE,
        "STEPAUDIO_ROUTING_CONFIGMAP": "prod-routing",
        "STEPAUDIO_VOICES_CONFIGMAP": "prod-voices",
        "STEPAUDIO_VOICES_URL": f"file://{tmp_path}/voices",
        "STEPAUDIO_HOST": "127.0.0.1",
        "STEPAUDIO_PORT": str(mine),
    }
    log = tmp_path / "gateway.log"
    with log.open("wb") as out:
        process = subprocess.Popen(
            [*prefix, sys.executable, "-m", "stepaudio_runtime.cli", "serve", "gateway"],
            env={**os.environ, "OMP_NUM_THREADS": "1", **settings, **where},
            stdout=out,
            stderr=out,
        )
    url = f"http://127.0.0.1:{mine}"
    try:
        until(lambda: process.poll() is not None or answers(f"{url}/readyz"), log)
        assert process.poll() is None, log.read_text()
        yield served, url
    finally:
        process.kill()
        process.wait()


def answers(url: str) -> bool:
    try:
        return httpx.get(url).status_code == 200
    except httpx.TransportError:
        return False


def until(true: Any, log: Path | None = None) -> None:
    deadline = time.monotonic() + 60
    while not true():
        assert time.monotonic() < deadline, log.read_text() if log else ""
        time.sleep(0.05)


def declare(served: ApiServer, *voices: dict[str, Any]) -> None:
    """As the operator writes it."""
    served.put(
        "prod-voices", data={"voices.json": json.dumps({"owner": "speech/prod", "voices": list(voices)})}
    )


def voice(wave: bytes, digest: str) -> dict[str, Any]:
    source = {"configMap": "ada", "key": "ada.wav", "sha256": hashlib.sha256(wave).hexdigest()}
    said = {"person": "Ada Example", "statement": "I agree.", "transcript": "hello world"}
    return {"uid": "u1", "name": "Ada", "digest": digest, "wave": source, **said}


def test_a_declared_voice_is_brought_kept_changed_and_removed(
    gateway: tuple[ApiServer, str], stack: Any
) -> None:
    served, url = gateway
    client = openai.OpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0, timeout=60)

    def state() -> dict[str, Any]:
        return dict(httpx.get(f"{url}/stepaudio/voices").json()["voices"].get("u1") or {})

    assert httpx.get(f"{url}/stepaudio/voices").json() == {"voices": {}}
    wave = speech(2.0)
    served.put("ada", binaryData={"ada.wav": base64.b64encode(wave).decode()})
    declare(served, voice(wave, "d1"))
    until(lambda: state().get("state") == "Stored")
    stored = {"digest": "d1", "state": "Stored", "reason": "Stored", "message": ""}
    assert state() == {**stored, "durationSeconds": 2.0, "transcribed": False}
    assert names(client) == ["lulu", "Ada"]
    shown = client.get("/voices/Ada", cast_to=object)
    assert (shown["sha256"], shown["consent"]["person"]) == (hashlib.sha256(wave).hexdigest(), "Ada Example")
    stack.tts.created.add("Ada")
    said = client.audio.speech.create(model="step-audio-tts", voice="Ada", input="hi", response_format="pcm")
    assert said.content

    with pytest.raises(openai.PermissionDeniedError) as refused:
        client.delete("/voices/Ada", cast_to=object)
    assert refused.value.code == "voice_is_declared"

    longer = speech(3.0)
    served.put("ada", binaryData={"ada.wav": base64.b64encode(longer).decode()})
    declare(served, voice(longer, "d2"))
    until(lambda: state().get("durationSeconds") == 3.0)
    declare(served)
    until(lambda: names(client) == ["lulu"])
    assert httpx.get(f"{url}/stepaudio/voices").json() == {"voices": {}}
