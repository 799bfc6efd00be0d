"""A chat pod that does not lead its group: it owns vLLM's workers of its share of the model, serves nobody.

It is ready when the leader is, and its life hangs on the leader's. While the leader answers, the workers do
not hear of SIGTERM: the leader still has requests for which they compute. When it no longer answers, the pod
ends, so that the kubelet starts it anew and it meets the leader's next life. In the same way a leader ends
whose workers are gone: its engine fails, or takes no step within the stall time-out.
"""

import asyncio
import logging
import socket
import time
from collections.abc import Callable, Mapping

import httpx
from starlette.applications import Starlette
from starlette.types import ASGIApp

from stepaudio_runtime.contract import Route
from stepaudio_runtime.errors import StepAudioError
from stepaudio_runtime.health.metrics import PodMetrics
from stepaudio_runtime.health.routes import health_routes
from stepaudio_runtime.health.state import PodState
from stepaudio_runtime.pods.chat import STOP_TIMEOUT_S, ChatModel, ended_child
from stepaudio_runtime.service.child import Child
from stepaudio_runtime.settings import Group

log = logging.getLogger(__name__)

LOOK_S = 0.25
NOBODY = 0
SILENT_S = 15.0  # a leader that nobody can reach for this long has gone with its node


class LeaderGone(StepAudioError):  # noqa: N818 - named as the condition's reason
    """The pod that leads the group has ended: so does this one, and both begin anew."""

    reason = "LeaderGone"


class Follower:
    """Owns the workers; `verify` reads the model folder (blocking), `command` and `env` start them."""

    def __init__(
        self,
        state: PodState,
        group: Group,
        *,
        verify: Callable[[], ChatModel],
        command: Callable[[ChatModel], list[str]],
        env: Mapping[str, str],
        drain_timeout_s: float,
    ) -> None:
        self.state = state
        self.failed: asyncio.Future[StepAudioError] = asyncio.get_running_loop().create_future()
        self._leader = Leader(group)
        self._verify = verify
        self._command = command
        self._env = env
        self._drain_timeout_s = drain_timeout_s
        self._child: Child | None = None
        self._watching: list[asyncio.Task[StepAudioError]] = []

    async def start(self) -> None:
        """Verify, start the workers, wait until the leader is ready."""
        self.state.load("verifying the model folder")
        model = await asyncio.to_thread(self._verify)
        self.state.load("loading a share of the model, and waiting for the others of the group")
        child = self._child = await Child.start(self._command(model), self._env, "vllm")
        self._watching = [asyncio.create_task(self._end(child)), asyncio.create_task(self._leader.end())]
        ready = asyncio.create_task(self._leader.ready())
        try:
            await asyncio.wait({ready, *self._watching}, return_when=asyncio.FIRST_COMPLETED)
            for task in self._watching:
                if task.done():
                    raise task.result()
            await ready
        finally:
            ready.cancel()
        for task in self._watching:
            task.add_done_callback(self._note_end)

    async def stop(self) -> None:
        """End the workers, once the leader needs them no longer."""
        if self._watching and not any(task.done() for task in self._watching):
            log.info("the workers stay for at most %g s, until the leader has ended", self._drain_timeout_s)
            await asyncio.wait(
                self._watching, timeout=self._drain_timeout_s, return_when=asyncio.FIRST_COMPLETED
            )
        for task in self._watching:
            task.cancel()
        if self._child is not None:
            await self._child.stop(STOP_TIMEOUT_S)
        await self._leader.close()

    def _note_end(self, task: "asyncio.Task[StepAudioError]") -> None:
        if not task.cancelled() and not self.failed.done():
            self.failed.set_result(task.result())

    @staticmethod
    async def _end(child: Child) -> StepAudioError:
        return ended_child(child, await child.wait())


class Leader:
    """The pod of rank 0, as the others see it: by its health. Its address is looked up until it first
    answers: its name goes before it does.
    """

    def __init__(self, group: Group) -> None:
        self._group = group
        self._http = httpx.AsyncClient(timeout=httpx.Timeout(5, connect=2), trust_env=False)
        self._address = ""

    async def ready(self) -> None:
        """Returns when it is ready."""
        while await self._ask() != 200:  # noqa: ASYNC110 - the leader alone changes it
            await asyncio.sleep(LOOK_S)

    async def end(self) -> LeaderGone:
        """Returns when it has answered and does so no longer."""
        while not await self._ask():  # noqa: ASYNC110
            await asyncio.sleep(LOOK_S)
        heard = time.monotonic()
        while (answer := await self._ask()) != NOBODY and time.monotonic() < heard + SILENT_S:
            heard = time.monotonic() if answer else heard
            await asyncio.sleep(LOOK_S)
        return LeaderGone(f"{self._group.leader}, which leads the group, answers no longer; it begins anew")

    async def close(self) -> None:
        """Close connections."""
        await self._http.aclose()

    async def _ask(self) -> int | None:
        """The status of its readiness, NOBODY where none listens there, None where that is not known."""
        try:
            host = self._address or await self._look_up()
            at = f"[{host}]" if ":" in host else host
            answer = await self._http.get(f"http://{at}:{self._group.leader_port}{Route.READYZ}")
        except (httpx.ConnectError, OSError):
            return NOBODY
        except httpx.HTTPError:
            return None
        self._address = host
        return answer.status_code

    async def _look_up(self) -> str:
        found = await asyncio.get_running_loop().getaddrinfo(
            self._group.leader, None, type=socket.SOCK_STREAM
        )
        return str(found[0][4][0])


def follower_app(service: Follower) -> ASGIApp:
    """The pod's application: health alone."""
    return Starlette(routes=health_routes(service.state, PodMetrics(service.state)))
