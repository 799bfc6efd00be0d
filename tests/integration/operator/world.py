"""What the operator's tests play with: an administrator, gateways, the operator itself.

The API server and the controller-manager are real. Nothing runs pods: `kubelet.Kubelet` writes the status
that a real one would, and `Gateways` answers `/status` as the gateway pods do, from the routing object as
stored.
"""

import asyncio
import contextlib
import json
import os
import signal
import socket
import ssl
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import httpx
from aiohttp import web
from kubernetes.aio.client.configuration import Configuration
from kubernetes.aio.config import load_kube_config

from stepaudio_operator import names
from stepaudio_operator.kube import resources
from stepaudio_operator.kube.resources import Resource
from stepaudio_runtime.health.state import PodState
from tests.integration.operator.lives import Life

Raw = dict[str, Any]
MERGE = "application/merge-patch+json"
APPLY = "application/apply-patch+yaml"
# How much longer than usual to wait, on a machine that does much else.
PATIENCE = float(os.environ.get("STEPAUDIO_TEST_PATIENCE", "1"))
# For an operator alone: it is not the question who leads, and a busy machine may be late to renew.
LONG_LEASE = {"LEASE_DURATION_S": "120", "LEASE_RENEW_S": "90"}
# Loopback, this process's own: where stubs of pods listen, on the pods' real ports.
_NETWORK = f"127.{64 + os.getpid() // 256 % 64}.{os.getpid() % 256}"
GATEWAY_HOST, POD_HOST, JOB_HOST = (f"{_NETWORK}.{host}" for host in (1, 2, 3))


class Refused(Exception):  # noqa: N818 - what the server says, not a mistake
    """The API server said no: `code` and its `message`."""

    def __init__(self, code: int, message: str) -> None:
        super().__init__(f"{code}: {message}")
        self.code = code
        self.message = message


class Admin:
    """Raw calls as cluster administrator."""

    def __init__(self, configuration: Configuration) -> None:
        context = ssl.create_default_context(
            cafile=configuration.ssl_ca_cert, cadata=configuration.ca_cert_data
        )
        context.verify_flags &= ~ssl.VERIFY_X509_STRICT
        if configuration.cert_file:
            context.load_cert_chain(configuration.cert_file, configuration.key_file)
        self.server = configuration.host
        self.ca_file = configuration.ssl_ca_cert
        self._http = httpx.AsyncClient(base_url=configuration.host, verify=context, timeout=30 * PATIENCE)

    @classmethod
    async def from_kubeconfig(cls, path: Path) -> "Admin":
        configuration = Configuration()
        await load_kube_config(config_file=str(path), client_configuration=configuration)
        return cls(configuration)

    async def close(self) -> None:
        await self._http.aclose()

    async def call(self, method: str, path: str, body: Any = None, content: str = "application/json") -> Any:
        response = await self._http.request(
            method,
            path,
            content=None if body is None else json.dumps(body),
            headers={"Content-Type": content},
        )
        if response.status_code >= 400:
            try:
                message = response.json().get("message", "")
            except ValueError:
                message = response.text
            raise Refused(response.status_code, message)
        return response.json() if "json" in response.headers.get("content-type", "") else response.text

    async def stream(self, path: str, query: dict[str, str]) -> AsyncIterator[Raw]:
        """The events of a watch, until the server ends it."""
        timeout = httpx.Timeout(30, read=None)
        async with self._http.stream("GET", path, params=query, timeout=timeout) as response:
            async for line in response.aiter_lines():
                yield json.loads(line)

    async def get(self, resource: Resource, namespace: str | None, name: str) -> Raw:
        return await self.call("GET", resource.path(namespace, name))

    async def find(self, resource: Resource, namespace: str | None, name: str) -> Raw | None:
        try:
            return await self.get(resource, namespace, name)
        except Refused as refused:
            if refused.code == 404:
                return None
            raise

    async def all(self, resource: Resource, namespace: str | None) -> list[Raw]:
        return (await self.call("GET", resource.path(namespace)))["items"]

    async def names(self, resource: Resource, namespace: str) -> list[str]:
        return sorted(item["metadata"]["name"] for item in await self.all(resource, namespace))

    async def apply(
        self, resource: Resource, body: Raw, manager: str = "somebody", *, force: bool = False
    ) -> Raw:
        path = resource.path(body["metadata"].get("namespace"), body["metadata"]["name"])
        query = f"fieldManager={manager}&fieldValidation=Strict&force={str(force).lower()}"
        return await self.call("PATCH", f"{path}?{query}", body, APPLY)

    async def patch(
        self, resource: Resource, namespace: str, name: str, body: Raw, subresource: str | None = None
    ) -> Raw:
        return await self.call("PATCH", resource.path(namespace, name, subresource), body, MERGE)

    async def delete(self, resource: Resource, namespace: str | None, name: str) -> None:
        await self.call("DELETE", resource.path(namespace, name))


async def eventually(
    check: Callable[[], Awaitable[Any]], what: str, within_s: float = 60.0, every_s: float = 0.15
) -> Any:
    """Repeats `check` until it returns something true; fails with `what` and the last result."""
    within_s *= PATIENCE
    deadline = time.monotonic() + within_s
    last: Any = None
    while time.monotonic() < deadline:
        last = await check()
        if last:
            return last
        await asyncio.sleep(every_s)
    raise AssertionError(f"not within {within_s:.0f} s: {what}; last: {last!r}")


@contextlib.asynccontextmanager
async def answering(host: str, *routes: web.RouteDef) -> AsyncIterator[None]:
    """Something listens at the pods' port of `host`."""
    app = web.Application()
    app.add_routes(routes)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, host, names.POOL_PORT, reuse_address=True).start()
    try:
        yield
    finally:
        await runner.cleanup()


def status_of(state: PodState) -> web.RouteDef:
    """What a pod in that state says of itself."""

    async def status(_request: web.Request) -> web.Response:
        return web.json_response(state.status())

    return web.get(names.STATUS_PATH, status)


class Gateways:
    """Answers `GET /status` for every gateway pod with the generation of the stored routing object."""

    def __init__(self, admin: Admin, namespace: str, deployment: str) -> None:
        self._admin = admin
        self._path = (namespace, names.routing(deployment))
        self._declared = (namespace, names.voices(deployment))
        self.asked = 0
        self.behind = False
        """Whether they have not seen any routing yet."""
        self.errors: Callable[[str], int] | None = lambda revision: 0
        """Of a hundred requests to a revision, how many have failed; None where none can be asked for it."""

    async def __aenter__(self) -> "Gateways":
        app = web.Application()
        app.router.add_get(names.STATUS_PATH, self._status)
        app.router.add_get(names.DECLARED_VOICES_PATH, self._voices)
        app.router.add_get(names.FIGURES_PATH, self._figures)
        self._runner = web.AppRunner(app, access_log=None)
        await self._runner.setup()
        await web.TCPSite(self._runner, GATEWAY_HOST, names.GATEWAY_PORT, reuse_address=True).start()
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self._runner.cleanup()

    async def _routing(self) -> Raw | None:
        stored = await self._admin.find(resources.CONFIG_MAPS, *self._path)
        routing: Raw | None = json.loads(stored["data"][names.ROUTING_KEY]) if stored else None
        return routing

    async def _status(self, request: web.Request) -> web.Response:
        self.asked += 1
        routing = await self._routing()
        return web.json_response(
            {
                "component": "gateway",
                "phase": "Ready",
                "ready": True,
                "draining": False,
                "inFlight": 0,
                "routingGeneration": routing["generation"] if routing and not self.behind else None,
            }
        )

    async def _voices(self, request: web.Request) -> web.Response:
        """Every voice that it is told of counts as stored at once."""
        stored = await self._admin.find(resources.CONFIG_MAPS, *self._declared)
        wanted = json.loads(stored["data"][names.VOICES_KEY])["voices"] if stored else []
        said = {
            "state": "Stored",
            "reason": "Stored",
            "message": "",
            "durationSeconds": 2.5,
            "transcribed": True,
        }
        return web.json_response({"voices": {v["uid"]: {"digest": v["digest"], **said} for v in wanted}})

    async def _figures(self, request: web.Request) -> web.Response:
        """A hundred requests to every revision that the routing object names."""
        if self.errors is None:
            return web.json_response({"error": "busy"}, status=503)
        timely = [0] * (len(names.FIRST_BYTE_BOUNDS_S) + 1)
        routing = await self._routing()
        seen = {
            component: {
                revision: {"requests": 100, "errors": self.errors(revision), "firstByte": timely}
                for revision in pool["revisions"]
            }
            for component, pool in (routing or {"pools": {}})["pools"].items()
        }
        return web.json_response({"pools": seen})


def writes_of(metrics: dict[str, float]) -> dict[str, float]:
    """Successful writes by `verb kind`, leases apart."""
    total = "stepaudio_operator_api_writes_total"
    return {
        name.removeprefix(total): value
        for name, value in metrics.items()
        if name.startswith(total) and 'kind="Lease"' not in name
    }


class Operator:
    """One replica of the operator: a process, its log and its endpoints."""

    def __init__(
        self,
        kubeconfig: Path,
        folder: Path,
        identity: str,
        environment: dict[str, str],
        *,
        installed: bool = False,
        code: Path | None = None,
    ) -> None:
        """`installed`: the command, as the container runs it; else a fork, which starts faster. `code` is a
        folder with another version of the package, for the command.
        """
        self.identity = identity
        self._installed = installed or code is not None
        self.log = folder / f"{identity}.log"
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port: int = free.getsockname()[1]
        settings = {
            "HEALTH_HOST": "127.0.0.1",
            "HEALTH_PORT": str(self.port),
            "IDENTITY": identity,
            "LEASE_DURATION_S": str(15 * PATIENCE),
            "LEASE_RENEW_S": str(12 * PATIENCE),
            "LEASE_RETRY_S": "0.5",
            "RUNTIME_VERSION": "9.9.9",
            "LOG_LEVEL": "DEBUG",
        } | environment
        self.environment = {
            **{
                k: v
                for k, v in os.environ.items()
                if not k.startswith(("STEPAUDIO_", "KUBE"))
                and k not in ("USER", "LOGNAME", "USERNAME", "LNAME")
            },
            "KUBECONFIG": str(kubeconfig),
            **{f"STEPAUDIO_OPERATOR_{key}": value for key, value in settings.items()},
            **({"PYTHONPATH": str(code)} if code else {}),
        }
        self._process: subprocess.Popen[bytes] | Life | None = None

    def start(self) -> "Operator":
        if not self._installed:
            self._process = Life(self.environment, self.log)
            return self
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                [*_bare_user(), str(Path(sys.executable).with_name("stepaudio-operator")), "run"],
                env=self.environment,
                stdout=log,
                stderr=log,
            )
        return self

    @property
    def process(self) -> subprocess.Popen[bytes] | Life:
        assert self._process is not None
        return self._process

    def kill(self) -> None:
        """SIGKILL, as a node failure would."""
        self.process.kill()
        self.process.wait(20)

    def stop(self) -> int:
        """SIGTERM. Returns the exit status."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(30 * PATIENCE)

    def rss_mib(self) -> float:
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        return int(status.split("VmRSS:")[1].split()[0]) / 1024

    async def metrics(self) -> dict[str, float]:
        async with httpx.AsyncClient() as http:
            text = (await http.get(f"http://127.0.0.1:{self.port}/metrics")).text
        lines = (line.rsplit(" ", 1) for line in text.splitlines() if line and not line.startswith("#"))
        return {name: float(value) for name, value in lines}

    async def writes(self) -> dict[str, float]:
        """Successful writes so far by `verb kind`, leases apart."""
        return writes_of(await self.metrics())

    async def readiness(self) -> str:
        """What `/readyz` says; "" where nobody answers."""
        try:
            async with httpx.AsyncClient() as http:
                return (await http.get(f"http://127.0.0.1:{self.port}/readyz")).text
        except httpx.HTTPError:
            return ""

    async def ready(self) -> bool:
        return await self.readiness() == "ok\n"

    async def leads(self) -> bool:
        try:
            return (await self.metrics())["stepaudio_operator_leader"] == 1.0
        except httpx.HTTPError:
            return False


@cache
def _bare_user() -> tuple[str, ...]:
    """What runs a command under a uid without a name, as in the container; nothing where forbidden."""
    uid = str(names.USER_ID)
    prefix = ("unshare", "--user", f"--map-user={uid}", f"--map-group={uid}")
    try:
        allowed = subprocess.run([*prefix, "true"], capture_output=True, check=False).returncode == 0
    except FileNotFoundError:
        return ()
    return prefix if allowed else ()


def tracebacks(log: Path) -> Iterator[str]:
    """Lines of a log that only a mistake of ours produces."""
    for line in log.read_text().splitlines():
        if "Traceback" in line or "unexpected error" in line:
            yield line


def condition(raw: Raw | None, kind: str) -> Raw:
    """A condition of an object; empty where there is none."""
    for found in ((raw or {}).get("status") or {}).get("conditions") or ():
        if found["type"] == kind:
            return found
    return {}


async def stalled(admin: Admin, resource: Resource, namespace: str, name: str) -> Raw | None:
    """The condition that says so, once it does."""
    found = condition(await admin.find(resource, namespace, name), "Stalled")
    return found if found.get("status") == "True" else None


async def ready(admin: Admin, namespace: str, name: str) -> Raw | None:
    """The deployment, once its status speaks of its newest spec and it is Ready."""
    raw = await admin.get(resources.DEPLOYMENTS, namespace, name)
    current = (raw.get("status") or {}).get("observedGeneration") == raw["metadata"]["generation"]
    return raw if current and condition(raw, "Ready").get("status") == "True" else None
